"""The child process, with a stand-in for the toolkit: what happens when it misbehaves."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.toolkit import logs, scratch, worker
from rkzoo.toolkit.environment import ToolkitEnv
from rkzoo.toolkit.process import ToolkitProcess

ENV = ToolkitEnv("0.0.0", Path(sys.executable), "3.x", "lean", 0)

# The real worker with another set of jobs.
STAND_IN = f"""
import os, signal, sys, time
import importlib.util
spec = importlib.util.spec_from_file_location("worker", {worker.__file__!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

class Jobs(worker.Jobs):
    def start(self, header, arrays):
        return {{}}, []
    def infer(self, header, arrays):
        return {{}}, [array * 2 for array in arrays]
    def build(self, header, arrays):
        BUILD
        return {{}}, []

worker.Jobs = Jobs
worker.main()
"""


@pytest.fixture
def process(cache, tmp_path):
    """Makes a ToolkitProcess whose build runs the given line of Python."""
    opened = []

    def start(line: str = "pass", **settings) -> ToolkitProcess:
        script = tmp_path / f"stand_in_{len(opened)}.py"
        script.write_text(STAND_IN.replace("BUILD", line))
        opened.append(ToolkitProcess(ENV, script=script, **settings))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def alive(pid: int) -> bool:
    """Running; one that only waits to be reaped by its new parent is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


WRITES = "open(header['export'], 'wb').write(b'rknn')"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("os.abort()", "crashed (SIGABRT)"),
        ("print('Meet unsupported conv', flush=True); os.abort()", "Meet unsupported conv"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed from outside"),
        ("os._exit(3)", "status 3"),
        ("raise ValueError('Traceback:\\n  frame\\nKeyError: cond\\n\\n')", "KeyError: cond"),
        ("print('E build: The dataset is gone!'); worker._done('build', -1)", "dataset is gone"),
        ("worker._done('build', -1)", "build returned -1"),
        ("worker._done('build', None)", "build returned None"),
        ("pass", "wrote no file"),
        ("open(header['export'], 'wb').close()", "wrote no file"),
    ],
)
def test_every_way_to_fail_is_one_error_with_a_log(process, make_net, tmp_path, line, words):
    child = process(line)
    pid, folder = child.pid, child.folder
    out = tmp_path / "out" / "model.rknn"
    with pytest.raises(RkzooError) as caught:
        child.build(make_net(), out)
    error = caught.value
    assert words in error.why
    assert error.code == 1
    assert error.fix
    assert "could not build the model for rk3588" in error.what
    assert error.log is not None
    assert error.log.parent == cache_dir("logs")
    assert not alive(pid)
    assert not folder.exists()
    assert not out.exists()
    with pytest.raises(RkzooError, match="ended already"):
        child.build(make_net(), out)


def test_a_timeout_ends_the_child(process, make_net, tmp_path):
    child = process("time.sleep(60)")
    start = time.monotonic()
    with pytest.raises(RkzooError, match="within 0 seconds"):
        child.build(make_net(), tmp_path / "out.rknn", timeout=0.4)
    assert time.monotonic() - start < 5
    assert not alive(child.pid)


def test_a_grandchild_goes_too_and_cannot_hold_the_line(process, make_net, tmp_path):
    child = process("import subprocess; print(subprocess.Popen(['sleep', '60']).pid); os._exit(0)")
    with pytest.raises(RkzooError, match="status 0") as caught:
        child.build(make_net(), tmp_path / "out.rknn", timeout=20)
    assert caught.value.log is not None
    grandchild = int(caught.value.log.read_text().split()[0])
    deadline = time.monotonic() + 5
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)


def test_a_build_writes_the_file_and_nothing_to_our_stdout(process, make_net, tmp_path, capfd):
    report = process(f"print('noise'); os.system('echo native'); {WRITES}").build(
        make_net(), tmp_path / "中 文" / "model.rknn"
    )
    assert report.rknn.read_bytes() == b"rknn"
    assert (report.size, report.soc, report.toolkit) == (4, "rk3588", "0.0.0")
    assert report.peak > 1e6
    assert os.listdir(report.rknn.parent) == ["model.rknn"]
    assert capfd.readouterr() == ("", "")


def test_a_failed_build_leaves_an_older_file_as_it_was(process, make_net, tmp_path):
    out = tmp_path / "model.rknn"
    out.write_bytes(b"older")
    with pytest.raises(RkzooError):
        process("os.abort()").build(make_net(), out)
    assert out.read_bytes() == b"older"


def test_arrays_larger_than_a_pipe_go_there_and_back(process, make_net, tmp_path):
    child = process(WRITES)
    child.build(make_net(size=512), tmp_path / "out.rknn")
    picture = np.random.default_rng(1).integers(0, 100, (1, 512, 512, 3), dtype=np.uint8)
    (back,) = child.infer([picture])
    assert np.array_equal(back, picture * 2)


def test_wrong_arrays_are_refused_without_asking_the_child(process, make_net, tmp_path):
    child = process(WRITES)
    with pytest.raises(RkzooError, match="no built model"):
        child.infer([])
    child.build(make_net(), tmp_path / "out.rknn")
    with pytest.raises(RkzooError, match="takes 1 input"):
        child.infer([])
    with pytest.raises(RkzooError, match=r"\(1, 3, 32, 32\)"):
        child.infer([np.zeros((1, 3, 32, 32), np.uint8)])
    assert alive(child.pid), "a mistake of the caller does not cost the built model"


def test_the_bar_follows_the_toolkits_bars_and_never_goes_back(process, make_net, tmp_path):
    seen: list[float] = []

    class Recorder:
        @contextmanager
        def task(self, label, total=None, *, bytes=False):
            assert (label, total) == ("Building for rk3588", 100)
            yield self

        def update(self, done, total=None):
            seen.append(done)

        def note(self, message):
            pass

    bars = [
        "I Loading : 100%|",
        "I Quantizating :  50%|",
        "I Loading :  10%|",
        "I rknn building ...",
    ]
    lines = f"[(print('\\r' + bar, flush=True), time.sleep(0.25)) for bar in {bars!r}]; {WRITES}"
    process(lines, report=Recorder()).build(make_net(), tmp_path / "out.rknn")
    assert seen == sorted(seen)
    assert set(seen) == {5, 50, 75, 100}


def test_a_child_outlives_the_thread_that_asked_for_it(process, make_net, tmp_path):
    opened = []
    thread = threading.Thread(target=lambda: opened.append(process(WRITES)))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert opened[0].build(make_net(), tmp_path / "out.rknn").size == 4


def test_a_child_whose_owner_is_forgotten_ends(process):
    import gc

    child = process()
    pid, folder = child.pid, child.folder
    process.__closure__[0].cell_contents.clear()
    del child
    gc.collect()
    assert not alive(pid)
    assert not folder.exists()


def test_a_missing_interpreter_is_one_error(cache):
    gone = ToolkitEnv("0.0.0", Path("/nonexistent/python"), "3.x", "lean", 0)
    with pytest.raises(RkzooError, match="cannot be started"):
        ToolkitProcess(gone)
    assert [path.name for path in cache_dir("scratch").iterdir()] == [".lock"]


def test_a_dead_owners_folder_is_swept_and_a_living_ones_stays(cache):
    living = scratch.make()
    dead = scratch.make()
    os.close(dead.descriptor)
    third = scratch.make()
    assert living.path.exists()
    assert not dead.path.exists()
    living.remove()
    third.remove()
    assert [path.name for path in cache_dir("scratch").iterdir()] == [".lock"]


def test_the_newest_twenty_logs_are_kept(cache):
    kept = [logs.keep_text(str(number), "test") for number in range(25)]
    assert {path for path in kept if path.exists()} == set(kept[5:])
