"""Breakdown of the accuracy loss from the upstream figure to the deployed model.

Every step is a full evaluation on the same images. Steps of the path differ from their predecessor
in one setting, so their changes add up. Branches vary the fixed square input in one setting and are
not part of the sum: what another implementation would lose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rkzoo.accuracy.dataset import Dataset, open_dataset
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.json_values import to_json_value
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Label
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.vision.decoders import decoder
from rkzoo.workflow.evaluation.evaluate import (
    STANDARD,
    Evaluation,
    calibrated_on,
    evaluate_plan,
    is_source,
    refuse_classes,
    refuse_cluster,
    task_of,
)
from rkzoo.workflow.evaluation.jobs import ImageReadOptions, read_bytes
from rkzoo.workflow.evaluation.rectangular import with_dynamic_size
from rkzoo.workflow.inference.plan import Plan, check_pictures, plan, plan_of
from rkzoo.workflow.request.request import Request

_OFFERED = ("detect", "segment", "pose")
_LOOKED_AT = 32  # images whose pixels are compared

# Decoder, name and meaning of a branch.
_DECODERS = (
    ("pillow", "read by Pillow", "As training code in Python often reads them."),
    (
        "turbo-exact",
        "read by libjpeg-turbo, exact",
        "As a C++ program reads them that asks for the accurate transform.",
    ),
    (
        "turbo-fast",
        "read by libjpeg-turbo, fast",
        "As a C++ program reads them with fast DCT and fast upsampling.",
    ),
)


@dataclass(frozen=True)
class Step:
    """One evaluation.

    Attributes:
        key, name: identifier and title.
        means: explanation, one or two sentences.
        branch: not part of the path.
        runtime: backend.
        value: main metric; None where it could not be measured.
        change: difference to the previous measured step of the path, for a branch to the fixed
            square input; None for the first.
        reason: why it could not be measured.
    """

    key: str
    name: str
    means: str
    branch: bool
    runtime: Label
    value: float | None = None
    change: float | None = None
    reason: str = ""

    @property
    def title(self) -> str:
        """Title for tables and charts."""
        return f"{'instead: ' if self.branch else ''}{self.name} [{self.runtime}]"


@dataclass(frozen=True)
class Explanation:
    """All steps in order, with their conditions. `metric` is the main metric of the dataset, a
    fraction in 0..1 unless `unit` says otherwise.
    """

    model: str
    dataset: str
    images: int
    metric: str
    unit: str
    toolkit: str
    steps: tuple[Step, ...]
    departures: tuple[str, ...]
    seconds: float
    rkzoo: str

    @property
    def path(self) -> tuple[Step, ...]:
        """The measured steps whose changes add up; the first is the full figure."""
        return tuple(step for step in self.steps if not step.branch and step.value is not None)

    def to_json(self) -> dict[str, Any]:
        """Result as JSON types; values that are not finite become null."""
        document: dict[str, Any] = to_json_value(self)
        return document


@dataclass(frozen=True)
class _Setup:
    """What is evaluated in a step."""

    planned: Plan
    options: DetectOptions = STANDARD
    reading: ImageReadOptions = field(default_factory=ImageReadOptions)


@dataclass(frozen=True)
class _StepRequest:
    """A step to be measured; `setup` raises RkzooError where it cannot be."""

    key: str
    name: str
    means: str
    setup: Callable[[], _Setup]
    branch: bool = False
    runtime: Label = "onnx"


def explain(
    model: str,
    data: str,
    *,
    request: Request | None = None,
    limit: int | None = None,
    deployed: DetectOptions | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    fresh: bool = False,
    report: ProgressReporter = SILENT,
) -> Explanation:
    """Break down the gap between the upstream protocol and the deployed model.

    `model` is a card's name or an .onnx with a head for boxes, masks or key points; `deployed`
    what it is run with (the defaults of `rkzoo run`). With `request.runtime` "onnx" the simulator
    is left out, with `request.dtype` "fp16" INT8. A step that cannot be measured says why and the
    others go on. The rest as for `evaluate`. Raises RkzooError.
    """
    start = time.perf_counter()
    request = request or Request()
    refuse_classes(request)
    deployed = deployed or request.task_options.detect or DetectOptions()
    report = _Once(report)
    _check_source(model)
    refuse_cluster(request, scheduler)
    planned = plan(model, replace(request, runtime="onnx", on=None), report)
    check_pictures(planned, "eval --explain")
    contract = _contract(planned)
    dataset = open_dataset(data, task_of(contract), contract.labels)
    departures: list[str] = []
    asks = [
        *_of_input(planned, contract, dataset),
        *_of_options(planned, contract, deployed),
        *_of_numbers(model, request, dataset, limit, deployed, departures, report),
    ]
    evaluations: dict[str, Evaluation | RkzooError] = {}
    # The plain step first: errors of the images themselves show there, and are raised.
    for ask in sorted(asks, key=lambda ask: ask.key != "square"):
        try:
            setup = ask.setup()
            evaluations[ask.key] = evaluation = evaluate_plan(
                replace(setup.planned, name=f"{planned.name}, {ask.name}"),
                dataset,
                limit=limit,
                options=setup.options,
                reading=setup.reading,
                workers=workers,
                scheduler=scheduler,
                fresh=fresh,
                report=report,
            )
            if evaluation.failed:  # every step is measured on the same pictures
                dataset = dataset.without({Path(failure.file) for failure in evaluation.failed})
                limit = evaluation.images if limit else None
        except RkzooError as error:
            if ask.key == "square":
                raise
            evaluations[ask.key] = error
            report.note(f"{ask.name}: cannot be measured. {error}")
    measured = [score for score in evaluations.values() if isinstance(score, Evaluation)]
    first = measured[0]
    return Explanation(
        model=planned.name,
        dataset=dataset.name,
        images=first.images,
        metric=first.main.name,
        unit=first.main.unit,
        toolkit=next((evaluation.toolkit for evaluation in measured if evaluation.toolkit), ""),
        steps=_steps(asks, evaluations),
        departures=(*dict.fromkeys(departures), *first.departures),
        seconds=time.perf_counter() - start,
        rkzoo=version("rkzoo"),
    )


def _check_source(model: str) -> None:
    if Path(model).suffix.lower() == ".rknn":
        raise RkzooError(
            f"The loss of {model} cannot be taken apart.",
            "The first steps need the float model, which a .rknn does not hold.",
            "Give the .onnx that it was made from, and the same pictures with --calib.",
        )


def _contract(planned: Plan) -> Contract:
    contract = next(iter(planned.parts.values())).contract
    task = task_of(contract, len(planned.parts))
    if task not in _OFFERED:
        raise RkzooError(
            f"The loss of {planned.name} cannot be taken apart step by step.",
            "That is there for models that find boxes, masks or key points only.",
            "Leave --explain out: rkzoo eval measures it with --runtime onnx and simulator.",
        )
    return contract


def _detect_head(contract: Contract) -> DetectHead:
    if not isinstance(contract.head, DetectHead):
        raise RkzooError(f"{contract.family} is not a detection model.", code=1)
    return contract.head


# ---- the steps ----------------------------------------------------------------------


def _of_input(planned: Plan, contract: Contract, dataset: Dataset) -> Iterator[_StepRequest]:
    height, width = contract.input.size
    head = _detect_head(contract)
    yield _StepRequest(
        "rectangular",
        "upstream protocol",
        f"Upstream settings, each picture padded to a multiple of {max(head.strides)}, half more.",
        lambda: _Setup(with_dynamic_size(planned), reading=ImageReadOptions(rectangular=True)),
    )
    yield _StepRequest(
        "square",
        f"one input size, {height}x{width}",
        "The NPU has one fixed input: every picture is padded to it.",
        lambda: _Setup(planned),
    )
    if contract.input.pad != 0:
        yield _StepRequest(
            "pad",
            f"padded with 0, not {contract.input.pad}",
            "Rockchip's examples pad with black, which the training never showed.",
            lambda: _Setup(_padded(planned, 0)),
            branch=True,
        )
    for key, name, means in _DECODERS:
        yield _StepRequest(
            key,
            name,
            f"{means} {_difference(key, dataset.items[:_LOOKED_AT])}".rstrip(),
            partial(_read_by, planned, key),
            branch=True,
        )


def _read_by(planned: Plan, key: str) -> _Setup:
    decoder(key)  # fails here, not in a worker, when its package is missing
    return _Setup(planned, reading=ImageReadOptions(decoder=key))


def _padded(planned: Plan, pad: int) -> Plan:
    part = planned.parts["model"]
    fed = msgspec.structs.replace(part.contract.input, pad=pad)
    contract = msgspec.structs.replace(part.contract, picture=fed)
    return replace(planned, parts={"model": replace(part, contract=contract)})


def _difference(name: str, items: Sequence[Path]) -> str:
    """Describe how far the decoder's pixels are from OpenCV's; empty where it is missing."""
    try:
        usual, other = decoder("opencv"), decoder(name)
        differences = []
        for path in items:
            data = read_bytes(path)
            pair = (np.asarray(read(data, path), np.int16) for read in (usual, other))
            differences.append(float(np.abs(next(pair) - next(pair)).mean()))
    except RkzooError:
        return ""
    mean = float(np.mean(differences)) if differences else 0.0
    if mean == 0:
        return "The very same pixels here."
    return f"Pixels differ by {mean:.2f} of 255."


# Title of the NMS step, by NMS mode.
_NMS = {
    "class": "NMS at IoU {:g}, not {:g}",
    "all": "NMS at IoU {:g} across classes, not {:g}",
    "none": "no NMS, as the network needs none",
}


def _of_options(
    planned: Plan, contract: Contract, deployed: DetectOptions
) -> Iterator[_StepRequest]:
    """From the standard options to those of the deployed model, one at a time."""
    options, head = STANDARD, _detect_head(contract)
    for key, name, means, fields in (
        (
            "nms",
            _NMS[deployed.suppression or head.suppression].format(deployed.iou, STANDARD.iou),
            "Of boxes that overlap more, the best one stays.",
            ("iou", "suppression"),
        ),
        (
            "limit",
            f"at most {deployed.limit} boxes, not {STANDARD.limit}",
            "Further boxes of a picture are dropped.",
            ("limit",),
        ),
        (
            "label",
            "one class a box",
            "Second guesses count when evaluating only.",
            ("multi_label",),
        ),
        (
            "confidence",
            f"confidence {deployed.confidence:g}, not {STANDARD.confidence:g}",
            "Weak boxes are hidden: a setting (--conf), no fault of the model.",
            ("confidence",),
        ),
    ):
        changed = replace(options, **{name: getattr(deployed, name) for name in fields})
        if changed != options:
            yield _StepRequest(key, name, means, partial(_Setup, planned, changed))
        options = changed


def _of_numbers(
    model: str,
    request: Request,
    dataset: Dataset,
    limit: int | None,
    deployed: DetectOptions,
    departures: list[str],
    report: ProgressReporter,
) -> Iterator[_StepRequest]:
    """The NPU's arithmetic, on the simulator or on a board that `--on` names."""
    if request.runtime == "onnx":
        return
    runtime = "simulator" if request.on is None else "remote"
    label: Label = "simulator" if request.on is None else "board"

    def built(dtype: str, options: DetectOptions) -> _Setup:
        requested = replace(request, runtime=label, dtype=dtype)
        if not is_source(model):
            return _Setup(plan(model, requested, report), options)
        from rkzoo.workflow.request.models import find_models

        models = find_models(model, requested, report)
        requested = calibrated_on(dataset, requested, limit, departures, models.first.tuned)
        return _Setup(plan_of(models, runtime, requested, report), options)

    asked = request.dtype or "int8"
    for dtype, name, means in (
        ("fp16", "half precision", "What the NPU computes without quantisation."),
        ("int8", "INT8", "Quantisation: what calibration and rkzoo tune can win back."),
        ("w4a16", "4-bit weights", "Weights of 16 values a scale; between layers it is float16."),
    ):
        if dtype in ("fp16", asked):
            setup = partial(built, dtype, deployed)
            yield _StepRequest(dtype, name, means, setup, runtime=label)
    if request.dtype in (None, "int8"):
        yield _StepRequest(
            "int8-standard",
            "INT8 by the standard protocol",
            "As INT8 is usually quoted: no threshold that weakened boxes fall below.",
            partial(built, "int8", STANDARD),
            branch=True,
            runtime=label,
        )


class _Once:
    """Reporter that shows each note once, though several plans of one model repeat it."""

    def __init__(self, report: ProgressReporter) -> None:
        self._shown: set[str] = set()
        self._report, self.task, self.failed = report, report.task, report.failed

    def note(self, message: str) -> None:
        if message not in self._shown:
            self._shown.add(message)
            self._report.note(message)


# ---- what came out ------------------------------------------------------------------


def _steps(
    asks: Sequence[_StepRequest], found: dict[str, Evaluation | RkzooError]
) -> tuple[Step, ...]:
    steps = []
    last: float | None = None
    values = {
        key: evaluation.main.value
        for key, evaluation in found.items()
        if isinstance(evaluation, Evaluation)
    }
    for ask in asks:
        step = Step(ask.key, ask.name, ask.means, ask.branch, ask.runtime)
        value = values.get(ask.key)
        if value is None:
            step = replace(step, reason=str(found[ask.key]))
        else:
            base = values["square"] if ask.branch else last
            step = replace(step, value=value, change=None if base is None else value - base)
            last = last if ask.branch else value
        steps.append(step)
    return tuple(steps)
