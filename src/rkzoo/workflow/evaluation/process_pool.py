"""Evaluation in several processes of this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import NoReturn

from rkzoo.errors import RkzooError
from rkzoo.workflow.evaluation.jobs import Done, EvaluationJob, Piece, answer_all, answering

# Maximum worker deaths per batch.
_TRIES = 3
# Seconds that workers have to close what they opened.
_GRACE = 0.5


def run_in_processes(job: EvaluationJob, pieces: Sequence[Piece], count: int) -> Done:
    """Run a job on `count` worker processes. A killed worker is replaced, and its batch repeated.

    Raises:
        RkzooError: the first error of a worker, or a batch that keeps killing its worker.
    """
    crew = _Workers(job)
    waiting = deque(pieces)
    deaths: Counter[int] = Counter()
    try:
        for _ in range(min(count, len(pieces))):
            crew.start()
        while crew.busy:
            for end in crew.speaking():
                piece = crew.busy.pop(end)[1]
                try:
                    answer = end.recv()
                except (EOFError, OSError):
                    end.close()
                    _count_death(deaths, piece)
                    waiting.extendleft([piece] if piece else [])
                    if waiting:
                        crew.start()
                    continue
                if isinstance(answer, RkzooError):
                    raise answer
                if piece is not None:
                    yield piece[0], answer
                crew.give(end, waiting.popleft() if waiting else None)
    finally:
        crew.dismiss()


class _Workers:
    """Worker processes; `busy` are those that owe a result, or the message that they are ready."""

    def __init__(self, job: EvaluationJob) -> None:
        self.busy: dict[Connection, tuple[BaseProcess, Piece | None]] = {}
        self._job = job
        self._all: dict[Connection, BaseProcess] = {}
        self._context = get_context("spawn")  # fork would copy held locks
        # Ctrl-C interrupts the main thread: a start in another is never left half done. The thread
        # lives as long as the workers, which end with it.
        self._starter = ThreadPoolExecutor(1, "worker-starter", initializer=_hold_ctrl_c_back)

    def start(self) -> None:
        """Start a worker."""
        self._starter.submit(self._start).result()

    def _start(self) -> None:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        with _without_main():
            process.start()
        theirs.close()
        self._all[mine] = process
        self.busy[mine] = process, None
        with suppress(OSError):
            mine.send(self._job)

    def speaking(self) -> list[Connection]:
        return [end for end in wait(list(self.busy)) if isinstance(end, Connection)]

    def give(self, end: Connection, piece: Piece | None) -> None:
        """Send the next batch; None closes the connection, and the worker ends."""
        if piece is None:
            end.close()
            return
        self.busy[end] = self._all[end], piece
        with suppress(OSError):  # a dead worker is detected at the next receive
            end.send(piece)

    def dismiss(self) -> None:
        """End busy workers, and join all."""
        self._starter.submit(int).result()  # a start under way comes to its end
        for process, _ in self.busy.values():
            process.terminate()
        until = monotonic() + _GRACE
        for process, _ in self.busy.values():
            process.join(max(0.0, until - monotonic()))
            process.kill()
        for end, process in self._all.items():
            end.close()
            process.join()
        self._starter.shutdown()


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the user's script from what is started: a worker needs nothing of it, and would run it
    again, with whatever stands there outside of `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _hold_ctrl_c_back() -> None:
    """Block SIGINT in this thread, and with it in the processes that it starts: Ctrl-C reaches the
    whole group, also those that are not yet in `_serve`. The parent ends its workers.
    """
    if sys.platform != "win32":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # starting it unblocks the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _count_death(deaths: Counter[int], piece: Piece | None) -> None:
    number = piece[0] if piece else -1
    deaths[number] += 1
    if deaths[number] >= _TRIES:
        name = piece[1][0] if piece else None
        raise RkzooError(
            f"A worker process died {_TRIES} times"
            + (f" at {name}." if name else " at its start."),
            "The system may have killed it for lack of memory.",
            "Try again with one worker (--workers 1); what is done so far is kept.",
            code=1,
        )


def _serve(end: Connection) -> None:
    """Main function of a worker: receives its job, reports ready, then maps batches to records."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    _end_with_parent()
    import cv2

    cv2.setNumThreads(1)
    try:
        job: EvaluationJob = end.recv()
        with answering(job) as answer:
            end.send(None)
            while True:
                _, paths = end.recv()
                end.send(answer_all(answer, [(None, Path(path)) for path in paths]))
    except (EOFError, OSError):
        return  # the parent has closed the connection, or died
    except SystemExit:
        os._exit(1)  # everything is closed, and the interpreter's own end is slow
    except RkzooError as error:
        end.send(error)
    except Exception as error:  # a bug: reported once, not retried
        text = " ".join(str(error).split())[:300]
        end.send(RkzooError(f"A worker failed: {type(error).__name__}.", text, code=1))


def _leave(number: int, frame: object) -> NoReturn:
    """Close what is open, such as a toolkit process with its folder, and end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.unraisablehook = lambda details: None
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """Be killed when the parent is, also in the middle of a batch."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # 1 = PR_SET_PDEATHSIG
        parent = parent_process()
        if parent is not None and os.getppid() != parent.pid:
            raise SystemExit(1)
