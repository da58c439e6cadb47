"""The model that tells tracked things apart by their looks, beside the detector of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.progress import ProgressReporter
from rkzoo.streaming.appearance import CropEmbedder
from rkzoo.tasks.detect.classes import class_numbers
from rkzoo.tasks.vector.task import Measurer
from rkzoo.workflow.inference.load import open_task
from rkzoo.workflow.inference.plan import Plan, on_core, plan
from rkzoo.workflow.request.request import Request

# Classes of people, and from which height to width an input is made for them.
_PEOPLE, _UPRIGHT = frozenset({"person", "people", "pedestrian"}), 1.5


def reid_plan(
    planned: Plan,
    model: str | None,
    classes: Sequence[str] | None,
    track: bool,
    request: Request | None,
    report: ProgressReporter,
) -> Plan | None:
    """The plan of the model that says what tracked things look like.

    Args:
        planned: The detector.
        model: Card name or file of an embedding model; None for none.
        classes: Classes that it is asked about.
        track: Whether anything is tracked.
        request: Of the detector; its runtime is that of both.
        report: Where notes and progress go.

    Raises:
        RkzooError: The model is of another kind, or there is nothing to track.
    """
    if model is None:
        if classes is not None:
            raise RkzooError(
                "--reid-classes has no model to go with.",
                "It says which boxes the model of --reid is asked about.",
                "Give --reid MODEL, or leave it out.",
            )
        return None
    if not track:
        raise RkzooError(
            "--reid goes with --track.",
            "It helps to give a thing the same number again.",
            "Give --track too, or leave --reid out.",
        )
    mine = request or Request()
    asked = Request(runtime=mine.runtime, on=mine.on, chip=mine.chip, toolkit=mine.toolkit)
    if planned.label == "simulator" and Path(model).suffix.lower() != ".rknn":
        asked = replace(asked, dtype="fp16")  # nobody gives pictures to calibrate it with
    found = plan(model, asked, report)
    head = found.parts["model"].contract.head if "model" in found.parts else found.head
    if not isinstance(head, VectorHead) or not head.embedding:
        raise RkzooError(
            f"{found.name} does not tell what things look like.",
            "--reid takes a model whose answer is an embedding: of people, or of any picture.",
            "Give for example an OSNet; rkzoo inspect MODEL.onnx says what a model gives.",
        )
    return found


def open_reid(
    reid: Plan | None,
    planned: Plan,
    classes: Sequence[str] | None,
    workers: int,
    stack: ExitStack,
    report: ProgressReporter,
) -> CropEmbedder | None:
    """The opened model of --reid, on the NPU core after those of the workers."""
    if reid is None:
        return None
    task = open_task(on_core(reid, workers), stack, threads=1, report=report)
    if not isinstance(task, Measurer):
        raise RkzooError(f"{reid.name} gives no embeddings.", code=1)
    contract = planned.parts["model"].answers
    names = _reid_names(contract.labels, task.contract.input.size, classes)
    if names is not None:
        report.note(f"{reid.name} is asked about {', '.join(sorted(names))}.")
    return CropEmbedder(task.embed, names)


def _reid_names(
    labels: Sequence[str], size: tuple[int, int], chosen: Sequence[str] | None
) -> frozenset[str] | None:
    """Names of the classes that the model of --reid is asked about; None for all."""
    if chosen is not None:
        numbers = class_numbers(chosen, labels, len(labels))
        return frozenset(labels[number] for number in numbers)
    people = _PEOPLE.intersection(labels)
    return frozenset(people) if people and size[0] >= _UPRIGHT * size[1] else None
