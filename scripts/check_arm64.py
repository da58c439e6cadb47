"""Checks on a PC that rkzoo installs and answers on a 64-bit Arm board.

    python scripts/check_arm64.py [FOLDER] [--fetch-qemu]

Makes an arm64 Debian userland below FOLDER (a scratch folder when left out) with apt and
dpkg-deb, which needs no root and leaves this system's packages alone; installs the project's
wheel there with what it asks for on aarch64; and runs it under qemu-aarch64. Needs Debian's
apt with its network, PyPI, uv, and qemu-aarch64-static (--fetch-qemu takes it from Debian into
FOLDER). Given a FOLDER, a later run keeps what was downloaded.

Exits with 0 when every check held, 1 when one failed, 77 when something is missing to try.
What it cannot show: an NPU. The board is a device tree, the kernel is this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "tests" / "graph"))

from rknn_writer import Sample  # noqa: E402

SKIPPED = 77
LIMIT_MB = 250
# libstdc++ is what OpenCV's wheel expects of the system; python3 brings libc.
USERLAND = ("python3", "libstdc++6")
# The oldest C library of a system that boards still run (Debian 11 has 2.31).
PLATFORM = "aarch64-manylinux_2_28"
PC_ONLY = (
    "onnx",
    "onnxruntime",
    "uv",
    "matplotlib",
    "faster_coco_eval",
    "jinja2",
)
PICTURE = PROJECT / "src" / "rkzoo" / "assets" / "page.jpg"
QEMU = ("qemu-aarch64-static", "qemu-aarch64")
PATIENCE = 300


class Missing(Exception):
    """Something that this machine lacks, so that nothing can be said."""


class Failed(Exception):
    """A check that did not hold."""


# ---- the userland ---------------------------------------------------------------------


def command(args: Sequence[str | Path], *, cwd: Path | None = None) -> str:
    """Runs a tool of this machine. Raises Missing, with its last words, when it fails."""
    try:
        completed = subprocess.run(
            [str(a) for a in args], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
        )
    except FileNotFoundError:
        raise Missing(f"{args[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"{args[0]} did not end within {PATIENCE} s") from None
    if completed.returncode:
        raise Missing(f"{args[0]} failed: {(completed.stderr or completed.stdout).strip()[-400:]}")
    return completed.stdout


def apt_options(folder: Path) -> list[str]:
    """apt as of an empty arm64 system, with all its state in `folder`."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Install-Recommends": "0",
        "APT::Keep-Downloaded-Packages": "1",
        "Debug::NoLocking": "1",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
    }
    inputs = [f"{key}={value}" for key, value in settings.items()]
    return ["-qq", *(part for setting in inputs for part in ("-o", setting))]


def userland(folder: Path) -> Path:
    """An arm64 Debian with Python, not configured, below folder/root."""
    root = folder / "root"
    if (root / "complete").exists():
        return root
    options = apt_options(folder / "apt")
    command(["apt-get", *options, "update"])
    command(["apt-get", *options, "-y", "--download-only", "install", *USERLAND])
    packages = sorted((folder / "apt" / "archives").glob("*.deb"))
    if not packages:
        raise Missing("apt-get downloaded no package for arm64")
    for package in packages:
        command(["dpkg-deb", "-x", package, root])
    (root / "complete").touch()
    return root


def interpreter(root: Path) -> tuple[Path, str]:
    """Python of the userland, and its version as 3.11."""
    python = (root / "usr" / "bin" / "python3").resolve()
    return python, python.name.removeprefix("python")


def emulator(folder: Path, fetch: bool) -> Path:
    """qemu of this machine or, when `fetch`, out of Debian's package."""
    for name in QEMU:
        if text := shutil.which(name) or shutil.which(name, path=str(folder / "qemu/usr/bin")):
            return Path(text)
    if not fetch:
        raise Missing("qemu-aarch64-static is not installed (apt-get install qemu-user-static)")
    unpacked = folder / "qemu"
    unpacked.mkdir(exist_ok=True)
    command(["apt-get", "-qq", "download", "qemu-user-static"], cwd=unpacked)
    for package in unpacked.glob("*.deb"):
        command(["dpkg-deb", "-x", package, unpacked])
        package.unlink()
    return emulator(folder, False)


def as_board(root: Path, target: Path) -> Path:
    """The same userland with the device tree of a board, whose files shadow this machine's."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root, target, symlinks=True, copy_function=os.link)
    tree = target / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    (tree / "model").write_bytes(b"Radxa ROCK 5B\0")
    return target


# ---- what is installed ----------------------------------------------------------------


def install(folder: Path, version: str, extra: str = "") -> Path:
    """The project's wheel and what it asks for on aarch64, below folder/site; `extra` as serve."""
    uv = os.environ.get("UV") or shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    dist, site = folder / "dist", folder / "site"
    for old in (dist, site):
        shutil.rmtree(old, ignore_errors=True)
    command([uv, "build", "--wheel", "-o", dist, PROJECT])
    (wheel,) = dist.glob("*.whl")
    # uv judges the markers of pyproject.toml for the platform named; pip would judge them
    # for this machine, and take what only a PC needs.
    platform: list[str | Path] = ["--python-platform", PLATFORM, "--python-version", version]
    wheels: list[str | Path] = ["--only-binary", ":all:", "--link-mode", "copy", "--target", site]
    asked = f"rkzoo[{extra}] @ {wheel.as_uri()}" if extra else wheel
    command([uv, "pip", "install", "--no-config", *platform, *wheels, asked])
    return site


def size_mb(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if not path.is_symlink() and path.is_file())
    return sum(path.stat().st_size for path in files) / 1e6


def packages(site: Path) -> list[str]:
    return sorted(folder.name.removesuffix(".dist-info") for folder in site.glob("*.dist-info"))


# ---- the checks -----------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """The emulated machine."""

    qemu: Path
    root: Path
    python: Path
    site: Path
    work: Path

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        keep: Mapping[str, str] = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.work),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
            "PYTHONPATH": str(self.site),
            "PYTHONNOUSERSITE": "1",
            "RKZOO_CACHE": str(self.work / "cache"),
        }
        line = [str(self.qemu), "-L", str(self.root), str(self.python), *args]
        return subprocess.run(
            line, cwd=self.work, env=keep, capture_output=True, text=True, timeout=PATIENCE
        )

    def rkzoo(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "rkzoo", *args)


def expect(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Raises Failed unless the program ended with `code`, said `words`, and no traceback."""
    text = done.stdout + done.stderr
    lacks = [word for word in words if word not in " ".join(text.split())]
    if done.returncode != code or lacks or "Traceback" in text:
        raise Failed(f"exit code {done.returncode} for {code}, lacks {lacks}:\n{text[-2000:]}")


def imports(arm: Arm, board: Arm) -> None:
    modules = "platform, sys, numpy, cv2, msgspec, yaml, rkzoo, rkzoo.runtime.npu"
    report = "print(platform.machine(), callable(rkzoo.load), 'onnxruntime' in sys.modules)"
    expect(arm.run("-c", f"import {modules}; {report}"), 0, "aarch64 True False")


def every_module(arm: Arm, board: Arm) -> None:
    """None of ours needs, to be imported, what a board does not have, or it says so in words; but
    what listens needs its extra."""
    script = """
import importlib, pkgutil, rkzoo
from rkzoo.errors import RkzooError
EXTRAS = ("grpc", "google", "wyoming")
bad = []
# The folders that need onnx say so when they are looked into.
for found in pkgutil.walk_packages(rkzoo.__path__, "rkzoo.", lambda name: None):
    if found.name in ("rkzoo.__main__", "rkzoo.toolkit.worker"):
        continue
    try:
        importlib.import_module(found.name)
    except RkzooError:
        pass
    except ModuleNotFoundError as error:
        if not (found.name.startswith("rkzoo.serving.") and error.name in EXTRAS):
            bad.append(f"{found.name}: {error!r}")
    except BaseException as error:
        bad.append(f"{found.name}: {error!r}")
print("bad:", *bad, sep="\\n")
raise SystemExit(len(bad) > 0)
"""
    expect(arm.run("-c", script), 0, "bad:")


def shows_help(arm: Arm, board: Arm) -> None:
    expect(arm.rkzoo("--help"), 0, "convert", "stream", "doctor")


def reads_a_model(arm: Arm, board: Arm) -> None:
    completed = arm.rkzoo("inspect", "model.rknn", "--json")
    expect(completed, 0)
    report = json.dumps(json.loads(completed.stdout))
    for word in ("rk3588", "images", "box_8", "Softmax"):
        if word not in report:
            raise Failed(f"inspect does not tell {word}: {report[:1000]}")


def tells_that_there_is_no_npu(arm: Arm, board: Arm) -> None:
    """On an Arm machine that is no board."""
    completed = arm.rkzoo("run", "model.rknn", str(PICTURE))
    expect(
        completed, 2, "model.rknn cannot be run on an NPU here.", "no Rockchip board", "rkzoo[pc]"
    )


def tells_that_the_library_is_missing(arm: Arm, board: Arm) -> None:
    completed = board.rkzoo("run", "model.rknn", str(PICTURE))
    expect(completed, 2, "cannot be run on this board", "librknnrt.so", "Run rkzoo doctor")


def doctor_without_a_board(arm: Arm, board: Arm) -> None:
    expect(arm.rkzoo("doctor"), 3, "aarch64", "No Rockchip NPU is seen here", "rkzoo[pc]")


def doctor_on_a_board(arm: Arm, board: Arm) -> None:
    words = "rk3588: Radxa ROCK 5B", "No NPU driver is at work", "librknnrt.so is missing"
    expect(board.rkzoo("doctor"), 4, *words)


def onnx_is_refused(arm: Arm, board: Arm) -> None:
    """What a board does not do is said with the way to it."""
    (arm.work / "model.onnx").write_bytes(b"\x08\x08")
    expect(arm.rkzoo("inspect", "model.onnx"), 2, 'pip install "rkzoo[pc]"')


CHECKS: tuple[Callable[[Arm, Arm], None], ...] = (
    imports,
    every_module,
    shows_help,
    reads_a_model,
    tells_that_there_is_no_npu,
    tells_that_the_library_is_missing,
    doctor_without_a_board,
    doctor_on_a_board,
    onnx_is_refused,
)


def sizes(site: Path) -> Iterator[str]:
    """Says what was installed. Raises Failed when it is too much for a board."""
    size, names = size_mb(site), packages(site)
    yield f"{size:.0f} MB installed, of {LIMIT_MB} allowed: {', '.join(names)}"
    if size >= LIMIT_MB:
        raise Failed(f"{size:.0f} MB are too much for a board")
    if unneeded := [name for name in PC_ONLY if (site / name).exists()]:
        raise Failed(f"a board needs no {', '.join(unneeded)}")


def check(folder: Path, fetch: bool, say: Callable[[str], None]) -> int:
    """All of it in `folder`: how many checks failed. Raises Missing."""
    began = time.monotonic()
    qemu = emulator(folder, fetch)
    root = userland(folder)
    python, version = interpreter(root)
    say(f"userland of Python {version} made in {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    site = install(folder, version, "serve")  # as `rkzoo board setup` does
    say(f"wheel built and installed in {time.monotonic() - began:.0f} s")
    failed = 0
    try:
        for line in sizes(site):
            say(line)
    except Failed as error:
        failed += 1
        say(f"FAIL  size: {error}")
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "model.rknn").write_bytes(Sample().write())
    arm = Arm(qemu, root, python, site, work)
    tree = as_board(root, folder / "board")
    board = Arm(qemu, tree, python, site, work)
    for check in CHECKS:
        began = time.monotonic()
        word, more = "ok  ", ""
        try:
            check(arm, board)
        except (Failed, subprocess.TimeoutExpired) as error:
            failed, word, more = failed + 1, "FAIL", f": {error}"
        say(f"{word}  {check.__name__.replace('_', ' ')} ({time.monotonic() - began:.0f} s){more}")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--fetch-qemu", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rkzoo-arm64-") as scratch:
        folder = (args.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            failed = check(folder, args.fetch_qemu, lambda line: print(line, flush=True))
        except Missing as error:
            print(f"skipped: {error}")
            return SKIPPED
    print(f"{len(CHECKS) + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
