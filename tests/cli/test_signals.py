"""Real commands, stopped at random moments: one line, one exit code, two seconds, nothing left.

RKZOO_SIGNALS=200 tries 200 moments instead of a handful.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_yolo import stock

from rkzoo.cli import signals
from rkzoo.files import cache_dir
from rkzoo.toolkit import environment

TRIALS = int(os.environ.get("RKZOO_SIGNALS", "10"))
STOPPED = "Stopped. Nothing half-written was left behind."
OLD = b"what an earlier command wrote"
# Seconds within which the signal comes, by the verb's usual time on an idle machine.
VERBS = {"run": 2.0, "convert": 6.0, "eval": 5.0, "tune": 7.0, "stream": 3.0}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, 60 pictures with their truth, and a film."""
    folder = tmp_path_factory.mktemp("things")
    onnx.save(stock(names=repr(["cat", "dog", "cow"])), folder / "tiny.onnx")
    noise = np.random.default_rng(7)
    (folder / "pictures").mkdir()
    images, boxes = [], []
    film = cv2.VideoWriter(str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (96, 64))
    for number in range(60):
        name = f"{number:03d}.png"
        picture = noise.integers(0, 256, (64, 96, 3), np.uint8)
        cv2.imwrite(str(folder / "pictures" / name), picture)
        film.write(picture)
        images.append({"id": number, "file_name": f"pictures/{name}", "width": 96, "height": 64})
        box = {"bbox": [8, 8, 40, 30], "area": 1200, "iscrowd": 0, "category_id": number % 3 + 1}
        boxes.append({"id": number + 1, "image_id": number, **box})
    film.release()
    kinds = [{"id": i + 1, "name": name} for i, name in enumerate(("cat", "dog", "cow"))]
    truth = {"images": images, "annotations": boxes, "categories": kinds}
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


def command(verb: str, things: Path, out: Path) -> tuple[list[str], Path | None]:
    """A command line, and the output that it would replace."""
    model, data = str(things / "tiny.onnx"), ["--data", f"coco:{things / 'truth.json'}"]
    some = [str(things / "pictures" / f"{n:03d}.png") for n in range(6)]
    chip = ["--soc", "rk3588", "--calib", str(things / "pictures")]
    if verb == "run":
        return [verb, model, *some, "-o", str(out), "--json"], out / "000.png"
    if verb == "convert":
        return [verb, model, *chip, "-o", str(out / "x.rknn")], out / "x.rknn"
    if verb == "eval":
        return [verb, model, *data, "--workers", "2", "--json"], None
    if verb == "tune":
        return [verb, model, *chip, *data, "--limit", "8", "-o", str(out)], out / "tiny-rk3588.yaml"
    film = [str(things / "film.avi"), "--every-frame", "--jsonl", str(out / "x.jsonl")]
    return [verb, model, *film], out / "x.jsonl"


def wait_for_handler(process: subprocess.Popen[str]) -> None:
    """Until the command itself handles SIGTERM: what comes before is Python's start, which dies of
    any signal."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def living(marker: str) -> list[int]:
    """The processes whose environment holds the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and marker.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")
@pytest.mark.parametrize("trial", range(TRIALS))
def test_a_signal_at_any_moment(
    trial: int, things: Path, tmp_path: Path, hears_ctrl_c: Callable[[], None]
) -> None:
    chance = random.Random(trial)
    verb = list(VERBS)[trial % len(VERBS)]
    if verb in ("convert", "tune") and environment.unavailable() is not None:
        pytest.skip("no toolkit runs here")
    out, cache, temporary = tmp_path / "out", tmp_path / "cache", tmp_path / "tmp"
    for folder in (out, cache, temporary):
        folder.mkdir()
    if verb in ("convert", "tune"):
        environment.ensure()
        (cache / "toolkits").symlink_to(cache_dir("toolkits"))
    words, target = command(verb, things, out)
    if target is not None:
        target.write_bytes(OLD)
    marker = f"{tmp_path}-{os.getpid()}"
    number = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    send = chance.choice((os.kill, os.killpg))
    again = chance.choice((None, 0.0, 0.05, 0.4))
    at = chance.random() * VERBS[verb]
    process = subprocess.Popen(
        [sys.executable, "-m", "rkzoo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RKZOO_CACHE": str(cache), "TMPDIR": str(temporary), "MARK": marker},
        start_new_session=True,
        preexec_fn=hears_ctrl_c,
    )
    wait_for_handler(process)
    with suppress(subprocess.TimeoutExpired):
        process.wait(at)
    over = process.poll() is not None
    begun = time.monotonic()
    with suppress(ProcessLookupError):
        send(process.pid, number)
        if again is not None:
            time.sleep(again)
            send(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)
    seconds = time.monotonic() - begun
    happened = f"{verb}: {number.name} by {send.__name__} after {at:.2f} s, again {again}: {stderr}"
    print(f"{verb} {at:.2f} s: {process.returncode} in {seconds:.2f} s, over {over}")

    assert "Traceback" not in stderr, happened
    assert "Exception ignored" not in stderr, happened
    assert "error: " not in stderr, happened
    done = over or target is None or (target.exists() and target.read_bytes() != OLD)
    if process.returncode == 0 and done:
        return  # the signal came after the work
    assert process.returncode == 128 + number, happened
    if verb != "stream" or STOPPED in stderr:  # one that runs ends in its own good order
        assert stderr.rstrip("\n").splitlines()[-1] == STOPPED, happened
        assert stderr.count(STOPPED) == 1, happened
    # Others use this machine too.
    assert seconds < 2 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), happened
    if "--json" in words and stdout:
        json.loads(stdout)
    end = time.monotonic() + 1
    while (left := living(marker)) and time.monotonic() < end:
        time.sleep(0.02)
    assert left == [], happened
    # ONNX Runtime keeps a number there for its telemetry.
    assert {path.name for path in temporary.iterdir()} <= {".ses"}, happened
    files = [path for path in tmp_path.rglob("*") if "toolkits" not in path.parts]
    assert [path for path in files if ".part" in path.name] == [], happened
    assert [path.name for path in files if path.parent.name == "scratch"] in ([], [".lock"])
    if target is not None:
        content = target.read_bytes()
        assert content == OLD or _whole(target, content), happened


def _whole(path: Path, content: bytes) -> bool:
    """Whether it is the new output: the signal came after it had been moved into place."""
    if path.suffix == ".png":
        return cv2.imread(str(path)) is not None
    if path.suffix == ".jsonl":
        return all(json.loads(line) for line in content.splitlines())
    if path.suffix == ".rknn":
        from rkzoo.graph.rknn import reader

        return reader.read(path) is not None
    return content.endswith(b"\n")


# It hears Ctrl-C again by itself: Python code between fork and exec (preexec_fn) may die there, as
# pytest has threads, and then there is nothing on stdout.
SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from rkzoo.cli import entry, main, signals

def verb(argv):
    print("begun", flush=True)
    BODY

main.main = verb
entry.run()
"""


@pytest.mark.parametrize(
    "body",
    [
        # An import that is interrupted ends in another error.
        "try:\n        time.sleep(9)\n    except KeyboardInterrupt: raise ImportError('half')",
        # A library swallows it, and goes on.
        "try:\n        time.sleep(9)\n    except KeyboardInterrupt: time.sleep(9)",
        "try:\n        time.sleep(9)\n    except BaseException: return 0",
        # The main thread never comes back from a library.
        "import threading; threading.Lock().acquire(); import ctypes; ctypes.CDLL(None).sleep(9)",
        # A destructor is interrupted.
        "type('D', (), {'__del__': lambda self: time.sleep(9)})(); time.sleep(9)",
        # A thread that nobody ends.
        "import threading; threading.Thread(target=time.sleep, args=(9,)).start(); time.sleep(9)",
    ],
)
def test_whatever_a_signal_turns_into_it_is_the_signal(body: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("BODY", body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "begun\n":
        pytest.fail(f"not begun: {process.wait(60)}, {process.communicate()[1]}")
    time.sleep(0.1)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (143, f"{STOPPED}\n")
    assert time.monotonic() - begun < 3


def test_what_nohup_ignores_stays_ignored() -> None:
    script = "trap '' HUP; exec {} -c \"{}\"".format(
        sys.executable,
        "import os, signal; from rkzoo.cli import signals; signals.install();"
        " os.kill(os.getpid(), signal.SIGHUP); print('alive')",
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "alive\n"


def test_a_document_is_written_whole_before_the_signal_counts() -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import os, signal; from rkzoo.cli import signals, console; signals.install()\n"
            "os.kill(os.getppid(), 0)\n"
            "with signals.held():\n    os.kill(os.getpid(), signal.SIGINT); print('whole')\n"
            "print('not reached')",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.communicate(timeout=20)[0] == "whole\n"


def test_descendants_are_found_whatever_their_names() -> None:
    inner = "import subprocess, sys; subprocess.Popen(['sleep', '30']).wait()"
    child = subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
    try:
        names: dict[int, str] = {}
        end = time.monotonic() + 10
        while "sleep\n" not in names.values() and time.monotonic() < end:
            time.sleep(0.05)
            with suppress(OSError):  # one that has ended meanwhile
                found = signals.descendants(os.getpid())
                names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in found}
        assert child.pid in names
        assert "sleep\n" in names.values()
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
