"""Evaluation job that any process can execute in part: one plan, many images, one record each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from rkzoo import files
from rkzoo.accuracy.answers import Record, check_record, pack
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, package_digest, sha256_of
from rkzoo.progress import SILENT, Failure, ProgressReporter
from rkzoo.runtime.batched import BatchedSession
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.image_task import ImageTask
from rkzoo.tasks.spec import TaskOptions
from rkzoo.tasks.text.page import PageOptions
from rkzoo.vision.decoders import decoder
from rkzoo.workflow.evaluation.rectangular import open_rectangular
from rkzoo.workflow.inference.inputs import SOUND, TENSORS, input_kind_of_head
from rkzoo.workflow.inference.load import open_task
from rkzoo.workflow.inference.model import Prediction
from rkzoo.workflow.inference.plan import Plan

if TYPE_CHECKING:
    from rkzoo.remote.session import RemoteSession

Send = Literal["tensors", "files"]
T = TypeVar("T")
Answer = Callable[[bytes, Path], Record]
Records = list[Record | Failure]
"""One for each file, in order: what was found in it, or why it could not be used."""
# Results arrive batch by batch, in any order.
Done = Iterator[tuple[int, Records]]
Piece = tuple[int, Sequence[Path]]


@dataclass(frozen=True)
class ImageReadOptions:
    """How images are read and padded, where that differs from the default: `decoder` is one of
    vision.decoders.DECODERS; `rectangular` pads only to a multiple of the stride (a detection head
    whose graph takes any size).
    """

    decoder: str = "opencv"
    rectangular: bool = False


@dataclass(frozen=True)
class EvaluationJob:
    """How images are processed. One thread per session, so that results do not depend on the number
    of cores or workers. `send`: what goes to a board at the other end of a cable, tensors that were
    prepared here, or the files, whose records come back.
    """

    plan: Plan
    options: DetectOptions = field(default_factory=DetectOptions)
    page: PageOptions | None = None
    reading: ImageReadOptions = field(default_factory=ImageReadOptions)
    send: Send = "tensors"

    @property
    def digest(self) -> str:
        """Hex SHA-256 of everything that decides the records, code and libraries included."""
        digest = hashlib.sha256(_code().encode())
        fields = (self.plan.label, self.plan.options, self.options, self.page, self.reading)
        digest.update(repr(fields).encode())
        if self.send == "files":  # they are decoded by the board's libraries
            digest.update(b"files")
        for role, file in sorted(self.plan.files.items()):
            digest.update(f"{role} {sha256_of(file)}".encode())
        for role, part in self.plan.parts.items():
            digest.update(role.encode() + msgspec.json.encode(part.contract))
            digest.update(part.backend.digest.encode())
        return digest.hexdigest()


@contextmanager
def answering(job: EvaluationJob, report: ProgressReporter = SILENT) -> Iterator[Answer]:
    """Open the job's models; yields a function from an image's bytes to its record."""
    if job.send == "files":
        with _record_session(job, report) as session:
            yield partial(_record_of, session)
        return
    decode = decoder_of(job)
    with ExitStack() as stack:
        if job.reading.rectangular:
            task = open_rectangular(job.plan, stack, job.options, threads=1, report=report)
        else:
            task = open_task(
                job.plan,
                stack,
                options=replace(job.plan.options, detect=job.options, page=job.page),
                threads=1,
                quick=False,
                report=report,
            )

        yield answer_of(task, decode)


def check_send(planned: Plan, send: Send) -> None:
    """Raises RkzooError where a plan's files cannot be sent to a board as they are."""
    if send == "tensors":
        return
    part = planned.parts.get("model")
    if part is None or part.backend.on is None:
        raise RkzooError(
            "--send files does not go with this.",
            "It is for one model on a board that --on names.",
            "Leave it out.",
        )
    plain = replace(planned.options, detect=None, page=None) == TaskOptions()
    if part.prompts is not None or planned.files or not plain:
        raise RkzooError(
            f"The files cannot be sent to {part.backend.on} as they are.",
            f"{planned.name} is told more than thresholds, which stays here.",
            "Leave --send files out.",
        )


def _record_session(job: EvaluationJob, report: ProgressReporter) -> RemoteSession:
    """The job's model on its board, told how its outputs are read."""
    from rkzoo.workflow.inference.remote_backend import RemoteBackend, open_remote

    check_send(job.plan, job.send)
    part = job.plan.parts["model"]
    assert isinstance(part.backend, RemoteBackend)  # as was checked
    wanted = {"detect": job.options, "page": job.page, "reading": job.reading}
    return open_remote(
        part.backend, part.contract, report, record_options=msgspec.to_builtins(wanted)
    )


def _record_of(session: RemoteSession, data: bytes, path: Path) -> Record:
    record = session.record(data, path.name)
    try:
        check_record(record)
    except (ValueError, KeyError, TypeError) as error:
        raise RkzooError(
            f"The answer of {session.client.board} cannot be read.",
            f"It is no record: {error}.",
            "Use the same version of rkzoo on both machines.",
            code=1,
        ) from error
    return record


Decode = Callable[[bytes, Path], Any]
"""Decodes a file's bytes to the task's input."""


def decoder_of(job: EvaluationJob) -> Decode:
    """Decoder of the job's files: images, sounds, or samples of plain tensors."""
    kind = input_kind_of_head(job.plan.head).name
    if kind == TENSORS.name:
        from rkzoo.workflow.request.samples import decode as decode_sample

        return partial(decode_sample, contract=job.plan.parts["model"].contract)
    if kind == SOUND.name:
        from rkzoo.audio.sound import decode

        return decode
    return decoder(job.reading.decoder)


class TaskAnswer:
    """A function from a file's bytes to its record, for an open task; `batch` of them by one run
    (`many`), where its model was built for several."""

    def __init__(self, task: Callable[[Any], Prediction], decode: Decode) -> None:
        self._task, self.decode = task, decode
        session = task.session if isinstance(task, ImageTask) else None
        self.batch = session.batch if isinstance(session, BatchedSession) else 1

    def __call__(self, data: bytes, path: Path) -> Record:
        decoded = self.decode(data, path)
        return _packed(self._task(decoded), decoded)

    def many(self, inputs: Sequence[Any]) -> list[Record]:
        """The records of decoded inputs, `batch` at the most."""
        task: Any = self._task
        return [_packed(*pair) for pair in zip(task.many(inputs), inputs, strict=True)]


def _packed(prediction: Prediction, decoded: Any) -> Record:
    height, width = getattr(decoded, "shape", (0, 0))[:2]
    return pack(prediction, (height, width))


def answer_of(task: Callable[[Any], Prediction], decode: Decode) -> Answer:
    """Return a function from a file's bytes to its record, for an open task."""
    return TaskAnswer(task, decode)


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises RkzooError when it cannot be read."""
    with os_errors_explained(f"The file {path} cannot be read."):
        return files.read_bytes(path)


def run_inline(
    job: EvaluationJob, pieces: Sequence[Piece], report: ProgressReporter = SILENT
) -> Done:
    """Run the job in this process."""
    with answering(job, report) as answer:
        yield from answered(answer, pieces)


def answered(answer: Answer, pieces: Sequence[Piece]) -> Done:
    """Process the batches sequentially."""
    for index, paths in pieces:
        yield index, answer_all(answer, [(None, path) for path in paths])


def answer_all(answer: Answer, files: Sequence[tuple[bytes | Failure | None, Path]]) -> Records:
    """The record of each file, or why there is none; None is read from the path."""
    if not isinstance(answer, TaskAnswer) or answer.batch == 1:
        return [
            data if isinstance(data, Failure) else attempt(answer, path, data)
            for data, path in files
        ]
    records: list[Any] = [
        data if isinstance(data, Failure) else attempt(answer.decode, path, data)
        for data, path in files
    ]
    read = [place for place, one in enumerate(records) if not isinstance(one, Failure)]
    for start in range(0, len(read), answer.batch):
        places = read[start : start + answer.batch]
        made = answer.many([records[place] for place in places])
        for place, record in zip(places, made, strict=True):
            records[place] = record
    return records


def attempt(
    answer: Callable[[bytes, Path], T], path: Path, data: bytes | None = None
) -> T | Failure:
    """The record of a file, or why there is none; one bad file does not end the job."""
    try:
        return answer(read_bytes(path) if data is None else data, path)
    except RkzooError as error:
        if error.code != 2:  # a fault of rkzoo's or the toolkit's, and none of the file's
            raise
        return Failure(str(path), error.reason)


@cache
def _code() -> str:
    """Digest of rkzoo, and versions of the libraries that affect records."""
    return package_digest() + repr([(name, _version(name)) for name in _LIBRARIES])


_LIBRARIES = ("numpy", "opencv-python-headless", "onnxruntime", "pillow", "simplejpeg", "soxr")


def _version(package: str) -> Any:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(package)
    except PackageNotFoundError:
        return None
