"""Evaluation on a running Dask cluster.

Images and models are sent with the job: a worker needs only rkzoo.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rkzoo.errors import RkzooError
from rkzoo.progress import Failure
from rkzoo.session import Array
from rkzoo.toolkit import builds
from rkzoo.workflow.evaluation.jobs import (
    Answer,
    Done,
    EvaluationJob,
    Piece,
    Records,
    answer_all,
    answering,
    read_bytes,
)
from rkzoo.workflow.inference.plan import ModelPart
from rkzoo.workflow.inference.simulator_backend import SimulatorBackend

if TYPE_CHECKING:
    from distributed import Client, Future

# Pieces submitted per cluster thread: enough to keep it busy, without sending all images at once.
_AHEAD = 3
_TRIES = 3
_CONNECT = 8.0  # seconds


@dataclass(frozen=True)
class _DaskJob:
    """A job with the files of its builds, to be opened on another machine."""

    job: EvaluationJob
    digest: str
    files: dict[str, tuple[bytes, tuple[Array, ...]]]


def run_on_dask(job: EvaluationJob, pieces: Sequence[Piece], address: str) -> Done:
    """Run a job on a Dask cluster.

    Args:
        job: the job.
        pieces: batches of files.
        address: the scheduler, tcp://host:port.

    Yields:
        Batch number and records. Work of a lost worker is repeated.

    Raises:
        RkzooError: no cluster, another version of rkzoo on a worker, or repeated failures.
    """
    from distributed import as_completed

    with _client(address) as client:
        _check(client, address)
        shipped = client.scatter(_ship(job), broadcast=True, hash=False)
        waiting = list(reversed(pieces))
        tries: Counter[int] = Counter()
        running: dict[Future[Any], Piece] = {}

        def submit() -> Future[Any]:
            piece = waiting.pop()
            pictures = [(_bytes(path), path) for path in piece[1]]
            future: Future[Any] = client.submit(_answer, shipped, pictures, pure=False)
            running[future] = piece
            return future

        slots = sum(client.nthreads().values())
        try:
            arriving = as_completed(
                [submit() for _ in range(min(_AHEAD * slots, len(waiting)))], loop=client.loop
            )
            for future in arriving:
                piece = running.pop(future)
                try:
                    answer = future.result()
                except RkzooError:
                    raise
                # Any cluster failure: a killed worker, lost input.
                except Exception as error:
                    tries[piece[0]] += 1
                    if tries[piece[0]] >= _TRIES:
                        raise _given_up(piece, error) from error
                    waiting.append(piece)
                    shipped = client.scatter(_ship(job), broadcast=True, hash=False)
                else:
                    yield piece[0], answer
                if waiting:
                    arriving.add(submit())
        finally:
            client.cancel(list(running))
            client.run(_close)


def _bytes(path: Path) -> bytes | Failure:
    try:
        return read_bytes(path)
    except RkzooError as error:
        return Failure(str(path), error.reason)


def _client(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise RkzooError(
            "--scheduler needs Dask.",
            "The package distributed is not installed.",
            'Install it with: pip install "rkzoo[cluster]"',
        ) from error
    if not re.fullmatch(r"(\w+://)?\S+:\d+", address):
        # Dask would leave a half-constructed client, which takes 40 s to end.
        raise RkzooError(
            f"{address!r} is not the address of a Dask scheduler.",
            "It is a host and a port.",
            "Give e.g. --scheduler tcp://192.168.1.2:8786; dask scheduler prints its own.",
        )
    try:
        # Dask itself would retry three times as long.
        host, _, port = address.rpartition("/")[2].rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
        return Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise RkzooError(
            f"There is no Dask scheduler at {address}.",
            " ".join(str(error).split())[:200] + ".",
            "Start one with: dask scheduler, and workers with: dask worker tcp://HOST:8786",
        ) from error


def _check(client: Client, address: str) -> None:
    """Check that all workers have this version of rkzoo, so that results are consistent."""
    try:
        versions = client.run(version, "rkzoo")
    except Exception as error:
        raise RkzooError(
            f"Not every worker of {address} has rkzoo.",
            " ".join(str(error).split())[:200] + ".",
            "Install it where the workers run, and start them again.",
        ) from error
    mine = version("rkzoo")
    other = {where: text for where, text in versions.items() if text != mine}
    if other:
        where, text = next(iter(other.items()))
        raise RkzooError(
            f"The worker {where} has rkzoo {text}, this machine {mine}.",
            "Their figures may differ.",
            "Install the same version everywhere.",
        )
    if not versions:
        raise RkzooError(
            f"The cluster at {address} has no workers.",
            "There is nothing to run on.",
            f"Start some with: dask worker {address}",
        )


def _given_up(piece: Piece, error: Exception) -> RkzooError:
    return RkzooError(
        f"The cluster failed {_TRIES} times at {piece[1][0]}.",
        " ".join(f"{type(error).__name__}: {error}".split())[:300],
        "Look at the workers' logs; what is done so far is kept.",
        code=1,
    )


def _ship(job: EvaluationJob) -> _DaskJob:
    files = {}
    for role, part in job.plan.parts.items():
        if part.build is not None:
            folder = part.build.calibration
            arrays = sorted(folder.glob("calibration-*.npy")) if folder else []
            files[role] = (part.build.onnx.read_bytes(), tuple(np.load(path) for path in arrays))
    return _DaskJob(job, job.digest, files)


def _unship(shipped: _DaskJob) -> EvaluationJob:
    """The job with its builds stored in the local cache."""
    parts: dict[str, ModelPart] = dict(shipped.job.plan.parts)
    for role, (graph, arrays) in shipped.files.items():
        build = parts[role].built
        here = builds.find(builds.store(graph, arrays, build.recipe))
        parts[role] = replace(
            parts[role],
            backend=SimulatorBackend(
                replace(build, onnx=here.onnx, calibration=here.calibration) if here else build
            ),
        )
    return replace(shipped.job, plan=replace(shipped.job.plan, parts=parts))


# Each worker thread keeps its models open between pieces; sessions are not shared.
_MINE = threading.local()
_OPEN: list[AbstractContextManager[Any]] = []


def _answer(shipped: _DaskJob, pictures: Sequence[tuple[bytes | Failure, Path]]) -> Records:
    if getattr(_MINE, "digest", None) != shipped.digest:
        opened = answering(_unship(shipped))
        _MINE.answer, _MINE.digest = opened.__enter__(), shipped.digest
        _OPEN.append(opened)
    answer: Answer = _MINE.answer
    return answer_all(answer, pictures)


def _close() -> None:
    """Close the models, and the simulator's processes, on each worker at the end."""
    global _MINE
    _MINE = threading.local()
    while _OPEN:
        _OPEN.pop().__exit__(None, None, None)
