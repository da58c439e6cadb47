"""Accuracy comparison of float, float16 and INT8 on the same images."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import BoxHead, Contract
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Array, Session
from rkzoo.soc.chips import chips
from rkzoo.soc.chips import resolve as chip_name
from rkzoo.tasks.detect.task import HeadTask
from rkzoo.tasks.detect.verdict import diagnose_outputs, output_statistics
from rkzoo.tasks.prompt.prompted import PromptedSession
from rkzoo.tasks.registry import spec_of
from rkzoo.tasks.spec import TaskOptions
from rkzoo.tasks.spec import TaskParts as OpenedParts
from rkzoo.tasks.text.open import page_reader
from rkzoo.tasks.text.result import TextLines
from rkzoo.toolkit.analysis import LayerError
from rkzoo.toolkit.process import SIMULATED_SOC, ToolkitProcess
from rkzoo.workflow.comparison.conclusions import (
    beyond_float16,
    calibrated,
    next_command,
    suspect_parts,
    verdict_text,
)
from rkzoo.workflow.comparison.diagnosis import (
    GOOD,
    ON_BOARD,
    Facts,
    Runtime,
    alone,
    causes,
    input_scale,
    like_float,
)
from rkzoo.workflow.comparison.far_board import Answered, comparing_board
from rkzoo.workflow.comparison.input_probe import probe
from rkzoo.workflow.comparison.kept_sessions import (
    Opened,
    float_graph,
    is_resized,
    open_on_board,
    open_sessions,
)
from rkzoo.workflow.comparison.matching import (
    Agreement,
    Matches,
    above,
    compared,
    disagrees,
    summed,
)
from rkzoo.workflow.comparison.planning import (
    board_plans,
    calibration_pictures,
    check_named,
    given_pictures,
    is_built,
    own_chip,
    plans,
    recipe_of,
)
from rkzoo.workflow.comparison.result import (
    BOARD_NOTE,
    NOTE,
    ComparedImage,
    Comparison,
    LayerComparison,
    RuntimeComparison,
)
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures, figures, over_pictures
from rkzoo.workflow.inference.font import font
from rkzoo.workflow.inference.load import answer_at
from rkzoo.workflow.inference.plan import Plan
from rkzoo.workflow.inference.remote_backend import chip_on
from rkzoo.workflow.request.request import PathName, Request

_LINES = 8  # text lines of a page whose tensors are compared


def compare(
    model: str,
    *,
    request: Request | None = None,
    soc: str = "",
    images: Sequence[PathName] = (),
    layers: bool = True,
    options: str = "",
    report: ProgressReporter = SILENT,
) -> Comparison:
    """Run a model in float and on the simulator, and diagnose the differences.

    With `on` of `request` a board runs it too, and is held against the simulator.
    `images` as the model takes them (pictures, .npy, .npz, NAME=FILE), or three of the calibration
    samples. The dtype of `request` leaves the other number format out; its confidence (0.25) is
    the threshold of objects. `layers`: INT8 layer by layer too, on the picture where its outputs
    are the worst, which takes yolov8n half a minute.
    `options` are repeated in the commands that are suggested. Raises RkzooError.
    """
    start = time.perf_counter()
    request = request or Request()
    chip = chip_name(soc) if soc else ""
    _check_dtype(chip, request.dtype)
    check_named(images)
    far = comparing_board(request.on, chip) if request.on else None
    if request.on and chip:
        request = replace(request, chip=chip)
    if request.on and not is_built(model):
        chip_on(request.on, model, chip)  # told before anything is built
    planned, skipped = plans(model, request, report)
    chip = chip or (far and far.hello.chip) or own_chip(planned) or SIMULATED_SOC
    on_board = board_plans(model, request, planned, report) if far else {}
    pictures = given_pictures(images, planned["onnx"], report)
    pictures = pictures or calibration_pictures(model, request, planned["onnx"], report)
    commands = _commands(model, chip, options, request.dtype)
    trial = _Trial(pictures, request.confidence, report, keeps=far is not None)
    ran, layered = [], []
    for runtime, runtime_plan in planned.items():
        with ExitStack() as stack:
            opened, processes = open_sessions(runtime_plan, runtime, stack, report)
            begun = time.perf_counter()
            variant = trial.run(runtime, runtime_plan, opened)
            ran.append(replace(variant, seconds=time.perf_counter() - begun))
            if runtime == "int8" and layers:
                layered += _layers(runtime_plan, processes, trial, ran[-1], skipped, report)
    for runtime, runtime_plan in on_board.items():
        assert far is not None  # it was planned for
        with ExitStack() as stack:
            opened, told = open_on_board(runtime_plan, planned["onnx"], stack, report)
            far.hear(told)
            begun = time.perf_counter()
            variant = trial.run(runtime, runtime_plan, opened, far.label)
            ran.append(replace(variant, seconds=time.perf_counter() - begun))
    found_causes = tuple(
        cause
        for role in planned["onnx"].parts
        for cause in causes(_facts(role, planned, ran, layered, trial, model, commands, report))
    )
    board = far.against(trial.answered) if far else None
    if far and board and board.differs:
        found_causes = (far.cause(board, planned["onnx"].name), *found_causes)
    recipe = recipe_of(planned)
    return Comparison(
        model=planned["onnx"].name,
        soc=chip,
        toolkit=recipe.toolkit,
        threshold=trial.threshold,
        pictures=tuple(picture.name for picture in pictures),
        ran=tuple(ran),
        layers=tuple(layered),
        causes=found_causes,
        skipped=tuple(dict.fromkeys(skipped)),
        verdict=verdict_text(ran, found_causes),
        next=next_command(ran, found_causes, commands),
        seconds=time.perf_counter() - start,
        board=board,
        note=BOARD_NOTE if board else NOTE,
    )


def _check_dtype(soc: str, dtype: str | None) -> None:
    """Raises RkzooError for a number format that the chip, which was named, does not have."""
    able = chips()[soc].dtypes if soc else ()
    if soc and dtype is not None and dtype not in able:
        have = [name for name, chip in chips().items() if dtype in chip.dtypes]
        raise RkzooError(
            f"{soc} cannot be built for in {dtype}.",
            f"It has {', '.join(able)}; {dtype} is for {', '.join(have)}.",
            f"Use --soc {have[0]}, or --dtype {able[0]}.",
        )


def _commands(model: str, soc: str, options: str, dtype: str | None) -> dict[str, str]:
    """Suggested commands for this model, with the given options."""
    tail = f" {options}" if options else ""
    name = shlex.quote(model)
    return {
        "compare": f"rkzoo compare {name} --soc {soc}{tail}",
        "convert": f"rkzoo convert {'MODEL' if is_built(model) else name} --soc {soc}{tail}",
        "tune": f"rkzoo tune {name} --soc {soc} --data SPEC{tail}",
        "inspect": f"rkzoo inspect {name} --image PICTURE",
        "eval": f"rkzoo eval {name} --data SPEC --runtime simulator{tail}"
        + (f" --dtype {dtype}" if dtype else ""),
    }


# ---- running it -----------------------------------------------------------------------------


_TITLES: dict[Runtime, str] = {
    "onnx": "Float",
    "fp16": "Float16",
    "int8": "INT8",
    "w4a16": "W4A16",
    "board_fp16": "Float16 of the board",
    "board_int8": "INT8 of the board",
    "board_w4a16": "W4A16 of the board",
}
Answering = Callable[[Any], Any]
Calls = list[tuple[list[Array], list[Array]]]


class _Trial:
    """Runs all images on one backend after another. Float comes first, and its results are kept."""

    def __init__(
        self,
        pictures: Sequence[ComparedImage],
        confidence: float | None,
        report: ProgressReporter,
        *,
        keeps: bool = False,
    ) -> None:
        """`keeps`: all outputs are kept in `answered`, to compare a board's with the
        simulator's."""
        self.pictures, self.report, self._keeps = pictures, report, keeps
        self.threshold = 0.25 if confidence is None else confidence
        self.warnings: dict[str, None] = {}
        # For each image: float's result, and each part's inputs with float's outputs.
        self.answers: list[Any] = []
        self.calls: list[dict[str, Calls]] = []
        self.named: dict[str, tuple[str, ...]] = {}
        self.answered: Answered = {}
        self.worst = 0

    def run(
        self, runtime: Runtime, planned: Plan, opened: Opened, label: str = ""
    ) -> RuntimeComparison:
        task, threshold = _task(planned, opened, self.threshold)
        self.threshold = threshold
        matches, counts, drawn = [], [], []
        rows: dict[tuple[str, int], list[OutputFigures]] = {}
        title = _TITLES[runtime]
        with self.report.task(f"{title} on the pictures", len(self.pictures), unit="pictures") as b:
            for index, picture in enumerate(self.pictures):
                prediction = None if task is None else task(picture.image)
                if task is None:
                    _run(planned, opened, picture.image)
                if runtime == "onnx":
                    self._remember(prediction, opened, task, picture.image)
                elif prediction is not None:
                    matches.append(compared(self.answers[index], prediction, threshold))
                if runtime != "onnx":
                    for key, row in self._against(index, runtime, planned, opened):
                        rows.setdefault(key, []).append(row)
                sure = None if prediction is None else above(prediction, threshold)
                counts.append(None if sure is None else len(sure))
                if sure is not None:
                    drawn.append(_drawn(sure, picture.image, self.report))
                for kept in opened.values():
                    kept.calls.clear()
                b.update(index + 1)
        if runtime in ("int8", "w4a16"):
            self.worst = _worst_picture(rows, matches, len(self.pictures))
        agreement = summed(matches) if matches else None
        outputs = tuple(over_pictures(output_figures) for _, output_figures in sorted(rows.items()))
        return RuntimeComparison(
            runtime=runtime,
            label=label or ("onnx" if runtime == "onnx" else "simulator"),
            counts=tuple(counts),
            outputs=outputs,
            matches=tuple(matches),
            agreement=agreement,
            hurt=runtime != "onnx" and _degraded(agreement, outputs),
            drawn=tuple(drawn),
        )

    def _remember(
        self, prediction: Any, opened: Opened, task: Answering | None, image: Any
    ) -> None:
        self.answers.append(prediction)
        self.calls.append(
            {role: list(kept.calls.values())[:_LINES] for role, kept in opened.items()}
        )
        self.named = {role: tuple(s.name for s in kept.outputs) for role, kept in opened.items()}
        if isinstance(task, HeadTask):
            outputs = task.session.run(task.preprocess(image)[0])
            seen = output_statistics(
                task.decoder, outputs, task.contract.input.size, self.threshold
            )
            self.warnings.update(dict.fromkeys(diagnose_outputs(seen, self.threshold, task.head)))

    def _against(
        self, index: int, runtime: Runtime, planned: Plan, opened: Opened
    ) -> list[tuple[tuple[str, int], OutputFigures]]:
        """Outputs of this backend for the same inputs as float."""
        rows_by_output = []
        for role, calls in self.calls[index].items():
            contract = planned.parts[role].contract
            names, kept = self.named[role], opened[role]
            several: dict[int, list[OutputFigures]] = {}
            for arrays, expected in calls:
                outputs = kept.run(arrays)
                for place, name, spec in _places(names, kept.outputs):
                    row = figures(
                        expected[place],
                        outputs[spec],
                        kept.outputs[spec],
                        name=name,
                        role=_role(contract, name, place),
                        part=role,
                    )
                    several.setdefault(place, []).append(row)
                    if self._keeps:
                        here = self.answered.setdefault(runtime, {})
                        one = here.setdefault((role, place), (name, kept.outputs[spec], []))
                        one[2].append(outputs[spec])
            rows_by_output += [
                ((role, place), over_pictures(rows)) for place, rows in several.items()
            ]
        return rows_by_output


def _places(names: Sequence[str], specs: Sequence[TensorSpec]) -> list[tuple[int, str, int]]:
    """Index of the output in float, its name, and its index in `specs`: by name, or by position
    where the toolkit has renamed the outputs.
    """
    known = {spec.name: place for place, spec in enumerate(specs)}
    by_name = all(name in known for name in names)
    return [
        (place, name, known[name] if by_name else place)
        for place, name in enumerate(names)
        if by_name or place < len(specs)
    ]


def _role(contract: Contract, name: str, place: int) -> str:
    head = contract.head
    if isinstance(head, BoxHead):
        by_name = {output.name: output.role for output in head.outputs}
        if name in by_name:
            return by_name[name]
        return head.outputs[place].role if place < len(head.outputs) else ""
    return spec_of(head).outputs


def _task(planned: Plan, opened: Opened, threshold: float) -> tuple[Answering | None, float]:
    """The task, and the score threshold of its items. The task is None where results are not
    compared."""
    sessions: dict[str, Session] = {}
    for role, part in planned.parts.items():
        kept: Session = opened[role]
        if part.prompts is not None:
            kept = PromptedSession(kept, part.contract, part.prompts)
        sessions[role] = kept
    if "model" not in planned.parts:
        return page_reader({r: (planned.parts[r].answers, s) for r, s in sessions.items()}), 0.0
    return answer_at(planned.parts["model"].answers, sessions["model"], threshold)


def _run(planned: Plan, opened: Opened, image: Any) -> None:
    """Run a single model whose results are not compared, for its outputs."""
    contract = planned.parts["model"].contract
    parts = OpenedParts(contract.head, {"model": (contract, opened["model"])}, {})
    spec_of(contract.head).open(parts, TaskOptions())(image)


def _drawn(prediction: Any, image: Any, report: ProgressReporter) -> bytes:
    from rkzoo.workflow.comparison.html_report import jpeg

    if isinstance(prediction, TextLines):
        return jpeg(prediction.draw(image, font(report)))
    return jpeg(prediction.draw(image))


def _worst_picture(
    rows: Mapping[tuple[str, int], Sequence[OutputFigures]],
    matches: Sequence[Matches],
    count: int,
) -> int:
    """Index of the image with the most lost or new items, then the lowest cosines."""
    # Cosines are at most 1 per output, so a lost item weighs more.
    lost = [len(match.lost) + len(match.new) for match in matches] or [0] * count
    sums = [-float(number * (len(rows) + 1)) for number in lost]
    for output_figures in rows.values():
        if len(output_figures) == count:
            for index, row in enumerate(output_figures):
                sums[index] += row.cosine or 0.0
    return sums.index(min(sums))


def _degraded(agreement: Agreement | None, outputs: Sequence[OutputFigures]) -> bool:
    """Whether results differ significantly; without results, whether the tensors do."""
    if any(not row.finite for row in outputs):
        return True
    if agreement is None or not agreement.things:
        return not like_float(outputs)
    return disagrees(agreement)


# ---- layer by layer -------------------------------------------------------------------------


def _layers(
    planned: Plan,
    processes: Mapping[str, ToolkitProcess],
    trial: _Trial,
    ran: RuntimeComparison,
    skipped: list[str],
    report: ProgressReporter,
) -> list[LayerComparison]:
    layer_comparisons = []
    for role, part in planned.parts.items():
        build = part.built
        if build.recipe.dtype != "int8" or build.recipe.quantised:
            continue
        index = next(
            (i for i in (trial.worst, *range(len(trial.pictures))) if trial.calls[i][role]), None
        )
        if index is None:
            continue
        arrays, _ = trial.calls[index][role][0]
        if is_resized(part):
            skipped.append(
                f"The layers of {role}: the toolkit compares them at the first size alone; leave "
                "--size out to see them."
            )
            continue
        try:
            rows = processes[role].analyse(build, arrays)
        except RkzooError as error:
            # Keep everything else that was measured.
            skipped.append(f"The layers of {role}: {error}")
            continue
        layer_comparisons.append(layers_of(role, trial.pictures[index].name, rows))
    return layer_comparisons


def layers_of(role: str, picture: str, rows: Sequence[LayerError]) -> LayerComparison:
    """Summarize the layer errors of one model."""
    known = [row for row in rows if row.cosine_entire is not None]
    first = next((row.tensor for row in known if (row.cosine_entire or 0) < GOOD), None)
    return LayerComparison(role, picture, tuple(rows), first, tuple(alone(rows)[:5]))


# ---- what it means --------------------------------------------------------------------------


def _facts(
    role: str,
    planned: Mapping[Runtime, Plan],
    ran: Sequence[RuntimeComparison],
    layered: Sequence[LayerComparison],
    trial: _Trial,
    model: str,
    commands: Mapping[str, str],
    report: ProgressReporter,
) -> Facts:
    from rkzoo.graph.onnx.read import parse

    part = planned["onnx"].parts[role]
    build = part.built
    single = role == "model"
    outputs: dict[str, list[OutputFigures]] = {
        variant.runtime: [row for row in variant.outputs if row.part == role]
        for variant in ran
        if variant.runtime in ON_BOARD
    }
    hurt = {variant.runtime for variant in ran if variant.hurt and role in suspect_parts(variant)}
    graph = float_graph(part)
    parsed = parse(graph)
    largest = smallest = None
    if "fp16" in hurt and trial.calls[0][role]:
        largest, smallest = beyond_float16(parsed, part.contract, trial.calls[0][role][0][0])
    better = None
    files = [picture.path for picture in trial.pictures if picture.path]
    if single and isinstance(part.contract.head, DetectHead) and not part.contract.others and files:
        better = probe(graph, part.contract, files, report).better
    return Facts(
        name=model if single else role,
        contract=part.contract,
        outputs=outputs,
        degraded=frozenset(hurt),
        layers=[
            row
            for layer_comparison in layered
            if layer_comparison.part == role
            for row in layer_comparison.rows
        ],
        warnings=tuple(trial.warnings) if single else (),
        better=better.image if better else None,
        gain=input_scale(parsed),
        largest=largest,
        smallest=smallest,
        calibrated=calibrated(build),
        algorithm=build.recipe.algorithm,
        commands=commands,
    )
