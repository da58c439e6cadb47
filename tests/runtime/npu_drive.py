"""A program for the sanitizer: the binding's ways through the stand-in, some of them failing."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
import threading
from pathlib import Path

import numpy as np

from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Cores, Sync
from rkzoo.runtime.npu_context import Context, NpuLibrary

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from npu_models import picture, small  # noqa: E402


def work(session: NpuSession) -> None:
    for turn in range(100):
        session.run([picture(turn % 3)])


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def many_frames(first: NpuSession, count: int) -> int:
    """Frames through zero-copy memory, with a duplicate made and ended now and then; by how many
    bytes they made the process grow."""
    canvas = first.canvas
    assert canvas is not None

    def some(frames: int) -> None:
        for turn in range(frames):
            canvas[:] = turn % 256
            first.run([canvas])
            if turn % 100 == 0:
                with first.duplicate(Cores.CORE_1) as other:
                    other.run([canvas])

    some(count // 10)
    gc.collect()
    before = resident()
    some(count)
    gc.collect()
    return resident() - before


def foreign_memory(context: Context) -> None:
    """Memory of another device, as a file descriptor."""
    fd = os.memfd_create("picture")
    os.ftruncate(fd, 8192)
    shared = mmap.mmap(fd, 8192)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    memory = context.memory_of(fd, address, 4096, offset=4096)
    memory.array((4096,), "uint8")[:] = 7
    context.sync(memory, Sync.TO_DEVICE)
    os.close(fd)


def main(path: str) -> None:
    library, model = NpuLibrary(path), small().bytes()
    first = NpuSession.open(library, model)
    sessions = [first, *(first.duplicate(Cores(1 << n)) for n in (1, 2))]
    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grown = many_frames(first, 10_000)
    foreign_memory(first.context)
    kept = first.run([picture(1)])
    for session in sessions:
        session.close()
    total = sum(int(np.asarray(array, np.float64).sum()) for array in kept)
    del kept
    for way in ({"zero_copy": False}, {"layout": "plain"}):
        with NpuSession.open(library, model, **way) as session:  # type: ignore[arg-type]
            session.run([picture(0)])
    with NpuSession(Context.open(library, model), floats=True) as session:
        session.run([picture(0)])
    for fault in ("init", "query", "create_mem", "set_io_mem", "run", "inputs_set", "outputs_get"):
        for nth in (1, 3):
            os.environ["STANDIN_FAIL"] = f"{fault}:{nth}:-4"
            for zero_copy in (True, False):
                try:
                    with NpuSession.open(library, model, zero_copy=zero_copy) as session:
                        session.run([picture(0)])
                except RkzooError:
                    pass
    gc.collect()
    print("driven", total, grown)


if __name__ == "__main__":
    main(sys.argv[1])
