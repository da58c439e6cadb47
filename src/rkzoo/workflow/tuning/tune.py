"""INT8 tuning: tries quantization settings, cheapest first, and measures each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from rkzoo.accuracy.agreement import agreement, check_agreement
from rkzoo.accuracy.dataset import Dataset, TruthSource, halves, open_dataset, require_data
from rkzoo.accuracy.metric import Drop, Metric, drop_of
from rkzoo.accuracy.resampling import FEW
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.read import load_structure
from rkzoo.json_values import to_json_value
from rkzoo.progress import SILENT, Failure, ProgressReporter
from rkzoo.session import Label
from rkzoo.soc.chips import resolve as chip_name
from rkzoo.soc.chips import same_family
from rkzoo.spelling import unknown
from rkzoo.tasks.registry import validate_options
from rkzoo.toolkit import environment
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import DEFAULT_VERSION, Algorithm
from rkzoo.vision.image import SUFFIXES, read
from rkzoo.workflow.compile.simulate import simulate_in
from rkzoo.workflow.compile.text_calibration import line_pictures
from rkzoo.workflow.evaluation.evaluate import (
    STANDARD,
    Evaluation,
    Runner,
    against_float,
    answer_all,
    evaluate_plan,
    refuse_classes,
    spread,
    task_of,
)
from rkzoo.workflow.evaluation.jobs import (
    Done,
    EvaluationJob,
    Piece,
    answer_of,
    answered,
    decoder_of,
)
from rkzoo.workflow.evaluation.plain_samples import AGREEMENT, TENSORS, open_samples
from rkzoo.workflow.inference.backend import runtime_of
from rkzoo.workflow.inference.load import task_with
from rkzoo.workflow.inference.plan import Plan, as_answered, part
from rkzoo.workflow.request.calibration import evenly, from_files
from rkzoo.workflow.request.calibration_sampling import farthest, picked
from rkzoo.workflow.request.models import find_model
from rkzoo.workflow.request.quantization import (
    QuantizationConfig,
    TunedRecipe,
    of_card,
    write_recipe,
)
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.workflow.tuning.mixed_precision import Layer, branches, cycles, layers_of, ranked
from rkzoo.zoo.catalogue import card_of_file
from rkzoo.zoo.schema import PICKED

_USUAL_PICTURES = 20
_MANY_PICTURES = 100
# Maximum number of float layers, doubled from one.
_FIRST, _WORST = 8, 16


@dataclass(frozen=True)
class Setting:
    """A quantization setting. `pictures` are calibration images, None where rkzoo makes them or
    none are given as files; `picking` describes their selection.
    """

    quantise: QuantizationConfig
    pictures: tuple[Path, ...] | None = None
    picking: str = ""


@dataclass(frozen=True)
class TuningTrial:
    """A measured setting.

    Attributes:
        stage, change: stage of the search, and what was changed.
        value: main metric.
        drop: points below float (negative: better).
        cost: compiler cycles relative to the same without float layers; None where there are none,
            or where it is not counted (the toolkit's own hybrid).
        kept: better than all before.
        interval: ends of the drop's 95 % interval; None where it was not resampled.
        metric: the main metric itself.
    """

    stage: str
    change: str
    setting: Setting
    value: float
    drop: float
    cost: float | None
    seconds: float
    kept: bool
    interval: tuple[float, float] | None = None
    metric: Metric | None = field(default=None, repr=False, compare=False)

    @property
    def highest(self) -> float:
        """The upper end of the drop's interval; the drop itself where there is none."""
        return self.drop if self.interval is None else self.interval[1]

    def to_json(self) -> dict[str, Any]:
        """Trial as JSON types."""
        fields = {
            "stage": self.stage,
            "change": self.change,
            "quantise": self.setting.quantise,
            "pictures": self.setting.picking,
            "value": self.value,
            "drop": self.drop,
            "drop_interval": self.interval,
            "cost": self.cost,
            "seconds": round(self.seconds, 1),
            "kept": self.kept,
        }
        document: dict[str, Any] = to_json_value(fields)
        return document


@dataclass(frozen=True)
class Held:
    """What was found by a search, on pictures that it has not seen.

    Attributes:
        dataset: what they are.
        metric: main metric of the float model there.
        plain, best: main metric of the first trial and of the best.
    """

    dataset: str
    images: int
    metric: Metric
    plain: Metric
    best: Metric

    @property
    def plain_drop(self) -> Drop:
        """How far the first trial lies below float."""
        return drop_of(self.metric, self.plain)

    @property
    def best_drop(self) -> Drop:
        """How far the best trial lies below float."""
        return drop_of(self.metric, self.best)

    @property
    def gain(self) -> Drop:
        """How far the first trial lies below the best."""
        return drop_of(self.best, self.plain)

    @property
    def worse(self) -> bool:
        """Whether what was best for the search's pictures is worse than the first trial here."""
        return self.gain.points < 0

    def to_json(self) -> dict[str, Any]:
        """Figures as JSON types."""
        drops = (("plain", self.plain_drop), ("best", self.best_drop), ("gain", self.gain))
        fields = {
            "dataset": self.dataset,
            "images": self.images,
            "float": self.metric.value,
            "plain": self.plain.value,
            "best": self.best.value,
            **{f"{name}_drop": drop.points for name, drop in drops[:2]},
            **{f"{name}_drop_interval": drop.interval for name, drop in drops[:2]},
            "gain": self.gain.points,
            "gain_interval": self.gain.interval,
        }
        document: dict[str, Any] = to_json_value(fields)
        return document


@dataclass(frozen=True)
class TuningResult:
    """Result of a search.

    Attributes:
        truth: origin of the ground truth.
        images: number of pictures that were searched with, which the trials' figures are of.
        metric: main metric of the float model.
        max_drop: allowed drop in points.
        trials: all trials in order.
        recipe: the best setting, for `convert`.
        stages: stages that the search was limited to; empty for all.
        runtime: what measured INT8.
        hardware: chip, driver and library of the board that did, if one did.
        held: the figures on the pictures that were held back; None where there were too few.
        others: the figures on further data; without `hold_back` first on each of HALVES.
    """

    model: str
    dataset: str
    truth: TruthSource
    images: int
    soc: str
    toolkit: str
    metric: Metric
    max_drop: float
    trials: tuple[TuningTrial, ...]
    recipe: TunedRecipe
    stages: tuple[str, ...] = ()
    runtime: Label = "simulator"
    hardware: str = ""
    held: Held | None = None
    others: tuple[Held, ...] = ()

    @property
    def best(self) -> TuningTrial:
        """The trial that the recipe is made of: the best, or the first where the best does worse
        than that on the pictures held back."""
        return _accepted(self.trials, self.held)

    @property
    def drop(self) -> Drop:
        """Drop of the best trial: on the pictures held back, if there are some."""
        if self.held is None:
            return Drop(self.best.drop, self.best.interval, self.images)
        return self.held.plain_drop if self.held.worse else self.held.best_drop

    @property
    def reached(self) -> bool:
        """Whether the drop is within `max_drop`, up to the end of its interval."""
        return self.drop.highest <= self.max_drop

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the recipe, which `convert` and `load` take as `recipe`. Raises RkzooError."""
        target = Path(path)
        write_recipe(target, self.recipe)
        return target

    def to_json(self) -> dict[str, Any]:
        """Result as JSON types; values that are not finite become null."""
        document: dict[str, Any] = to_json_value(self._document())
        return document

    def _document(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "dataset": self.dataset,
            "truth": self.truth,
            "images": self.images,
            "soc": self.soc,
            "toolkit": self.toolkit,
            "runtime": self.runtime,
            "hardware": self.hardware,
            "metric": self.metric.name,
            "float": self.metric.value,
            "max_drop": self.max_drop,
            "stages": list(self.stages),
            "reached": self.reached,
            "drop": self.drop.points,
            "drop_interval": self.drop.interval,
            "held": self.held and self.held.to_json(),
            "others": [other.to_json() for other in self.others],
            "best": self.best.to_json(),
            "trials": [trial.to_json() for trial in self.trials],
            "recipe": self.recipe,
        }


def _last_kept(trials: Sequence[TuningTrial]) -> TuningTrial:
    """The best trial: only improvements are kept."""
    return [trial for trial in trials if trial.kept][-1]


def _accepted(trials: Sequence[TuningTrial], held: Held | None) -> TuningTrial:
    return trials[0] if held is not None and held.worse else _last_kept(trials)


def _check_stages(stages: Sequence[str] | None) -> None:
    known = (*STAGES, FLOAT_LAYERS)
    for name in stages or ():
        if name not in known:
            raise unknown(
                f"There is no stage {name!r}.",
                f"The search has the stages {', '.join(known)}.",
                name,
                known,
                "Name some of them, separated by commas, or leave --stages out.",
            )


def _check_drop(points: float) -> None:
    if not isfinite(points):
        raise RkzooError(
            f"{points} is not a valid drop.",
            "It is how far below float INT8 may lie.",
            "Give e.g. --max-drop 1.",
        )


def tune(
    model: str,
    data: str,
    soc: str,
    *,
    request: Request | None = None,
    max_drop: float = 1.0,
    limit: int | None = None,
    workers: int = 1,
    stages: Sequence[str] | None = None,
    hold_back: bool = True,
    others: Sequence[str] = (),
    tell: Callable[[TuningTrial], None] = lambda trial: None,
    report: ProgressReporter = SILENT,
) -> TuningResult:
    """Search until INT8 on the simulator, or on the board that `request.on` names, is at most
    `max_drop` points below float, up to the end of the drop's 95 % interval.

    One half of the pictures is searched with, and calibrated on where there are no others; what
    was found is then measured on the other half, and kept only if it is better there, too.
    Measurements of earlier searches are reused.

    Args:
        model: card name or file.
        data: dataset as for `evaluate`, or a folder of images without ground truth, for which the
            float model's results serve as reference.
        soc: target chip.
        request: options of the model.
        max_drop: allowed drop in points.
        limit: use only the first images.
        workers: number of processes.
        stages: limits the search to these STAGES.
        hold_back: search with one half; False: with all, where nothing is searched for and what
            matters is the last trial, be it better or not.
        others: further data that the result is measured on.
        tell: called with each trial.
        report: receives progress.

    Raises:
        RkzooError: unknown stage, fp16, or a model or dataset that cannot be used.
    """
    soc = chip_name(soc)
    _check_stages(stages)
    _check_drop(max_drop)
    request = request or Request()
    refuse_classes(request)
    if request.dtype in ("fp16", "w4a16"):
        raise RkzooError(
            f"There is nothing to tune in {_FORMATS[request.dtype]}.",
            "What is searched are settings of INT8.",
            "Leave --dtype out, or convert with it: rkzoo convert MODEL --soc CHIP --dtype "
            f"{request.dtype}",
        )
    request = replace(request, chip=soc)
    ready = find_model(model, request, report)
    validate_options(ready.contract.head, request.given())
    if ready.card is not None and "int8" not in ready.dtypes:
        report.note(f"The card of {ready.name} does not offer INT8; it is tried all the same.")
        ready = replace(ready, dtypes=("int8", *ready.dtypes))
    task = task_of(ready.contract)
    head, head_labels = ready.contract.head, ready.contract.labels
    floating = Plan(ready.name, "onnx", {"model": part(ready, "onnx", request)}, head)
    with ExitStack() as stack:
        if request.on is not None:
            require_data(data)  # before a board is waited for
            _check_chip(request.on, soc)
        dataset = reference_data(data, task, floating, ready, limit, report)
        spare = dataset.items[limit:] if limit else ()
        if limit is not None and limit < len(dataset.items):
            dataset = dataset.take(range(limit))
        dataset, held = _split(dataset, report) if hold_back else (dataset, None)
        truth = evaluate_plan(floating, dataset, report=report)
        if truth.failed:
            dataset = dataset.without({Path(failure.file) for failure in truth.failed})
        search = _Search(ready, request, dataset, truth.main, spare, soc, report)
        search.tell = tell
        process = None
        if workers == 1:
            env = environment.ensure(request.toolkit or DEFAULT_VERSION, report=report)
            process = stack.enter_context(ToolkitProcess(env, report=report))
        on_board = request.on is not None
        search.runner = in_process(process) if process and not on_board else spread(workers)
        search.run(max_drop, stages, process)
        chosen = search.best if hold_back else search.trials[-1].setting
        further = [open_dataset(other, task, head_labels) for other in others]
        result = search.result(
            max_drop,
            truth.images,
            search.on_unseen(floating, held, chosen) if held else None,
            [
                *(() if hold_back else search.halves()),
                *(search.on_unseen(floating, other, chosen) for other in further),
            ],
        )
        return replace(result, stages=tuple(stages or ()))


def _split(dataset: Dataset, report: ProgressReporter) -> tuple[Dataset, Dataset | None]:
    """The pictures to search with, and those to hold back: half and half."""
    first, second = halves(dataset.items)
    if dataset.kind == "pairs":
        report.note("Pairs of pictures are not split: what is found is measured on the same pairs.")
        return dataset, None
    if len(second) < FEW:
        report.note(
            f"{len(dataset.items)} are too few to hold some back (each half needs {FEW}): what is "
            "found is measured on the pictures that it was searched with, which flatters it."
        )
        return dataset, None
    other = replace(dataset.take(second), name=f"{dataset.name}, other half", missing=())
    return dataset.take(first), other


def _check_chip(on: str, soc: str) -> None:
    """Raises RkzooError where the board at an address is of another chip; one that tells none is
    taken for what is asked for."""
    from rkzoo.remote.boards import board
    from rkzoo.workflow.inference.remote_backend import known_chip

    chip = known_chip(board(on).hello)
    if chip is not None and not same_family(chip, soc):
        raise RkzooError(
            f"{on} cannot measure what is built for {soc}.",
            f"Its chip is {chip}.",
            f"Give --soc {chip}, or leave --on out.",
        )


def in_process(process: ToolkitProcess) -> Runner:
    """Runner that uses one existing toolkit process for all builds."""

    def run(job: EvaluationJob, pieces: Sequence[Piece], report: ProgressReporter) -> Done:
        part = job.plan.parts["model"]
        session = as_answered(part, simulate_in(process, part.built))
        task = task_with(part.answers, session, job.options)
        return answered(answer_of(task, decoder_of(job)), pieces)

    return run


@dataclass
class _Search:
    """Coordinate descent: each stage starts from the best setting so far, and keeps
    improvements.
    """

    ready: ResolvedModel
    request: Request
    dataset: Dataset
    metric: Metric
    spare: Sequence[Path]  # pictures that are not scored, to calibrate on
    soc: str
    report: ProgressReporter
    runner: Runner = field(default_factory=spread)
    tell: Callable[[TuningTrial], None] = lambda trial: None
    trials: list[TuningTrial] = field(default_factory=list)
    runtime: Label = "simulator"
    hardware: str = ""

    @property
    def best(self) -> Setting:
        return _last_kept(self.trials).setting

    @property
    def drop(self) -> float:
        return _last_kept(self.trials).drop

    def within(self, max_drop: float) -> bool:
        """Whether the best drop is small enough, up to the end of its interval."""
        return _last_kept(self.trials).highest <= max_drop

    def run(
        self, max_drop: float, stages: Sequence[str] | None, process: ToolkitProcess | None
    ) -> None:
        words = "as the toolkit does it" if self.request.plain else "as convert does it"
        self.measure("start", words, Setting(self.ready.quantise, *_first_pictures(self)))
        for name, candidates in STAGES.items():
            if stages is not None and name not in stages:
                continue
            if self.within(max_drop):
                return
            for change, setting in candidates(self):
                if setting not in [trial.setting for trial in self.trials]:
                    self.measure(name, change, setting, self.cost(setting, process))
                if self.within(max_drop):
                    return
        if process is not None and (stages is None or FLOAT_LAYERS in stages):
            self.keep_layers_in_float(max_drop, process)

    def measure(
        self, stage: str, change: str, setting: Setting, cost: float | None = None
    ) -> TuningTrial | None:
        """Measure a setting; None, with a note, where the toolkit cannot build it."""
        began = time.perf_counter()
        try:
            evaluation = self.evaluated(setting, self.dataset)
        except RkzooError as error:
            if not self.trials:
                raise
            self.report.note(f"{stage}, {change}: cannot be built. {error.what} {error.why}")
            return None
        self.runtime, self.hardware = evaluation.runtime, evaluation.hardware
        main = evaluation.main
        drop = drop_of(self.metric, main)
        trial = TuningTrial(
            stage,
            change,
            setting,
            main.value,
            drop.points,
            cost,
            time.perf_counter() - began,
            not self.trials or drop.points < self.drop,
            drop.interval,
            main,
        )
        self.trials.append(trial)
        self.tell(trial)
        return trial

    def evaluated(self, setting: Setting, dataset: Dataset) -> Evaluation:
        return evaluate_plan(
            self.plan(setting, runtime_of(self.request, "simulator")),
            dataset,
            runner=self.runner,
            report=self.report,
        )

    def halves(self) -> Iterator[Held]:
        """The first trial and the last on each half of the pictures, if there are enough."""
        first, last = self.trials[0].metric, self.trials[-1].metric
        parts = halves(self.dataset.items)
        rows = self.metric.resampled.rows if self.metric.resampled else 0
        if first is None or last is None or rows != sum(map(len, parts)) or len(parts[1]) < FEW:
            return
        for name, kept in zip(HALVES, parts, strict=True):
            metrics = (metric.part(kept) for metric in (self.metric, first, last))
            yield Held(name, len(kept), *metrics)

    def on_unseen(self, floating: Plan, dataset: Dataset, chosen: Setting) -> Held:
        """The first trial and another setting on other pictures."""
        whole = evaluate_plan(floating, dataset, report=self.report)
        if whole.failed:
            dataset = dataset.without({Path(failure.file) for failure in whole.failed})
        first = self.evaluated(self.trials[0].setting, dataset).main
        plain = chosen == self.trials[0].setting
        best = first if plain else self.evaluated(chosen, dataset).main
        return Held(dataset.name, whole.images, whole.main, first, best)

    def cost(self, setting: Setting, process: ToolkitProcess | None) -> float | None:
        """Compiler cycles relative to the same without float layers; None without such."""
        if process is None or not setting.quantise.float_layers:
            return None
        base = self.plan(_changed(setting, float_layers=())).parts["model"].built
        return cycles(process, self.plan(setting).parts["model"].built) / cycles(process, base)

    def plan(self, setting: Setting, runtime: str = "simulator") -> Plan:
        ready = self.ready.quantised(setting.quantise)
        pictures = from_files(setting.pictures) if setting.pictures else self.request.pictures
        request = replace(self.request, calibration=pictures, dtype="int8")
        built = part(ready, runtime, request, _Quiet(self.report))
        return Plan(self.ready.name, built.backend.label, {"model": built}, ready.contract.head)

    def keep_layers_in_float(self, max_drop: float, process: ToolkitProcess) -> None:
        """Layers in float16: one branch of the head, from the input on, then by damage per cost."""
        base = _changed(self.best, auto_hybrid=False, float_layers=())
        build = self.plan(base).parts["model"].built
        layers = layers_of(process, build, self.report)
        usual = cycles(process, build)

        def tried(words: str, chosen: Sequence[Layer], kept: tuple[str, ...]) -> bool:
            """Measure; True when the drop is small enough."""
            more = (name for layer in chosen for name in layer.tensors)
            setting = _changed(base, float_layers=tuple(dict.fromkeys((*kept, *more))))
            hybrid = self.plan(setting).parts["model"].built
            cost = cycles(process, hybrid) / usual
            change = f"{len(chosen)} of {len(layers)} layers in float16, {words}"
            self.measure(FLOAT_LAYERS, change, setting, cost)
            return self.within(max_drop)

        for role, branch in branches(layers, load_structure(build.onnx), self.roles).items():
            if tried(f"the branch of {role}", branch, self.best.quantise.float_layers):
                return
        for words, order, most in (
            # Errors of the first layers propagate to all others, however small they look there:
            # the first two recover four fifths of what yolox_nano loses.
            ("the first", layers, _FIRST),
            ("and the worst for their cost", ranked(layers), _WORST),
        ):
            count, kept = 1, self.best.quantise.float_layers
            while count <= min(most, len(order)):
                if tried(words, order[:count], kept):
                    return
                count *= 2

    @property
    def roles(self) -> dict[str, str]:
        """Roles of the outputs of a detection head, by name."""
        head = self.ready.quantised(self.best.quantise).contract.head
        outputs = head.outputs if isinstance(head, DetectHead) else ()
        return {output.name: output.role for output in outputs}

    def result(
        self,
        max_drop: float,
        images: int,
        held: Held | None = None,
        others: Sequence[Held] = (),
    ) -> TuningResult:
        toolkit = self.request.toolkit or DEFAULT_VERSION
        best = _accepted(self.trials, held)
        calibration_images = self.request.pictures
        files = best.setting.pictures or ()
        recipe = TunedRecipe(
            model=self.ready.name,
            sha256=self.ready.source.sha256,
            toolkit=toolkit,
            quantise=best.setting.quantise,
            calibration=tuple(str(file.resolve()) for file in files)
            or (calibration_images.names if calibration_images else ()),
            measured={
                "runtime": self.runtime,
                "dataset": self.dataset.name,
                "images": images,
                "metric": self.metric.name,
                "float": self.metric.value,
                "int8": best.value,
                "drop": best.drop,
                **_measured_unseen(held),
            },
        )
        return TuningResult(
            self.ready.name,
            self.dataset.name,
            self.dataset.source,
            images,
            self.soc,
            toolkit,
            self.metric,
            max_drop,
            tuple(self.trials),
            recipe,
            runtime=self.runtime,
            hardware=self.hardware,
            held=held,
            others=tuple(others),
        )


def _measured_unseen(held: Held | None) -> dict[str, float | int | None]:
    """What a recipe's file says of the pictures held back."""
    if held is None:
        return {}
    drop = held.plain_drop if held.worse else held.best_drop
    low, high = drop.interval or (None, None)
    return {
        "unseen_images": held.images,
        "unseen_drop": drop.points,
        "unseen_drop_low": low,
        "unseen_drop_high": high,
    }


class _Quiet:
    """Reporter that shows bars but no notes, which every trial would repeat."""

    def __init__(self, report: ProgressReporter) -> None:
        self.task, self.failed = report.task, report.failed

    def note(self, message: str) -> None:
        pass


HALVES = ("one half", "the other half")
FLOAT_LAYERS = "float-layers"
Candidates = Iterator[tuple[str, Setting]]


def _changed(setting: Setting, **values: Any) -> Setting:
    return replace(setting, quantise=msgspec.structs.replace(setting.quantise, **values))


def _shipped(search: _Search) -> Candidates:
    """What `convert` does by default: the recipe of the model's card, else rkzoo's own ranges."""
    card = search.ready.card or card_of_file(search.ready.source.sha256)
    if card is None or card.int8 is None:
        yield OWN_RANGES, _changed(search.best, algorithm=None)
        return
    recipe, toolkit = card.int8, search.request.toolkit or DEFAULT_VERSION
    config, left_out = of_card(recipe, search.ready.source.sha256, toolkit)
    setting = replace(search.best, quantise=config)
    pool = _pool(search)
    if recipe.pictures and setting.pictures is not None and len(pool) > len(setting.pictures):
        taken = picked(recipe, from_files(pool), search.report).rows
        words = f"{len(taken)} pictures {PICKED[recipe.pictures]}"
        setting = replace(setting, pictures=tuple(row[0] for row in taken), picking=words)
    if left_out:
        search.report.note(left_out)
    if config.float_layers:
        yield WITHOUT_LAYERS, _changed(setting, float_layers=())
    yield recipe.words(), setting


def _head_forms(search: _Search) -> Candidates:
    recognition = search.ready.recognition
    if recognition is None or not isinstance(search.ready.contract.head, DetectHead):
        return
    if search.best.quantise.head == "uncut":
        yield "head cut off, scores after their sigmoid", _changed(search.best, head="sigmoid")
    if isinstance(recognition.contract.head, DetectHead) and recognition.contract.head.activated:
        yield "scores leave as logits", _changed(search.best, head="logits")
        yield "scores leave as bounded logits", _changed(search.best, head="bounded")


def _algorithms(*names: Algorithm) -> Callable[[_Search], Candidates]:
    def candidates(search: _Search) -> Candidates:
        for name in names:
            if (search.best.quantise.algorithm or search.ready.algorithm) != name:
                yield f"algorithm {name}", _changed(search.best, algorithm=name)

    return candidates


def _methods(search: _Search) -> Candidates:
    yield "one weight scale a layer", _changed(search.best, method="layer")


def _pictures(search: _Search) -> Candidates:
    if isinstance(search.ready.contract.head, TensorsHead):
        return  # how unlike they are is known of pictures only
    pool = _pool(search)
    if len(pool) <= _USUAL_PICTURES:
        return
    for count in (_USUAL_PICTURES, _MANY_PICTURES):
        chosen = tuple(farthest(pool, count, search.report))
        words = f"{len(chosen)} pictures as unlike as possible"
        yield words, replace(search.best, pictures=chosen, picking=words)
        if len(pool) <= count:
            return
    chosen = tuple(evenly(pool, _MANY_PICTURES))
    words = f"{len(chosen)} pictures at equal distances"
    yield words, replace(search.best, pictures=chosen, picking=words)


def _automatic(search: _Search) -> Candidates:
    yield "the toolkit's own hybrid", _changed(search.best, auto_hybrid=True)


SHIPPED = "shipped"
"""Stage that tries the recipe that the model's card comes with."""
OWN_RANGES = "INT8 ranges of rkzoo's own"
WITHOUT_LAYERS = "the recipe of the card, without its layers in float16"
STAGES: dict[str, Callable[[_Search], Candidates]] = {
    SHIPPED: _shipped,
    "head-form": _head_forms,
    "algorithm": _algorithms("mse", "normal", "kl_divergence"),
    "method": _methods,
    "pictures": _pictures,
    "slow-algorithm": _algorithms("mmse"),
    "toolkit-hybrid": _automatic,
}
"""Cheapest first; followed by FLOAT_LAYERS."""


_MOST_COMPARED = 1000  # pictures that are looked at for those that differ most


def _pool(search: _Search) -> Sequence[Path]:
    """The pictures that calibration may choose from: those given, else what is not scored."""
    calibration_images = search.request.pictures
    if calibration_images is not None:
        files = [Path(name) for name in calibration_images.names]
        return evenly(files, search.request.calibration_count or _MOST_COMPARED)
    return search.spare or search.dataset.items


def _first_pictures(search: _Search) -> tuple[tuple[Path, ...] | None, str]:
    if search.ready.card is not None and search.ready.card.task.startswith("text"):
        return None, "as the card says"
    tensors = isinstance(search.ready.contract.head, TensorsHead)
    if tensors and search.request.pictures is not None:
        return None, "as given"
    pool = _pool(search)
    chosen = tuple(evenly(pool, _USUAL_PICTURES))
    return chosen, f"{len(chosen)} pictures at equal distances"


def reference_data(
    data: str,
    task: str,
    floating: Plan,
    ready: ResolvedModel,
    limit: int | None,
    report: ProgressReporter,
) -> Dataset:
    """The dataset; for a folder of images alone, the float model's results serve as ground
    truth.
    """
    folder = Path(data).expanduser()
    labels = ready.contract.labels
    if task == TENSORS:
        report.note(f"{folder}: {AGREEMENT}.")
        return against_float(open_samples(data), floating, limit, spread(), report=report)
    items = _bare_pictures(folder)
    if not items or task == "plate":
        return open_dataset(data, task, labels)
    check_agreement(task)
    if task == "text-rec":
        items = line_pictures(ready.name, items, report)
    job = EvaluationJob(floating, STANDARD)
    answered, _ = answer_all(job, "", items[:limit], spread(), report=report)
    records = [record for record in answered if not isinstance(record, Failure)]
    readable = [
        item
        for item, record in zip(items, answered, strict=False)
        if not isinstance(record, Failure)
    ]
    for record in answered:
        if isinstance(record, Failure):
            report.failed(record)
    if not readable:
        read(items[0])  # raises what is wrong
    report.note(
        f"{folder} holds no answers: what the float model says counts as right. A figure of 100 % "
        "means equal to float, not free of errors."
    )
    return agreement(folder.name, readable, records, task, labels)


def _bare_pictures(folder: Path) -> list[Path]:
    """Images of a folder without ground truth: no label file, no class folders."""
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if any(path.is_dir() or path.suffix.lower() in _TRUTHS for path in files):
        return []
    return [path for path in files if path.suffix.lower() in SUFFIXES]


_FORMATS = {"fp16": "float16", "w4a16": "W4A16"}
_TRUTHS = (".json", ".yaml", ".yml", ".csv", ".tsv")
