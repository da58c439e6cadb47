"""An emulated 64-bit Arm board with Rockchip's own library on it, and a fake driver below it.

The library is the one that the wheel of `rknpu` on PyPI carries, or RKZOO_VENDOR_LIBRARY. It is
kept in rkzoo's cache with the userland, and never becomes part of the project.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rkzoo.files import cache_dir, locked

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import check_arm64
from check_arm64 import Missing, command

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

LIBRARY = "RKZOO_VENDOR_LIBRARY"
PACKAGE = "rknpu==1.5.2"
SHA256 = "1b278f220361ffda3a91ba69affb650c2dd8acaa295b6883da8d6ea966fb8e32"
"""Of the library in the package's wheel."""
COMPILER = "aarch64-linux-gnu-gcc"
PATIENCE = 600
UNUSED = 86400


@dataclass(frozen=True)
class Emulated:
    """Runs Python in the userland. `env` is what the driver and rkzoo are told."""

    qemu: Path
    root: Path
    python: Path
    site: Path
    driver: Path
    library: Path
    work: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def told(self, **env: object) -> Emulated:
        return replace(self, env={**self.env, **{name: str(value) for name, value in env.items()}})

    def bare(self) -> Emulated:
        """Without the device tree of a board."""
        return replace(self, root=self.root.with_name("root"))

    def python_run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        settings = {
            "LD_PRELOAD": self.driver,
            "PYTHONPATH": f"{PROJECT / 'src'}:{self.site}",
            "PYTHONNOUSERSITE": 1,
            "PYTHONDONTWRITEBYTECODE": 1,
            "RKZOO_LIBRKNNRT": self.library,
            "RKZOO_CACHE": self.work / "cache",
            "RKZOO_LIBRGA": "off",
            "COLUMNS": 100,
            **self.env,
        }
        inside = [part for name, value in settings.items() for part in ("-E", f"{name}={value}")]
        # The preloaded driver is for the emulated process alone, so qemu hands it over.
        line = [self.qemu, "-L", self.root, *inside, self.python, *args]
        keep = {"PATH": os.environ["PATH"], "HOME": str(self.work), "LANG": "C.UTF-8"}
        return subprocess.run(
            [str(part) for part in line],
            cwd=self.work,
            env=keep,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def rkzoo(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        return self.python_run("-m", "rkzoo", *args)

    def ask(self, question: str, folder: Path, *names: str) -> Any:
        """What `inside.py` answers. Fails with what it printed when it does not."""
        done = self.python_run(HERE / "inside.py", question, folder, *names)
        assert done.returncode == 0, (
            question,
            done.returncode,
            (done.stdout + done.stderr)[-3000:],
        )
        return json.loads((folder / f"{question}.json").read_text())


def emulated(work: Path) -> Emulated:
    """Raises Missing, with the reason, where this machine cannot."""
    if shutil.which(COMPILER) is None:
        raise Missing(f"{COMPILER} is not installed (apt-get install gcc-aarch64-linux-gnu)")
    kept = cache_dir("vendor-runtime")
    with locked(kept / ".lock"):
        qemu = check_arm64.emulator(kept, False)
        root = check_arm64.userland(kept)
        python, version = check_arm64.interpreter(root)
        site = _site(kept, version)
        library = _library(kept, version)
    return Emulated(qemu, _board(root, kept), python, site, _driver(work), library, work)


def _board(root: Path, kept: Path) -> Path:
    """The userland with the device tree of a board."""
    tree = kept / "board"
    if not (tree / "complete").exists() or not (tree / "proc").exists():
        check_arm64.as_board(root, tree)
    return tree


def _site(kept: Path, version: str) -> Path:
    """What rkzoo asks for on a board; rkzoo itself is the working tree's. In a folder by what is
    asked, for another working tree may be tested meanwhile."""
    asked = hashlib.sha256((PROJECT / "pyproject.toml").read_bytes()).hexdigest()
    folder = kept / "sites" / asked[:16]
    mark = folder / "complete"
    if not mark.exists():
        for old in kept.glob("sites/*"):
            if time.time() - old.stat().st_mtime > UNUSED:
                shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        check_arm64.install(folder, version, "serve")
        shutil.rmtree(folder / "site" / "rkzoo", ignore_errors=True)
        mark.touch()
    os.utime(folder)
    return folder / "site"


def _library(kept: Path, version: str) -> Path:
    if given := os.environ.get(LIBRARY):
        path = Path(given).resolve()
        if not path.is_file():
            raise Missing(f"{LIBRARY} names {given}, which is no file")
        if path.read_bytes()[:5] != b"\x7fELF\x02":
            raise Missing(f"{given} is no 64-bit library; this emulated board is a 64-bit one")
        return path
    folder = kept / "library"
    if not (found := sorted(folder.glob("rknpu.libs/librknnrt*.so"))):
        uv = os.environ.get("UV") or shutil.which("uv") or Path(sys.executable).parent / "uv"
        platform = ["--python-platform", "aarch64-manylinux_2_28", "--python-version", "3.11"]
        wheels = ["--no-deps", "--only-binary", ":all:", "--target", folder]
        command([uv, "pip", "install", "--no-config", "-q", *platform, *wheels, PACKAGE])
        found = sorted(folder.glob("rknpu.libs/librknnrt*.so"))
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest() if found else ""
    if digest != SHA256:
        shutil.rmtree(folder, ignore_errors=True)
        raise Missing(f"the wheel of {PACKAGE} does not carry the library that was expected")
    # Sessions judge a library by its name.
    usual = folder / "librknnrt.so"
    if not usual.exists():
        shutil.copyfile(found[0], usual)
    return usual


def _driver(work: Path) -> Path:
    target = work / "driver.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    command([COMPILER, *flags, HERE / "driver.c", "-o", target, "-ldl", "-lpthread"])
    return target
