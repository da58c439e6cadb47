"""A program for the sanitizer: the binding's ways through the stand-in, some of them failing."""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

import numpy as np

from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Cores
from rkzoo.runtime.npu_context import NpuLibrary

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from npu_models import picture, small  # noqa: E402


def work(session: NpuSession) -> None:
    for turn in range(100):
        session.run([picture(turn % 3)])


def main(path: str) -> None:
    library, model = NpuLibrary(path), small().bytes()
    first = NpuSession.open(library, model)
    sessions = [first, *(first.duplicate(Cores(1 << n)) for n in (1, 2))]
    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = first.run([picture(1)])
    for session in sessions:
        session.close()
    total = sum(int(np.asarray(array, np.float64).sum()) for array in kept)
    del kept
    for way in ({"zero_copy": False}, {"layout": "plain"}):
        with NpuSession.open(library, model, **way) as session:  # type: ignore[arg-type]
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
    print("driven", total)


if __name__ == "__main__":
    main(sys.argv[1])
