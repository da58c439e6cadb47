"""Runs `rkzoo inspect` on many files, each in a fork of a process that has everything imported,
with 2 GB to grow and 20 s to compute. Usage: server.py LIST, which names a file a line."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

import cv2  # noqa: F401 - so that no fork imports it
import onnxruntime  # noqa: F401

from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.workflow.comparison import inspect  # noqa: F401
from rkzoo.workflow.request import resolve  # noqa: F401
from rkzoo.workflow.request.quantization import read_recipe

GROWTH, SECONDS = 2 << 30, 20


def _asked(path: str) -> int:
    if not path.endswith(".recipe.yaml"):
        return main(["inspect", path])
    try:
        read_recipe(Path(path))
    except RkzooError as error:
        print(f"error: {error.what}\n       {error.why}\n       {error.fix}", file=sys.stderr)
        return error.code
    return 0


def _in_fork(path: str, out: int) -> None:
    os.dup2(out, 1)
    os.dup2(out, 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = _asked(path)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(paths: list[str]) -> None:
    for path in paths:
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if not child:
                try:
                    _in_fork(path, said.fileno())
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    sys.stderr.flush()
                    os._exit(70)
            _, status, used = os.wait4(child, 0)
            said.seek(0)
            text = said.read(20_000).decode("utf-8", "replace")
        record = {
            "file": path,
            "code": os.waitstatus_to_exitcode(status),
            "seconds": used.ru_utime + used.ru_stime,
            "peak": used.ru_maxrss,
            "text": text,
        }
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]).read_text().splitlines())
