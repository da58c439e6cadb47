"""What the NPU's library prints while it is called."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from npu_models import small, written

from npu_standin import build
from rkzoo.runtime.npu_context import Context, NpuLibrary
from rkzoo.runtime.npu_log import captured


def test_errors_are_held_back_and_the_rest_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    def call() -> int:
        os.write(2, b"W RKNN: [13:34:58.514] old driver\nE RKNN: [13:34:58.514] no memory\n")
        os.write(1, b'{"frame": 1}\nE RKNNAPI: rknn_init fail!\nhalf a line')
        return -6

    assert captured(call) == (-6, ["rknn_init fail!", "no memory"])
    os.write(1, b", and its end\n")
    told = capfd.readouterr()
    assert told.out == '{"frame": 1}\nhalf a line, and its end\n'
    assert told.err == "W RKNN: [13:34:58.514] old driver\n"


def test_after_an_exception_everything_is_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    files = len(os.listdir("/proc/self/fd"))

    def call() -> int:
        os.write(2, b"before\n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        captured(call)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
    assert len(os.listdir("/proc/self/fd")) == files


def test_what_was_printed_before_the_process_ended_is_shown() -> None:
    """A library that prints its reason and dies of it."""
    script = (
        "import os, signal\n"
        "from rkzoo.runtime.npu_log import captured\n"
        "def call():\n"
        "    os.write(1, b'text\\n')\n"
        "    os.write(2, b'E RKNN: failed to allocate\\n')\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "captured(call, guarded=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGSEGV
    assert done.stderr == "text\nE RKNN: failed to allocate\n"
    assert done.stdout == ""


def test_the_guard_keeps_silent_otherwise(capfd: pytest.CaptureFixture[str]) -> None:
    assert captured(lambda: os.write(2, b"text\n"), guarded=True) == (5, [])
    assert capfd.readouterr() == ("", "text\n")


def test_several_threads_lose_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def work(number: int) -> None:
        for turn in range(50):
            text = f"{number}.{turn}"
            errors = captured(lambda text=text: os.write(2, f"E RKNN: {text}\n".encode()))[1]
            assert text in errors
            os.write(1, f"{text}\n".encode())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = capfd.readouterr()
    assert sorted(told.out.split()) == sorted(f"{n}.{t}" for n in range(4) for t in range(50))
    assert told.err == ""


def test_without_standard_streams(tmp_path: Path) -> None:
    """As a service may run."""
    script = "from rkzoo.runtime.npu_log import captured\nassert captured(lambda: 3) == (3, [])"
    command = f"exec {sys.executable} -c '{script}' 1>&- 2>&-"
    assert subprocess.run(["sh", "-c", command]).returncode == 0


QUOTED = """
import sys
from pathlib import Path
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu_context import Context, NpuLibrary
try:
    Context.open(NpuLibrary(sys.argv[1]), Path(sys.argv[2]))
except RkzooError as error:
    sys.exit(1 if error.why.count(sys.argv[3]) == 1 else 2)
"""


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_an_error_quotes_the_librarys_own_line(tmp_path: Path, stream: str) -> None:
    """On stdout too, which a C library writes late, and only there where it was not told to."""
    library = build.compiled(tmp_path)
    said = 'It says: "the model is for rk3588, and this is rk3568".'
    environment = dict(os.environ, STANDIN_SAYS=stream, STANDIN_CHIP="rk3568")
    environment.pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-c", QUOTED, library, written(tmp_path, small()), said]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_question_to_which_no_is_an_answer_is_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = Context.open(NpuLibrary(build.compiled(tmp_path)), written(tmp_path, small()))
    assert context.shapes(0) == []
    assert capfd.readouterr() == ("", "")
