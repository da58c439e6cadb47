"""What `rkzoo board setup` runs on a board: this source is handed to the Python there, which has
nothing else of rkzoo's yet. Standard library only.

    python3 -I -c SOURCE facts|receive|switch|remove ...
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable

BASE = os.path.join(os.path.expanduser("~"), ".local", "share", "rkzoo")
VERSIONS = os.path.join(BASE, "versions")
PROGRAM = os.path.join(BASE, "bin", "rkzoo")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}")
PROBE = """import importlib, numpy, cv2, msgspec, yaml, rkzoo.cli.entry, rkzoo.serving.run
for name in rkzoo.serving.run.NEEDS: importlib.import_module(name)
"""
"""What must work before an installation is used: a C library may be missing, for one."""
_OLD = 3600.0  # seconds, then what a cut connection left is swept
_PIECE = 1 << 20


def facts() -> None:
    """Prints what decides which packages fit, and what is there."""
    place = BASE
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    told = {
        "python": sys.version_info[:3],
        "executable": sys.executable,
        "implementation": platform.python_implementation(),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "machine": platform.machine(),
        "libc": " ".join(_libc()),
        "free": shutil.disk_usage(place).free,
        "present": _present(),
        "current": _current(),
    }
    print(json.dumps(told))


def _libc() -> tuple[str, ...]:
    # Asked of the C library; platform.libc_ver reads the program's bytes, and may be wrong.
    with contextlib.suppress(ValueError, OSError):
        if text := os.confstr("CS_GNU_LIBC_VERSION"):
            return tuple(text.split())
    return tuple(platform.libc_ver())


def _present() -> list[str]:
    """Complete ones: each was moved into place whole."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(VERSIONS) if NAME.fullmatch(name))
    return []


def _current() -> list[str]:
    """What the program uses, in its order."""
    with contextlib.suppress(OSError), open(PROGRAM, encoding="utf-8") as file:
        return re.findall(r"/versions/([A-Za-z0-9.+_-]+)", file.read())
    return []


def receive(name: str, sha256: str) -> None:
    """Unpacks the .tar.gz on stdin as versions/NAME, which appears whole or not at all."""
    _check([name])
    os.makedirs(VERSIONS, exist_ok=True)
    _sweep()
    part = tempfile.mkdtemp(prefix=".", dir=VERSIONS)
    try:
        digest, packed = hashlib.sha256(), os.path.join(part, "packed")
        with open(packed, "wb") as file:
            while piece := sys.stdin.buffer.read(_PIECE):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != sha256:
            sys.exit("what arrived is not what was sent: the connection was cut")
        tree = os.path.join(part, "tree")
        with tarfile.open(packed, "r:gz") as tar:
            # Python names the filter from 3.12 on, and in updates of what came before.
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(tree, **safe)  # type: ignore[arg-type]
        try:
            os.rename(tree, os.path.join(VERSIONS, name))
        except OSError:
            if not os.path.isdir(os.path.join(VERSIONS, name)):  # another has put it there
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep() -> None:
    for entry in os.scandir(VERSIONS):
        if entry.name.startswith(".") and time.time() - entry.stat().st_mtime > _OLD:
            shutil.rmtree(entry.path, ignore_errors=True)


def switch(*names: str) -> None:
    """Makes these folders the installation, once they prove to work. Those of the one before stay
    for what still runs, older ones go."""
    _check(names)
    paths = [os.path.join(VERSIONS, name) for name in names]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONSAFEPATH="1")
    line = [sys.executable, "-c", PROBE]
    done = subprocess.run(line, env=env, stderr=subprocess.PIPE, cwd=VERSIONS)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        sys.exit(said[-1] if said else f"Python ended with {done.returncode}")
    before = _current()
    _write_program(paths)
    for name in set(_present()) - {*names, *before}:
        shutil.rmtree(os.path.join(VERSIONS, name), ignore_errors=True)


def _write_program(paths: Iterable[str]) -> None:
    text = f"""#!/bin/sh
# Written by `rkzoo board setup`, which replaces it.
PYTHONPATH={shlex.quote(os.pathsep.join(paths))}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1 \\
  exec {shlex.quote(sys.executable)} -m rkzoo "$@"
"""
    os.makedirs(os.path.dirname(PROGRAM), exist_ok=True)
    part = f"{PROGRAM}.{os.getpid()}"
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(part, 0o755)
    os.replace(part, PROGRAM)


def remove() -> None:
    """Takes away what was set up, and prints the names of what that was."""
    print(json.dumps(_present()))
    for path in (os.path.dirname(PROGRAM), VERSIONS):
        if os.path.isdir(path):
            shutil.rmtree(path)
    with contextlib.suppress(OSError):  # something else lies there
        os.rmdir(BASE)


def _check(names: Iterable[str]) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            sys.exit(f"{name!r} is no name of a folder")


CALLS: "dict[str, Callable[..., None]]" = {
    call.__name__: call for call in (facts, receive, switch, remove)
}

if __name__ == "__main__":
    try:
        CALLS[sys.argv[1]](*sys.argv[2:])
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(f"{error.strerror} ({error.filename})" if error.filename else f"{error.strerror}")
