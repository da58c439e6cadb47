"""What would make a model cheaper on a chip: each change is built by the toolkit and estimated, and
where there are data, measured in the simulator."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rkzoo.accuracy.dataset import Dataset
from rkzoo.accuracy.metric import Metric
from rkzoo.errors import RkzooError
from rkzoo.files import check_folder, refuse_overwriting_inputs
from rkzoo.json_values import to_json_value
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.soc.chips import resolve as chip_name
from rkzoo.speed.latency import cpu_megabytes, cpu_price, on_cpu
from rkzoo.tasks.registry import validate_options
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.toolkit.recipe import Dtype
from rkzoo.workflow.advice.proposals import (
    HINTS,
    NUMBERS,
    PROPOSALS,
    Candidate,
    Numbers,
    Situation,
)
from rkzoo.workflow.evaluation.evaluate import (
    calibrated_on,
    check_limit,
    evaluate_plan,
    refuse_classes,
    task_of,
)
from rkzoo.workflow.inference.plan import Plan, part
from rkzoo.workflow.performance.estimate import (
    Estimate,
    EstimateSubject,
    default_dtype,
    estimate_subject,
    subject_of,
)
from rkzoo.workflow.request.models import find_model
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.workflow.tuning.tune import reference_data

Cost = Callable[[EstimateSubject, str, Dtype, str | None, ProgressReporter], Estimate]
"""What a graph costs on a chip: `estimate_subject`, or in a test something quick."""

LAYERS = 10
_WASTES = 0.25  # of the multiplications a cycle that the model's best layer reaches
_FIELDS = {
    *("dtype", "toolkit", "size", "shapes", "raw", "fit", "cut", "plain", "labels", "color"),
    *("mean", "std", "anchors", "calibration", "calibration_count", "prompts", "text_model"),
    *("embeddings",),
}


@dataclass(frozen=True)
class LayerShare:
    """A layer and its share of the estimate: `ms` (of the lower bound where the chip is not
    calibrated), `share` of the sum, and `why` it costs that, as far as its figures tell."""

    name: str
    op: str
    target: str
    dtype: str
    output: tuple[int, ...]
    ms: float
    share: float
    why: str


@dataclass(frozen=True)
class Proposal:
    """A change that was built.

    Attributes:
        number: Its place, from 1: what gains most comes first.
        name: Its kind.
        what: What is changed.
        numbers: Whether it keeps the model's numbers.
        estimate: What it costs then; its `problem` where it cannot be built.
        gain: Share of the time that is saved, below 0 where it takes longer.
        accuracy: The main metric in the simulator; None where nothing measured it.
        note: What else is to be known, in a sentence; "" for nothing.
        words: The command that has it done, without the options that the model needs; empty where
            none does.
    """

    number: int
    name: str
    what: str
    numbers: Numbers
    estimate: Estimate
    gain: float
    accuracy: float | None
    note: str
    words: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        document = {
            "number": self.number,
            "name": self.name,
            "what": self.what,
            "numbers": NUMBERS[self.numbers],
            "gain": round(self.gain, 4),
            "accuracy": self.accuracy,
            "note": self.note,
            "words": list(self.words),
            "estimate": self.estimate.to_json(),
        }
        values: dict[str, Any] = to_json_value(document)
        return values


@dataclass(frozen=True)
class Advice:
    """What a model costs on a chip, and what would make it cheaper. All times are estimates.

    Attributes:
        model, soc: What was asked about.
        base: What it costs as it is converted now.
        layers: The costliest layers.
        proposals: What was tried, the best first.
        hints: What is to be known beside, a sentence each.
        left_out: What could not be tried, and why.
        metric: The float model's accuracy on the data; None without data.
        accuracy: The accuracy as it is converted now, in the simulator.
        data: What the accuracy was measured on; "" for nothing.
        written: Files of the proposal that was applied.
    """

    model: str
    soc: str
    base: Estimate
    layers: tuple[LayerShare, ...]
    proposals: tuple[Proposal, ...]
    hints: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    metric: Metric | None = None
    accuracy: float | None = None
    data: str = ""
    written: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        document: dict[str, Any] = {
            "model": self.model,
            "soc": self.soc,
            "base": self.base.to_json(),
            "layers": [asdict(layer) for layer in self.layers],
            "proposals": [proposal.to_json() for proposal in self.proposals],
            "hints": list(self.hints),
            "left_out": list(self.left_out),
            "data": self.data,
            "metric": self.metric.name if self.metric else None,
            "float": self.metric.value if self.metric else None,
            "accuracy": self.accuracy,
            "written": [str(path) for path in self.written],
        }
        values: dict[str, Any] = to_json_value(document)
        return values


def advise(
    model: str | os.PathLike[str],
    soc: str,
    request: Request | None = None,
    *,
    data: str | None = None,
    limit: int | None = None,
    apply: int | None = None,
    output: Path | None = None,
    cost: Cost = estimate_subject,
    report: ProgressReporter = SILENT,
) -> Advice:
    """Build a model and its changes for a chip, one after another, and rank them.

    Args:
        model: A card's name or a model file.
        soc: The chip.
        request: How the model is converted.
        data: Data as for `evaluate`, or a folder of pictures alone, by which accuracy is measured
            in the simulator.
        limit: Only so many samples, from the first on.
        apply: Number of a proposal to write, verified; only where it keeps the numbers.
        output: The file that it is written to; None is named after the model.
        cost: What a graph costs.
        report: Where progress goes.

    Returns:
        The costs as it is, and the proposals, the best first.

    Raises:
        RkzooError: The model cannot be found, or not be built for the chip as it is; or there is
            no such proposal, or it is none that can be written.
    """
    soc, source = chip_name(soc), os.fspath(model)
    request = request or Request()
    request.refuse_all_but(_FIELDS, "rkzoo advise")
    refuse_classes(request)
    check_limit(limit)
    if Path(source).suffix.lower() == ".rknn":
        raise RkzooError(
            f"{source} is built already.",
            "What is proposed are changes of the network and of how it is built.",
            "Give the .onnx that it was made from.",
        )
    if apply is not None and apply < 1:
        raise RkzooError(
            f"There is no proposal {apply}.",
            "They are numbered from 1.",
            f"See them: {shlex.join(('rkzoo', 'advise', source, '--soc', soc))}",
        )
    if output is not None:
        if apply is None:
            raise RkzooError(
                "-o goes with --apply.", "Nothing is written without it.", "Add --apply N."
            )
        check_folder(output.parent)
        refuse_overwriting_inputs([output], [Path(source)])
    request = replace(request, chip=soc)
    ready = find_model(source, request, report, to_run=False)
    validate_options(ready.contract.head, request.given())
    subject = subject_of(ready)
    dtype: Dtype = request.dtype or default_dtype(subject, soc)  # type: ignore[assignment]
    request = replace(request, dtype=dtype)
    # What is wrong with the data is said before anything is built.
    scale = None if data is None else _Accuracy(ready, request, data, limit, report)
    base = cost(subject, soc, dtype, request.toolkit, report)
    if base.problem is not None:
        raise base.problem
    now = Situation(ready, subject, soc, base, request)
    tried, left_out = _tried(now, cost, report)
    ranked = _ranked(base, tried)
    proposals = []
    for number, (candidate, estimate) in enumerate(ranked, 1):
        measured = scale.of(candidate) if scale is not None and estimate.table else None
        words = _words(source, soc, number, candidate)
        proposals.append(_proposal(number, candidate, base, estimate, measured, words))
    advice = Advice(
        model=source,
        soc=soc,
        base=base,
        layers=_layers(base),
        proposals=tuple(proposals),
        hints=tuple(hint for function in HINTS for hint in function(now)),
        left_out=tuple(left_out),
        metric=scale.floating if scale else None,
        accuracy=scale.value(request, ready) if scale else None,
        data=scale.dataset.name if scale else "",
    )
    if apply is None:
        return advice
    ordered = [candidate for candidate, _ in ranked]
    return replace(advice, written=tuple(_apply(advice, ordered, apply, output, report)))


def _tried(
    now: Situation, cost: Cost, report: ProgressReporter
) -> tuple[list[tuple[Candidate, Estimate]], list[str]]:
    """Every candidate with what it costs, and why others could not be tried."""
    candidates: list[Candidate] = []
    left_out: dict[str, list[str]] = {}
    for title, function in PROPOSALS.items():
        try:
            candidates += function(now)
        except RkzooError as error:
            left_out.setdefault(error.reason, []).append(title)
    tried = []
    with report.task("Trying changes", len(candidates), unit="changes") as bar:
        for index, candidate in enumerate(candidates, 1):
            try:
                subject = candidate.make()
            except RkzooError as error:
                left_out.setdefault(error.reason, []).append(candidate.what)
            else:
                toolkit = now.request.toolkit
                tried.append((candidate, cost(subject, now.soc, candidate.dtype, toolkit, report)))
            bar.update(index)
    return tried, [f"{'; '.join(what)}: {why}" for why, what in left_out.items()]


def _ranked(
    base: Estimate, tried: Sequence[tuple[Candidate, Estimate]]
) -> list[tuple[Candidate, Estimate]]:
    """By the share of time that is saved, what runs on the processor included; last what cannot be
    built. Where the chip has no price for the processor, another's ranks."""
    return sorted(tried, key=lambda pair: (pair[1].table is None, -_saved(base, pair[1])))


def _saved(before: Estimate, after: Estimate) -> float:
    if before.table is None or after.table is None:
        return 0.0
    was, then = _times(before, after)
    unpriced = before.latency is not None and before.latency.unpriced
    price = cpu_price(before.soc)[1] if unpriced or before.latency is None else 0.0
    was += price * cpu_megabytes(before.table)
    then += price * cpu_megabytes(after.table)
    return 1 - then / was if was else 0.0


def gain(before: Estimate, after: Estimate) -> float:
    """Share of the time that is saved: of milliseconds where both are calibrated, else of what the
    compiler's cycles take at least. 0 where one cannot be built."""
    was, then = _times(before, after)
    return 1 - then / was if was else 0.0


def _times(before: Estimate, after: Estimate) -> tuple[float, float]:
    """Both in one unit: ms, else ms at least, else million cycles."""
    old, new = before.latency, after.latency
    if old is None or new is None:
        return 0.0, 0.0
    if old.ms and new.ms:
        return old.ms, new.ms
    return (old.bound, new.bound) if old.bound and new.bound else (old.cycles, new.cycles)


def _proposal(
    number: int,
    candidate: Candidate,
    base: Estimate,
    estimate: Estimate,
    accuracy: float | None,
    words: tuple[str, ...],
) -> Proposal:
    note = candidate.note
    if estimate.problem is not None:
        note = f"It cannot be built: {estimate.problem.reason}"
        words = ()
    return Proposal(
        number,
        candidate.name,
        candidate.what,
        candidate.numbers,
        estimate,
        gain(base, estimate),
        accuracy,
        note,
        words,
    )


def _words(model: str, soc: str, number: int, candidate: Candidate) -> tuple[str, ...]:
    if candidate.suffix:
        file = _file(model, candidate)
        return ("rkzoo", "advise", model, "--soc", soc, "--apply", str(number), "-o", file)
    if candidate.options or candidate.numbers == "same":
        return ("rkzoo", "convert", model, "--soc", soc, *candidate.options)
    return ()


def _file(model: str, candidate: Candidate) -> str:
    return f"{Path(model).stem}-{candidate.name}{candidate.suffix}"


def _apply(
    advice: Advice,
    ordered: Sequence[Candidate],
    number: int,
    output: Path | None,
    report: ProgressReporter,
) -> list[Path]:
    """Write a proposal, verified. Raises RkzooError."""
    if not 1 <= number <= len(ordered):
        count = f"There are {len(ordered)}" if ordered else "There is none"
        raise RkzooError(
            f"There is no proposal {number} for {advice.model} on {advice.soc}.",
            f"{count}.",
            f"See them: {shlex.join(('rkzoo', 'advise', advice.model, '--soc', advice.soc))}",
        )
    candidate, proposal = ordered[number - 1], advice.proposals[number - 1]
    if proposal.estimate.problem is not None:
        raise RkzooError(
            f"Proposal {number} cannot be applied: {candidate.what}.",
            proposal.note,
            "Take another one.",
        )
    if candidate.write is None:
        why = {
            "needs training": "The numbers change, and only a training makes them right again.",
            "needs an export": "A graph's size is its exporter's to change.",
        }.get(candidate.numbers, "It is an option of rkzoo convert, and nothing is written for it.")
        command = shlex.join(proposal.words)
        fix = f"Run: {command}" if command else candidate.note
        raise RkzooError(f"Proposal {number} cannot be applied: {candidate.what}.", why, fix)
    target = output or Path(_file(advice.model, candidate))
    if target.suffix.lower() != candidate.suffix:
        raise RkzooError(
            f"{target} cannot hold proposal {number}.",
            f"What is written is a file {candidate.suffix}.",
            f"Give -o {target.with_suffix(candidate.suffix)}",
        )
    with report.task("Writing it, held to the original in ONNX Runtime"):
        return candidate.write(target)


# ---- layers -------------------------------------------------------------------------


def _layers(base: Estimate) -> tuple[LayerShare, ...]:
    """The costliest layers, and why they cost that."""
    table, predicted = base.table, base.latency
    if table is None or predicted is None:
        return ()
    total = math.fsum(predicted.layers) or 1.0
    best = max(map(_rate, table.work), default=0.0)
    ranked = sorted(zip(table.work, predicted.layers, strict=True), key=lambda pair: -pair[1])
    return tuple(
        LayerShare(
            layer.name,
            layer.op,
            layer.target,
            layer.dtype,
            layer.output_shape,
            ms,
            ms / total,
            "; ".join(_why(layer, best)),
        )
        for layer, ms in ranked[:LAYERS]
    )


def _weights(layer: LayerCost) -> tuple[int, ...]:
    """(outputs, inputs, height, width) of a convolution's kernel; () for anything else."""
    kernel = layer.input_shape[1] if len(layer.input_shape) > 1 else ()
    return kernel if layer.op.startswith("Conv") and len(kernel) == 4 else ()


def _rate(layer: LayerCost) -> float:
    """Multiplications a cycle."""
    kernel = _weights(layer)
    if not kernel or not layer.cycles_total:
        return 0.0
    return math.prod(layer.output_shape) * math.prod(kernel[1:]) / layer.cycles_total


def _why(layer: LayerCost, best: float) -> Iterator[str]:
    if on_cpu(layer):
        yield "on the processor"
    kernel = _weights(layer)
    if not kernel:
        if not layer.cycles_total and layer.target == "NPU":
            yield "moves data, computes little"
        return
    if layer.cycles_ddr > layer.cycles_npu:
        yield "waits for memory"
    if max(kernel[2:]) > 7:
        yield f"kernel {kernel[2]}x{kernel[3]}"
    if best and _rate(layer) < _WASTES * best and layer.cycles_npu >= layer.cycles_ddr:
        inner = layer.input_shape[0][1] if len(layer.input_shape[0]) > 1 else 0
        share = f"{_rate(layer) / best:.0%} of the best layer's multiplications a cycle"
        yield f"{inner} channels in, {layer.output_shape[1]} out: {share}"


# ---- accuracy -----------------------------------------------------------------------


class _Accuracy:
    """Measures in the simulator on data, against the float model.

    Attributes:
        dataset: The data.
        floating: The float model's main metric.
    """

    def __init__(
        self,
        ready: ResolvedModel,
        request: Request,
        data: str,
        limit: int | None,
        report: ProgressReporter,
    ) -> None:
        self._limit, self._report = limit, report
        runs_float = part(ready, "onnx", request, report)
        floating = Plan(ready.name, "onnx", {"model": runs_float}, ready.contract.head)
        self.dataset: Dataset = reference_data(
            data, task_of(ready.contract), floating, ready, limit, report
        )
        truth = evaluate_plan(floating, self.dataset, limit=limit, report=report)
        if truth.failed:
            self.dataset = self.dataset.without({Path(failure.file) for failure in truth.failed})
        self.floating = truth.main

    def of(self, candidate: Candidate) -> float | None:
        """The metric of a candidate; None where nothing measures it, with a note why."""
        if candidate.trial is None:
            return None
        try:
            return self.value(*candidate.trial)
        except RkzooError as error:
            self._report.note(f"{candidate.what}: it cannot be measured. {error.reason}")
            return None

    def value(self, request: Request, ready: ResolvedModel) -> float:
        """The main metric of a model as the request has it built. Raises RkzooError."""
        request = calibrated_on(self.dataset, request, self._limit, [], ready.tuned)
        built = part(ready, "simulator", request, self._report)
        planned = Plan(ready.name, built.backend.label, {"model": built}, ready.contract.head)
        evaluation = evaluate_plan(planned, self.dataset, limit=self._limit, report=self._report)
        return float(evaluation.main.value)
