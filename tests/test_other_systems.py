"""Windows and macOS: what only Linux has is needed for converting alone.

Each command runs with a `sitecustomize` that hides such modules from it and its workers; msvcrt, by
which Windows locks, is played by a stand-in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_yolo import stock

import rkzoo
from rkzoo.files import locked

HIDING = """
import importlib.abc, multiprocessing.context, os, platform, subprocess, sys, types
import concurrent.futures, multiprocessing.resource_tracker, tempfile, shutil, asyncio

HIDDEN = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "spwd", "syslog"}

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in HIDDEN:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocker())

msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_LOCK, msvcrt.held = 1, []
def locking(descriptor, mode, size):
    os.lockf(descriptor, os.F_LOCK, size)
msvcrt.locking = locking
sys.modules["msvcrt"] = msvcrt
real = platform.system
def system():  # others load what is built for this system
    ours = sys._getframe(1).f_globals.get("__name__", "").startswith("rkzoo.")
    return "Windows" if ours else real()
platform.system = system
"""

# Modules of others first: they ask for the system when they are imported, and this is Linux.
EVERY_MODULE = """
import importlib, os, pathlib, pkgutil, signal, sys
for name in ("numpy", "cv2", "onnx", "onnxruntime", "msgspec", "yaml", "rich.progress", "PIL.Image",
             "platformdirs", "soundfile", "soxr", "distributed", "supervision", "jinja2",
             "matplotlib.pyplot", "faster_coco_eval", "http.server", "sentencepiece",
             "starlette.applications", "uvicorn.protocols.http.httptools_impl", "anyio",
             "python_multipart", "prometheus_client", "grpc.aio", "google.protobuf.descriptor_pool",
             "wyoming.server", "asyncio"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
import rkzoo
sys.platform = "win32"
for name in ("SIGKILL", "SIGHUP", "pthread_sigmask", "SIGALRM"):
    delattr(signal, name)
for name in ("getuid", "geteuid", "getgroups", "killpg", "waitid", "sched_getaffinity", "uname",
             "fork", "memfd_create", "setsid", "readv", "getpgid", "sysconf"):
    delattr(os, name)
failed = []
for module in pkgutil.walk_packages(rkzoo.__path__, "rkzoo."):
    if module.name.endswith("__main__") or "torch_stub" in module.name:
        continue
    try:
        importlib.import_module(module.name)
    except Exception as error:
        failed.append(f"{module.name}: {error!r}")
print("\\n".join(failed))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., object]:
    """Runs Python as if on another system."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "sitecustomize.py").write_text(HIDING)
    path = os.pathsep.join([str(folder), str(Path(rkzoo.__file__).parents[1])])
    environ = os.environ | {"PYTHONPATH": path, "RKZOO_CACHE": str(folder / "cache")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300)

    return run


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("things")
    onnx.save(stock(names=repr(["cat", "dog", "cow"])), folder / "tiny.onnx")
    noise = np.random.default_rng(7)
    images, boxes = [], []
    for number in range(8):
        picture = noise.integers(0, 256, (64, 96, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 64})
        box = {"bbox": [8, 8, 40, 30], "area": 1200, "iscrowd": 0, "category_id": number % 3 + 1}
        boxes.append({"id": number + 1, "image_id": number, **box})
    kinds = [{"id": i + 1, "name": name} for i, name in enumerate(("cat", "dog", "cow"))]
    truth = {"images": images, "annotations": boxes, "categories": kinds}
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


def test_the_stand_in_hides(elsewhere: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "No module named 'fcntl'" in elsewhere("-c", "import fcntl").stderr


def test_every_module_imports(elsewhere: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = elsewhere("-c", EVERY_MODULE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_everything_but_converting_works(
    elsewhere: Callable[..., subprocess.CompletedProcess[str]], things: Path, tmp_path: Path
) -> None:
    model, data = str(things / "tiny.onnx"), f"coco:{things / 'truth.json'}"
    for words in (
        ["list"],
        ["info", "ppocr"],
        ["soc", "rk3588"],
        ["doctor"],
        ["inspect", model],
        ["run", model, str(things / "0.png"), "-o", str(tmp_path)],
        ["eval", model, "--data", data, "--workers", "2"],
        ["bench", model, "--frames", "2", "-o", str(tmp_path / "b.yml")],
    ):
        done = elsewhere("-m", "rkzoo", *words)
        # To doctor, what cannot convert has a failure.
        assert done.returncode == (4 if words == ["doctor"] else 0), (words, done.stderr)
        assert "Traceback" not in done.stderr, (words, done.stderr)


def test_converting_says_what_it_needs(
    elsewhere: Callable[..., subprocess.CompletedProcess[str]], things: Path, tmp_path: Path
) -> None:
    done = elsewhere(
        *("-m", "rkzoo", "convert", str(things / "tiny.onnx"), "--soc", "rk3588"),
        *("--calib", str(things), "-o", str(tmp_path / "x.rknn")),
    )
    assert done.returncode == 2
    error = done.stderr[done.stderr.index("error: ") :]
    assert "Linux" in error
    assert "x86-64, aarch64" in error
    assert "WSL2" in error
    assert "Traceback" not in error


LOCKING = """
import sys
from pathlib import Path
from rkzoo.files import locked

for _ in range(50):
    with locked(Path(sys.argv[1]) / "lock"):
        file = Path(sys.argv[1]) / "count"
        file.write_text(str(int(file.read_text()) + 1))
"""


@pytest.mark.parametrize("system", ["here", "elsewhere"])
def test_a_lock_keeps_others_out(
    system: str, elsewhere: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    (tmp_path / "count").write_text("0")
    words = [sys.executable, "-c", LOCKING, str(tmp_path)]

    def one(number: int) -> int:
        if system == "here":
            return subprocess.run(words).returncode
        return elsewhere(*words[1:]).returncode

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, range(3))) == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150"


def test_a_lock_keeps_other_threads_out(tmp_path: Path) -> None:
    import threading

    inside: list[int] = []

    def one() -> None:
        for _ in range(20):
            with locked(tmp_path / "lock"):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == []
