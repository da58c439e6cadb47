"""Boards to log into: an arm64 userland under qemu, where Rockchip's library or the stand-in lies
where a board has it. `python3` there is the userland's; the shell and its tools are this machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rkzoo.files import locked

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "vendor_runtime"))
import check_arm64
from emulated import COMPILER, HERE, PROJECT, Emulated, emulated

from board_over_ssh.openssh import SshBoard, served
from npu_standin.build import compiler

DRIVER = "usr/lib/driver.so"
STANDIN = PROJECT / "tests" / "npu_standin" / "standin.c"


def vendor_tree(arm: Emulated) -> Path:
    """A board with Rockchip's library, and the fake driver below it."""
    tree = _tree(arm, "vendor-board")
    _put(arm.library, tree / "usr/lib/librknnrt.so")
    _put(arm.driver, tree / DRIVER)
    return tree


def standin_tree(arm: Emulated) -> Path:
    """A board with the stand-in in the library's place."""
    tree = _tree(arm, "standin-board")
    target = arm.work / "librknnrt.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([COMPILER, *flags, STANDIN, "-o", target], check=True)
    _put(target, tree / "usr/lib/librknnrt.so")
    return tree


def _tree(arm: Emulated, name: str) -> Path:
    kept = arm.root.parent
    tree = kept / name
    with locked(kept / f".{name}.lock"):
        if not (tree / "proc").exists():
            check_arm64.as_board(kept / "root", tree)
    return tree


def _put(source: Path, target: Path) -> None:
    """Into place at once: another run of the tests may be using what is there."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, part)
    part.replace(target)


_LAUNCHER = """#include <string.h>
#include <unistd.h>

static char *const before[] = {%s};
enum { COUNT = sizeof before / sizeof *before };

int main(int argc, char **argv) {
    char *line[COUNT + argc];
    memcpy(line, before, sizeof before);
    memcpy(line + COUNT, argv + 1, argc * sizeof *argv);
    execv(*line, line);
    return 127;
}
"""


def python_of(arm: Emulated, tree: Path, folder: Path) -> Path:
    """`python3` in `folder`, under qemu. It takes itself for the interpreter (-0), so that what it
    starts with sys.executable runs under qemu too. A static program, for what is to be preloaded
    in the userland stands in the environment that it gets from there."""
    path = folder / "python3"
    preload = ["-E", f"LD_PRELOAD=/{DRIVER}"] if (tree / DRIVER).exists() else []
    line = [arm.qemu, "-0", path, "-L", tree, *preload, arm.python]
    source = folder / "python3.c"
    source.write_text(_LAUNCHER % ", ".join(json.dumps(str(word)) for word in line))
    subprocess.run([compiler(), "-O2", "-static", source, "-o", path], check=True)
    return path


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@contextmanager
def logged_into(
    name: str,
    arm: Emulated,
    tree: Path,
    folder: Path,
    *,
    installed: bool = True,
    env: Mapping[str, object] | None = None,
) -> Iterator[SshBoard]:
    """The board behind sshd. `installed`: this working tree's rkzoo is on its PATH; else it has
    Python alone. `env` is what its programs are told."""
    binaries = folder / "bin"
    for path in (folder, binaries, folder / "home"):
        path.mkdir()
    python = python_of(arm, tree, binaries)
    if installed:
        # Compiled once, for starting is dear under qemu.
        compiled = f"PYTHONPYCACHEPREFIX={arm.root.parent / 'pycache'}"
        source = f"PYTHONPATH={PROJECT / 'src'}:{arm.site} {compiled}"
        _program(binaries / "rkzoo", f'{source} exec {python} -m rkzoo "$@"')
    with _server(name, folder, env or {}) as board:
        yield board


@contextmanager
def native(
    name: str, folder: Path, env: Mapping[str, object], *settings: str
) -> Iterator[SshBoard]:
    """A board that is this machine, with the Python that runs the tests: for the cable, where
    nothing depends on what computes at its end. `settings` are of sshd."""
    for path in (folder, folder / "bin", folder / "home"):
        path.mkdir()
    source = f"PYTHONPATH={PROJECT / 'src'}"
    _program(folder / "bin/rkzoo", f'{source} exec {sys.executable} -m rkzoo "$@"')
    with _server(name, folder, env, *settings) as board:
        yield board


@contextmanager
def _server(
    name: str, folder: Path, env: Mapping[str, object], *settings: str
) -> Iterator[SshBoard]:
    home = folder / "home"
    told = {"HOME": home, "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "PYTHONNOUSERSITE": 1}
    told |= {"RKZOO_LIBRGA": "off", "LANG": "C.UTF-8", **env}
    lines = [f"export {key}='{value}'" for key, value in told.items()]
    lines += ['cd "$HOME"', 'exec /bin/sh -c "${SSH_ORIGINAL_COMMAND:-exec /bin/sh}"']
    _program(folder / "login", "\n".join(lines))
    with served(name, folder / "ssh", folder / "login", home, *settings) as board:
        yield board


__all__ = ["HERE", "Emulated", "emulated", "logged_into", "standin_tree", "vendor_tree"]
