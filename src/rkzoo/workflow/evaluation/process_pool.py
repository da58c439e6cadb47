"""Evaluation in several processes of this machine."""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.workflow.evaluation.jobs import Done, EvaluationJob, Piece, answering, attempt

# Maximum worker deaths per batch.
_TRIES = 3


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

    def start(self) -> None:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        # Sent, not passed as an argument, which an interrupted start could truncate.
        with suppress(OSError):
            mine.send(self._job)
        self._all[mine] = process
        self.busy[mine] = process, None

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
        """Kill busy workers, and join all."""
        for process, _ in self.busy.values():
            process.kill()
        for end, process in self._all.items():
            end.close()
            process.join()


def _count_death(deaths: Counter[int], piece: Piece | None) -> None:
    number = piece[0] if piece else -1
    deaths[number] += 1
    if deaths[number] >= _TRIES:
        name = piece[1][0] if piece else None
        raise RkzooError(
            f"A worker process died {_TRIES} times"
            + (f" at {name}." if name else " at its start."),
            "The system may have killed it for lack of memory.",
            "Try again with --workers 1; what is done so far is kept.",
            code=1,
        )


def _serve(end: Connection) -> None:
    """Main function of a worker: receives its job, reports ready, then maps batches to records."""
    # Ctrl-C reaches the whole group; the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import cv2

    cv2.setNumThreads(1)
    try:
        job: EvaluationJob = end.recv()
        with answering(job) as answer:
            end.send(None)
            while True:
                _, paths = end.recv()
                end.send([attempt(answer, Path(path)) for path in paths])
    except (EOFError, OSError):
        return  # the parent has closed the connection, or died
    except RkzooError as error:
        end.send(error)
    except Exception as error:  # a bug: reported once, not retried
        text = " ".join(str(error).split())[:300]
        end.send(RkzooError(f"A worker failed: {type(error).__name__}.", text, code=1))
