"""Records of `rkzoo eval` made on the board: files in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.session import Array, Session
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.spec import TaskOptions
from rkzoo.tasks.text.page import PageOptions
from rkzoo.workflow.evaluation.jobs import (
    EvaluationJob,
    ImageReadOptions,
    answer_of,
    decoder_of,
)
from rkzoo.workflow.inference.board import BoardBackend
from rkzoo.workflow.inference.load import task_of
from rkzoo.workflow.inference.plan import ModelPart, Plan


class RecordOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wanted of the answers, as an EvaluationJob has it; `OpenSession.options`."""

    detect: DetectOptions = DetectOptions()
    page: PageOptions | None = None
    reading: ImageReadOptions = ImageReadOptions()


def answering_of(
    name: str,
    contract: Contract,
    options: Mapping[str, Any],
    backend: BoardBackend,
    session: Session,
) -> Callable[[bytes, Path], dict[str, Array]]:
    """A function from a file's bytes to its record, with a session that is open.

    Args:
        name: What the model is called.
        contract: What it promises.
        options: RecordOptions as JSON types.
        backend: What opened it.
        session: The session.

    Raises:
        RkzooError: The model's task gives no records.
        msgspec.ValidationError: The options are none.
    """
    wanted = msgspec.convert(options, RecordOptions)
    planned = Plan(name, backend.label, {"model": ModelPart(contract, backend)}, contract.head)
    job = EvaluationJob(planned, wanted.detect, wanted.page, wanted.reading)
    given = TaskOptions(detect=wanted.detect, page=wanted.page)
    task = task_of(planned, {"model": (contract, session)}, given)
    return answer_of(task, decoder_of(job))
