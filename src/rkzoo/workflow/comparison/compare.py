"""Where accuracy goes on the way to the NPU: float, float16 and INT8 on the same pictures."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import explained
from rkzoo.graph.rknn import reader as rknn
from rkzoo.progress import SILENT, Reporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.runtime.simulator import SimulatorSession, as_fed
from rkzoo.session import Array, Closing, Session
from rkzoo.soc.chips import resolve as chip_name
from rkzoo.tasks.detect.task import DetectOptions, HeadTask
from rkzoo.tasks.detect.verdict import look, verdict
from rkzoo.tasks.prompt.prompted import PromptedSession
from rkzoo.tasks.registry import spec_of
from rkzoo.tasks.spec import Opened as OpenedParts
from rkzoo.tasks.spec import TaskOptions
from rkzoo.tasks.text.open import page_reader
from rkzoo.tasks.text.result import TextLines
from rkzoo.toolkit import environment
from rkzoo.toolkit.analysis import LayerError
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.process import SIMULATED_SOC, ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan, Recipe
from rkzoo.vision.image import read
from rkzoo.workflow.comparison.diagnosis import (
    GOOD,
    Cause,
    Facts,
    Runtime,
    alone,
    causes,
    like_float,
    own_gain,
)
from rkzoo.workflow.comparison.input_probe import probe
from rkzoo.workflow.comparison.matching import (
    Agreement,
    Matches,
    above,
    compared,
    disagrees,
    summed,
)
from rkzoo.workflow.comparison.result import Comparison, Layers, Picture, Ran
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures, figures, over_pictures
from rkzoo.workflow.inference.font import font
from rkzoo.workflow.inference.load import answer_at
from rkzoo.workflow.inference.model import Image
from rkzoo.workflow.inference.plan import Asked, Part, Plan, check_pictures, part, plan, resolved
from rkzoo.workflow.request.resolve import is_pipeline
from rkzoo.workflow.request.sidecar import read_sidecar

PICTURES = 3  # of the calibration set, where none are given
MOST = 16  # pictures
_LINES = 8  # of a page, whose tensors are compared
_HALF: dict[str, Any] = {
    "dtype": "fp16",
    "algorithm": "normal",
    "method": "channel",
    "auto_hybrid": False,
    "float_layers": (),
}


def compare(
    model: str,
    *,
    asked: Asked | None = None,
    soc: str = "",
    images: Sequence[Path] = (),
    confidence: float | None = None,
    layers: bool = True,
    options: str = "",
    report: Reporter = SILENT,
) -> Comparison:
    """Runs a card's model, an `.onnx` or a `.rknn` in float and on the simulator.

    `images`, or three of the calibration pictures. `asked.dtype` leaves the other number format
    out. `confidence` (0.25) is the threshold of objects. `layers`: INT8 layer by layer too,
    on the picture where its outputs are the worst, which takes yolov8n half a minute.
    `options` are repeated in the commands that are suggested. Raises RkzooError.
    """
    start = time.perf_counter()
    asked = asked or Asked()
    chip = chip_name(soc) if soc else ""
    if confidence is not None:
        DetectOptions(confidence=confidence)  # refuses what is no threshold
    pictures = _given(images, report)
    planned, skipped = _planned(model, asked, report)
    chip = chip or _own_chip(planned) or SIMULATED_SOC
    pictures = pictures or _calibration(model, asked, planned["onnx"])
    commands = _commands(model, chip, options)
    trial = _Trial(pictures, confidence, report)
    ran, layered = [], []
    for runtime, one in planned.items():
        with ExitStack() as stack:
            opened, processes = _open(one, runtime, stack, report)
            begun = time.perf_counter()
            done = trial.run(runtime, one, opened)
            ran.append(replace(done, seconds=time.perf_counter() - begun))
            if runtime == "int8" and layers:
                layered += _layers(one, processes, trial, ran[-1], skipped, report)
    found = tuple(
        cause
        for role in planned["onnx"].parts
        for cause in causes(_facts(role, planned, ran, layered, trial, model, commands, report))
    )
    recipe = _recipe(planned)
    return Comparison(
        model=planned["onnx"].name,
        soc=chip,
        toolkit=recipe.toolkit,
        threshold=trial.threshold,
        pictures=tuple(picture.name for picture in pictures),
        ran=tuple(ran),
        layers=tuple(layered),
        causes=found,
        skipped=tuple(dict.fromkeys(skipped)),
        verdict=_verdict(ran, found),
        next=_next(ran, found, commands),
        seconds=time.perf_counter() - start,
    )


# ---- what is to be run ----------------------------------------------------------------------


def _given(images: Sequence[Path], report: Reporter) -> tuple[Picture, ...]:
    if len(images) > MOST:
        report.note(f"The first {MOST} of {len(images)} pictures are compared.")
    return tuple(Picture(path.name, read(path), path) for path in images[:MOST])


def _planned(model: str, asked: Asked, report: Reporter) -> tuple[dict[Runtime, Plan], list[str]]:
    """A plan for each runtime, float first, and what was left out."""
    skipped: list[str] = []
    wanted = asked.dtype
    base = _base(model, replace(asked, runtime="simulator"), skipped, report)
    check_pictures(base, "compare")
    plans: dict[Runtime, Plan] = {"onnx": replace(base, label="onnx")}
    recipes = [one.build.recipe for one in base.parts.values() if one.build]
    if any(recipe.quantised for recipe in recipes):
        skipped.append("float16: the model came quantised, with INT8 scales of its own.")
    elif wanted != "int8":
        plans["fp16"] = replace(base, parts={r: _half(p) for r, p in base.parts.items()})
    else:
        skipped.append("float16: only INT8 was asked for.")
    if wanted != "fp16" and any(recipe.dtype == "int8" for recipe in recipes):
        plans["int8"] = base
    return plans, skipped


def _base(model: str, asked: Asked, skipped: list[str], report: Reporter) -> Plan:
    """What is built: INT8 wherever a model can have it."""
    if Path(model).suffix.lower() == ".rknn":
        found = plan(model, asked, report)
        if all(one.build and one.build.recipe.dtype == "fp16" for one in found.parts.values()):
            skipped.append(f"INT8: {Path(model).name} was built in float16.")
        return found
    if is_pipeline(model) is not None:
        found = plan(model, asked, report)
        for role, one in found.parts.items():
            if one.build and one.build.recipe.dtype == "fp16" and asked.dtype != "fp16":
                skipped.append(f"INT8 of {role}: its card keeps it in float16.")
        return found
    ready = resolved(model, asked, report)
    dtype = asked.dtype or ("int8" if "int8" in ready.dtypes else ready.dtypes[0])
    if dtype != "int8":
        why = f"its card allows {', '.join(ready.dtypes)} only"
        skipped.append(f"INT8: {'only float16 was asked for' if asked.dtype else why}.")
    made = part(ready, "simulator", replace(asked, dtype=dtype), report)
    return Plan(ready.name, "simulator", {"model": made})


def _half(one: Part) -> Part:
    """The same in float16, which needs no calibration."""
    if one.build is None:
        raise RkzooError("There is nothing to build.", code=1)
    recipe = msgspec.structs.replace(one.build.recipe, **_HALF)
    return replace(one, build=replace(one.build, recipe=recipe, calibration=None))


def _recipe(planned: Mapping[Runtime, Plan]) -> Recipe:
    return _build(next(iter(planned["onnx"].parts.values()))).recipe


def _build(one: Part) -> BuildInputs:
    if one.build is None:
        raise RkzooError("There is nothing to build.", code=1)
    return one.build


def _own_chip(planned: Mapping[Runtime, Plan]) -> str:
    return _recipe(planned).soc


def _calibration(model: str, asked: Asked, base: Plan) -> tuple[Picture, ...]:
    """The first calibration pictures: the files themselves, or what the model sees of them."""
    path = Path(model)
    files: Sequence[str] = ()
    if asked.pictures is not None:
        source = asked.pictures
        files = source.names if len(source.names) == len(source) else ()
    elif path.suffix.lower() == ".rknn":
        files = read_sidecar(path).calibration.files
    there = [Path(name) for name in files if Path(name).is_file()][:PICTURES]
    if there:
        return tuple(Picture(file.name, read(file), file) for file in there)
    first = next(iter(base.parts.values()))
    build = _build(first)
    if build.calibration is None:
        raise RkzooError(
            "There is no picture to compare on.",
            "Without INT8 there are no calibration pictures to take.",
            "Give some with --image.",
        )
    with explained("The calibration pictures cannot be read from the cache."):
        stack = np.load(build.calibration / "calibration-0.npy", mmap_mode="r")
        arrays = [np.array(one) for one in islice(stack, PICTURES)]
    order = slice(None, None, -1 if first.contract.input.color == "RGB" else 1)
    return tuple(
        Picture(f"calibration picture {number + 1}", np.ascontiguousarray(one[..., order]))
        for number, one in enumerate(arrays)
    )


def _commands(model: str, soc: str, options: str) -> dict[str, str]:
    """What to type next, for this model with what was said about it."""
    tail = f" {options}" if options else ""
    name = shlex.quote(model)
    return {
        "compare": f"rkzoo compare {name} --soc {soc}{tail}",
        "tune": f"rkzoo tune {name} --soc {soc} --data SPEC{tail}",
        "inspect": f"rkzoo inspect {name} --image PICTURE",
        "eval": f"rkzoo eval {name} --data SPEC --runtime simulator{tail}",
    }


# ---- running it -----------------------------------------------------------------------------


class _Kept(Closing):
    """A session that keeps what it was asked and answered for one picture; asked the same
    again, it does not compute again. It takes what a board takes, so that float gets batches
    and sizes as the built model does."""

    def __init__(self, session: Session, inputs: Sequence[InputPlan]) -> None:
        self._session, self.label = session, session.label
        self.inputs = tuple(map(as_fed, inputs))
        self.outputs = session.outputs
        self.calls: dict[bytes, tuple[list[Array], list[Array]]] = {}

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        key = hashlib.blake2b(
            b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        ).digest()
        if key not in self.calls:
            # The arrays are used again by whoever made them.
            fed = [np.array(array) for array in arrays]
            self.calls[key] = fed, self._session.run(fed)
        return self.calls[key][1]

    def close(self) -> None:
        self._session.close()


Opened = dict[str, _Kept]


def _open(
    planned: Plan, runtime: Runtime, stack: ExitStack, report: Reporter
) -> tuple[Opened, dict[str, ToolkitProcess]]:
    """The sessions by role, and their processes where they are simulated; `stack` closes
    them."""
    opened: Opened = {}
    processes: dict[str, ToolkitProcess] = {}
    for role, one in planned.parts.items():
        build = _build(one)
        session: Session
        if runtime == "onnx":
            with explained("The model's graph cannot be read from the cache."):
                graph = build.onnx.read_bytes()
            session = OnnxSession(graph, one.contract.input)
        else:
            env = environment.ensure(build.recipe.toolkit, report=report)
            process = stack.enter_context(ToolkitProcess(env, report=report))
            built = process.build_for_simulation(build)
            outputs = rknn.read(built.rknn).outputs
            session = SimulatorSession(process, build.recipe.inputs, outputs)
            processes[role] = process
        opened[role] = stack.enter_context(_Kept(session, build.recipe.inputs))
    return opened, processes


Answering = Callable[[Image], Any]
Calls = list[tuple[list[Array], list[Array]]]


class _Trial:
    """All pictures through one runtime after another; float comes first and is remembered."""

    def __init__(
        self, pictures: Sequence[Picture], confidence: float | None, report: Reporter
    ) -> None:
        self.pictures, self.report = pictures, report
        self.threshold = 0.25 if confidence is None else confidence
        self.warnings: dict[str, None] = {}
        # For each picture: what float found, and each part's inputs with float's outputs.
        self.answers: list[Any] = []
        self.calls: list[dict[str, Calls]] = []
        self.named: dict[str, tuple[str, ...]] = {}
        self.worst = 0

    def run(self, runtime: Runtime, planned: Plan, opened: Opened) -> Ran:
        task, threshold = _task(planned, opened, self.threshold)
        self.threshold = threshold
        matches, counts, drawn = [], [], []
        rows: dict[tuple[str, int], list[OutputFigures]] = {}
        title = {"onnx": "Float", "fp16": "Float16", "int8": "INT8"}[runtime]
        with self.report.task(f"{title} on the pictures", len(self.pictures), unit="pictures") as b:
            for index, picture in enumerate(self.pictures):
                found = None if task is None else task(picture.image)
                if task is None:
                    _run(planned, opened, picture.image)
                if runtime == "onnx":
                    self._remember(found, opened, task, picture.image)
                elif found is not None:
                    matches.append(compared(self.answers[index], found, threshold))
                if runtime != "onnx":
                    for key, row in self._against(index, planned, opened):
                        rows.setdefault(key, []).append(row)
                sure = None if found is None else above(found, threshold)
                counts.append(None if sure is None else len(sure))
                if sure is not None:
                    drawn.append(_drawn(sure, picture.image, self.report))
                for kept in opened.values():
                    kept.calls.clear()
                b.update(index + 1)
        if runtime == "int8":
            self.worst = _worst_picture(rows, matches, len(self.pictures))
        agreement = summed(matches) if matches else None
        outputs = tuple(over_pictures(found) for _, found in sorted(rows.items()))
        return Ran(
            runtime=runtime,
            label="onnx" if runtime == "onnx" else "simulator",
            counts=tuple(counts),
            outputs=outputs,
            matches=tuple(matches),
            agreement=agreement,
            hurt=runtime != "onnx" and _hurt(agreement, outputs),
            drawn=tuple(drawn),
        )

    def _remember(self, found: Any, opened: Opened, task: Answering | None, image: Image) -> None:
        self.answers.append(found)
        self.calls.append(
            {role: list(kept.calls.values())[:_LINES] for role, kept in opened.items()}
        )
        self.named = {role: tuple(s.name for s in kept.outputs) for role, kept in opened.items()}
        if isinstance(task, HeadTask):
            outputs = task.session.run(task.preprocess(image)[0])
            seen = look(task.decoder, outputs, task.contract.input.size, self.threshold)
            self.warnings.update(dict.fromkeys(verdict(seen, self.threshold, task.head)))

    def _against(
        self, index: int, planned: Plan, opened: Opened
    ) -> list[tuple[tuple[str, int], OutputFigures]]:
        """This runtime's outputs for the very arrays that float was given."""
        found = []
        for role, calls in self.calls[index].items():
            contract = planned.parts[role].contract
            names, kept = self.named[role], opened[role]
            several: dict[int, list[OutputFigures]] = {}
            for arrays, wanted in calls:
                outputs = kept.run(arrays)
                for place, name, spec in _places(names, kept.outputs):
                    row = figures(
                        wanted[place],
                        outputs[spec],
                        kept.outputs[spec],
                        name=name,
                        role=_role(contract, name, place),
                        part=role,
                    )
                    several.setdefault(place, []).append(row)
            found += [((role, place), over_pictures(rows)) for place, rows in several.items()]
        return found


def _places(names: Sequence[str], specs: Sequence[TensorSpec]) -> list[tuple[int, str, int]]:
    """Float's place, the name, and the place in `specs`: by name, or by position where the
    toolkit has renamed them."""
    known = {spec.name: place for place, spec in enumerate(specs)}
    by_name = all(name in known for name in names)
    return [
        (place, name, known[name] if by_name else place)
        for place, name in enumerate(names)
        if by_name or place < len(specs)
    ]


def _role(contract: Contract, name: str, place: int) -> str:
    head = contract.head
    if isinstance(head, DetectHead):
        by_name = {output.name: output.role for output in head.outputs}
        if name in by_name:
            return by_name[name]
        return head.outputs[place].role if place < len(head.outputs) else ""
    return spec_of(head).outputs


def _task(planned: Plan, opened: Opened, threshold: float) -> tuple[Answering | None, float]:
    """What answers a picture, and from which score on an answer counts. None for a model
    whose answers are not compared."""
    sessions: dict[str, Session] = {}
    for role, one in planned.parts.items():
        kept: Session = opened[role]
        if one.prompts is not None:
            kept = PromptedSession(kept, one.contract, one.prompts)
        sessions[role] = kept
    if "model" not in planned.parts:
        return page_reader({r: (planned.parts[r].answers, s) for r, s in sessions.items()}), 0.0
    return answer_at(planned.parts["model"].answers, sessions["model"], threshold)


def _run(planned: Plan, opened: Opened, image: Image) -> None:
    """Runs a single model whose answers are not compared, for its outputs."""
    contract = planned.parts["model"].contract
    parts = OpenedParts(contract.head, {"model": (contract, opened["model"])}, {})
    spec_of(contract.head).open(parts, TaskOptions())(image)


def _drawn(found: Any, image: Image, report: Reporter) -> bytes:
    from rkzoo.workflow.comparison.html_report import jpeg

    if isinstance(found, TextLines):
        return jpeg(found.draw(image, font(report)))
    return jpeg(found.draw(image))


def _worst_picture(
    rows: Mapping[tuple[str, int], Sequence[OutputFigures]],
    matches: Sequence[Matches],
    count: int,
) -> int:
    """The one with the most things lost, then the one with the lowest cosines."""
    # A cosine is at most 1 for each output, so a thing that is lost counts more.
    lost = [len(one.lost) + len(one.new) for one in matches] or [0] * count
    sums = [-float(one * (len(rows) + 1)) for one in lost]
    for found in rows.values():
        if len(found) == count:
            for index, row in enumerate(found):
                sums[index] += row.cosine or 0.0
    return sums.index(min(sums))


def _hurt(agreement: Agreement | None, outputs: Sequence[OutputFigures]) -> bool:
    """Whether answers differ enough to matter; where there is none, whether the tensors do."""
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
    ran: Ran,
    skipped: list[str],
    report: Reporter,
) -> list[Layers]:
    found = []
    for role, one in planned.parts.items():
        build = _build(one)
        if build.recipe.dtype != "int8" or build.recipe.quantised:
            continue
        index = next(
            (i for i in (trial.worst, *range(len(trial.pictures))) if trial.calls[i][role]), None
        )
        if index is None:
            continue
        arrays, _ = trial.calls[index][role][0]
        try:
            rows = processes[role].analyse(build, arrays)
        except RkzooError as error:
            # All else is measured already, and worth having.
            skipped.append(f"The layers of {role}: {error}")
            continue
        found.append(layers_of(role, trial.pictures[index].name, rows))
    return found


def layers_of(role: str, picture: str, rows: Sequence[LayerError]) -> Layers:
    known = [row for row in rows if row.cosine_entire is not None]
    first = next((row.tensor for row in known if (row.cosine_entire or 0) < GOOD), None)
    return Layers(role, picture, tuple(rows), first, tuple(alone(rows)[:5]))


# ---- what it means --------------------------------------------------------------------------


def _facts(
    role: str,
    planned: Mapping[Runtime, Plan],
    ran: Sequence[Ran],
    layered: Sequence[Layers],
    trial: _Trial,
    model: str,
    commands: Mapping[str, str],
    report: Reporter,
) -> Facts:
    one = planned["onnx"].parts[role]
    build = _build(one)
    single = role == "model"
    outputs: dict[str, list[OutputFigures]] = {
        done.runtime: [row for row in done.outputs if row.part == role]
        for done in ran
        if done.runtime != "onnx"
    }
    hurt = {done.runtime for done in ran if done.hurt and role in _to_blame(done)}
    graph = build.onnx.read_bytes()
    import onnx

    parsed = onnx.load_from_string(graph)
    largest = None
    if "fp16" in hurt and trial.calls[0][role]:
        largest = largest_number(parsed, one.contract, trial.calls[0][role][0][0])
    better = None
    files = [picture.path for picture in trial.pictures if picture.path]
    if single and isinstance(one.contract.head, DetectHead) and not one.contract.others and files:
        better = probe(graph, one.contract, files, report).better
    return Facts(
        name=model if single else role,
        contract=one.contract,
        outputs=outputs,
        hurt=frozenset(hurt),
        layers=[row for found in layered if found.part == role for row in found.rows],
        warnings=tuple(trial.warnings) if single else (),
        better=better.image if better else None,
        gain=own_gain(parsed),
        largest=largest,
        calibrated=_calibrated(build),
        algorithm=build.recipe.algorithm,
        commands=commands,
    )


def _to_blame(done: Ran) -> set[str]:
    """The parts of a pipeline whose outputs are not those of float; where the answer suffers and
    none is, the one that is furthest away."""
    rows = sorted(done.outputs, key=lambda row: -1.0 if row.cosine is None else row.cosine)
    return {row.part for row in rows if not like_float([row])} or {row.part for row in rows[:1]}


def _calibrated(build: BuildInputs) -> int | None:
    if build.calibration is None:
        return None
    with explained("The calibration pictures cannot be read from the cache."):
        return len(np.load(build.calibration / "calibration-0.npy", mmap_mode="r"))


def largest_number(
    model: Any, contract: Contract, arrays: Sequence[Array]
) -> tuple[str, float] | None:
    """The tensor of the float graph with the largest number for these inputs, and that
    number; of several models one after another, the first that is not finite."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    there = {output.name for output in graph.output}
    inner = [
        name
        for node in graph.node
        if node.op_type != "Constant"
        for name in node.output
        if name and name not in there
    ]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    try:
        with OnnxSession(watched.SerializeToString(), contract.input) as session:
            outputs = session.run(arrays)
            names = [spec.name for spec in session.outputs]
    except RkzooError:
        return None  # only this explanation is lost
    found = [
        (name, float(np.abs(values).max()))
        for name, values in zip(names, outputs, strict=True)
        if values.size and values.dtype.kind == "f"
    ]
    return max(found, key=lambda pair: pair[1], default=None)


_TITLES = {"fp16": "float16", "int8": "INT8"}


def _verdict(ran: Sequence[Ran], found: Sequence[Cause]) -> str:
    """In a few words, with the counts where there are any."""
    bad = [_TITLES[one.runtime] for one in ran if one.hurt]
    good = [_TITLES[one.runtime] for one in ran if not one.hurt and one.runtime != "onnx"]
    told = []
    if good:
        told.append(f"{' and '.join(good)} answer{'s' * (len(good) == 1)} as float does.")
    if bad:
        several = len(bad) > 1
        told.append(f"{' and '.join(bad)} do{'' if several else 'es'} not answer as float does.")
    if not bad and not found:
        told.insert(0, "Nothing is wrong:")
    elif not bad:
        told.append("Yet something is likely wrong with the model or how it is fed.")
    for one in ran:
        agreed = one.agreement
        if agreed is not None and (agreed.lost or agreed.new):
            few = agreed.lost + agreed.new - sum(len(m.serious) for m in one.matches)
            told.append(
                f"{_TITLES[one.runtime]} finds {agreed.found} of the "
                f"{agreed.found + agreed.lost} things of float and {agreed.new} others"
                + (f" ({few} differ by a hair at the threshold)." if few else ".")
            )
    return " ".join(told)


def _next(ran: Sequence[Ran], found: Sequence[Cause], commands: Mapping[str, str]) -> str:
    first = next((cause.fix for cause in found if cause.fix.startswith("rkzoo ")), "")
    if first:
        return first.split("   (")[0]
    return commands["tune"] if any(one.hurt for one in ran) else commands["eval"]
