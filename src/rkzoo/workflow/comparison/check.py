"""Check of a board against the simulator: runs the inputs of a golden file on the NPU.

A report is labelled as a board's only for outputs of Rockchip's library on a Rockchip board. It
holds no serial number, no host or user name, and no path.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from rkzoo.checks import LEVELS, Level
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError, printable
from rkzoo.files import write_text
from rkzoo.graph.rknn import reader as rknn
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.remote.client import ConnectionLost
from rkzoo.remote.session import RemoteSession
from rkzoo.runtime.npu import Layout, NpuSession, npu_seconds
from rkzoo.session import Array, Closeable, Label, Session
from rkzoo.soc.capture import scrub
from rkzoo.soc.machine import Machine
from rkzoo.speed.clock_rates import Clock, clocks_of
from rkzoo.speed.timing import Times, times
from rkzoo.workflow.comparison.check_outputs import (
    KNOWN,
    MEASURED,
    OutputCheck,
    board_label,
    check_output,
)
from rkzoo.workflow.comparison.matching import Agreement, compared, disagrees, summed
from rkzoo.workflow.compile.golden import Golden, Origin, golden_of, golden_path
from rkzoo.workflow.inference.board import (
    BoardBackend,
    contract_of,
    layout_of,
    on_board,
    open_board,
)
from rkzoo.workflow.inference.load import answer_at
from rkzoo.workflow.inference.remote_backend import RemoteBackend, machine_on, open_remote
from rkzoo.workflow.request.pipeline_file import is_pipeline_file, read_pipeline
from rkzoo.workflow.request.request import Request

ROUNDS = 5
"""Runs per input; the outputs must be identical each time."""
CONFIDENCE = 0.25

SIMULATED = "simulator"


@dataclass(frozen=True)
class PredictionCheck:
    """Postprocessed results of the golden images, from the simulator's outputs and from the
    board's. `layout`: in which the board's outputs were read; `agreement`: None where they could
    not be read.
    """

    layout: Layout
    agreement: Agreement | None
    level: Level
    why: str = ""


@dataclass(frozen=True)
class PartCheck:
    """Check of one .rknn.

    Attributes:
        ms: time that a caller waits for a run.
        npu_ms: time reported by the library; None where it reports none.
        steady: the same input gave identical outputs each time.
        reasons: what is wrong, the worst first.
    """

    role: str
    model: str
    sha256: str
    family: str
    platforms: tuple[str, ...]
    toolkit: str
    inputs: int
    origin: Origin
    golden_toolkit: str
    golden_rkzoo: str
    outputs: tuple[OutputCheck, ...]
    found: tuple[PredictionCheck, ...]
    steady: bool
    runs: int
    ms: Times
    npu_ms: Times | None
    level: Level
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Temperature:
    """A temperature sensor before and after, in degrees Celsius."""

    name: str
    before: float
    after: float | None


@dataclass(frozen=True)
class BoardInfo:
    """The machine. `driver` as reported by the kernel, `driver_told` by the library; `library` is
    its file name, `library_version` the version it reports.
    """

    board: str
    chip: str | None
    machine: str
    kernel: str
    driver: str
    driver_told: str
    library: str
    library_version: str
    clocks: tuple[Clock, ...]
    heat: tuple[Temperature, ...]


@dataclass(frozen=True)
class BoardCheck:
    """The whole report. `label`: origin of the figures; `known`: what is known about the deviation
    of boards from the simulator.
    """

    label: str
    level: Level
    verdict: str
    next: str
    date: str
    rkzoo: str
    place: BoardInfo
    parts: tuple[PartCheck, ...]
    known: str = KNOWN
    format: int = 1

    def to_json(self) -> dict[str, Any]:
        """Report as JSON types; values that are not finite become null."""
        document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return document


def check(
    model: str | os.PathLike[str],
    *,
    golden: Path | None = None,
    runtime: str = "board",
    on: str | None = None,
    report: ProgressReporter = SILENT,
) -> BoardCheck:
    """Run the golden inputs of a .rknn, or of each part of a converted pipeline's .json.

    Args:
        model: .rknn or pipeline .json.
        golden: golden file; None for the one beside the .rknn.
        runtime: "board", or "simulator" to rebuild the model here, where all outputs must be equal.
        on: address of the board, as of `Request`; None for this machine.
        report: receives progress.

    Raises:
        RkzooError: no board, no golden file, or the model does not run.
    """
    path = Path(model)
    files = _files(path, golden)
    stored = {role: golden_of(file, golden) for role, file in files.items()}
    request = Request(runtime=runtime, on=on)
    before = machine_on(on)
    parts, runtime_info = [], _RuntimeInfo()
    for role, file in files.items():
        with report.task(f"Checking {file.name}"):
            board = _board(file, golden, request, report)
            part_under_test = _PartUnderTest(role, file, stored[role], board, report)
            parts.append(part_under_test.check(runtime_info))
    after = machine_on(on)
    level = max((part.level for part in parts), key=LEVELS.index)
    simulated = runtime == "simulator"
    label = SIMULATED if simulated else board_label(runtime_info.stand_in, before)
    return BoardCheck(
        label=label,
        level=level,
        verdict=_verdict(level, parts, runtime),
        next=_next(level, parts, path, label, on),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        rkzoo=version("rkzoo"),
        place=_place(before, after, runtime_info),
        parts=tuple(parts),
    )


def write_report(path: Path, checked: BoardCheck) -> None:
    """Write the report as JSON, atomically. Raises RkzooError when it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(checked), indent=1)
    write_text(path, text.decode() + "\n")


def _files(path: Path, golden: Path | None) -> dict[str, Path]:
    """The .rknn files by role."""
    if is_pipeline_file(str(path)):
        if golden is not None:
            raise RkzooError(
                "--golden does not go with a pipeline.",
                "Each of its models has a golden file of its own.",
                "Leave it out, or check one of the .rknn files.",
            )
        return read_pipeline(path).parts
    if path.suffix.lower() == ".rknn":
        return {"model": path}
    raise RkzooError(
        f"{path} cannot be checked on an NPU.",
        "An NPU runs .rknn files only.",
        f"Convert it on a PC with rkzoo convert {path} --soc CHIP --golden, and check the .rknn.",
    )


def _board(
    file: Path, golden: Path | None, request: Request, report: ProgressReporter
) -> BoardBackend | RemoteBackend | None:
    """How the file runs on the NPU; None for the simulator."""
    if request.on is not None:
        return RemoteBackend.of_rknn(file, request, report)[1]
    if request.runtime == "simulator":
        return None
    board_backend = on_board(file, requested=False)
    if board_backend is None:
        names = f"{file.name}, {file.name}.json and {(golden or golden_path(file)).name}"
        raise RkzooError(
            f"{file.name} is checked on the board that it is for.",
            "This machine is no Rockchip board, and no NPU library was found.",
            f"Name the board with --on ssh://user@board, or copy {names} there and run rkzoo check"
            f" {file.name}; here, --runtime simulator tells whether the golden file is right.",
        )
    return board_backend


@dataclass
class _RuntimeInfo:
    """Versions that the library reports, once for all parts."""

    library: str = ""
    version: str = ""
    driver: str = ""
    stand_in: bool = False

    def hear(self, session: Session, board: BoardBackend | RemoteBackend) -> None:
        if isinstance(session, RemoteSession):
            told = session.opened
            self.library = PurePosixPath(printable(told.library)).name
            self.version, self.driver = printable(told.library_version), printable(told.driver)
            self.stand_in = told.stand_in
        elif isinstance(board, BoardBackend):
            self.library = Path(board.library).name
        if isinstance(session, NpuSession):
            self.version, self.driver = map(printable, session.context.versions())
            self.stand_in = session.context.stand_in


@dataclass(frozen=True)
class _RunResult:
    """Outputs and times of a run. `outputs` holds the arrays of each input."""

    specs: tuple[TensorSpec, ...]
    outputs: list[list[Array]]
    steady: bool = True
    seconds: list[float] = field(default_factory=list)
    npu_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _PartUnderTest:
    """One .rknn with its golden file."""

    role: str
    file: Path
    golden: Golden
    board: BoardBackend | RemoteBackend | None
    report: ProgressReporter

    def check(self, runtime_info: _RuntimeInfo) -> PartCheck:
        about, contract, described = self.golden.about, contract_of(self.file), rknn.read(self.file)
        with self._open(contract, "plain", self.report) as session:
            if self.board is not None:
                runtime_info.hear(session, self.board)
            ran = _run(session, self.golden, ROUNDS if self.board else 1)
        outputs = self._outputs(ran)
        checks = [self._prediction_check(contract, "plain", ran)]
        if self.board is not None and layout_of(contract) == "native":
            checks.append(self._found_natively(contract))
        known = tuple(check for check in checks if check is not None)
        told_of = [
            (output.level, f"{output.name}: {output.why}.") for output in outputs if output.why
        ]
        told_of += [(check.level, check.why) for check in known if check.why]
        # Worst first, as quoted in the verdict.
        told_of.sort(key=lambda pair: -LEVELS.index(pair[0]))
        reasons = [printable(why) for _, why in told_of]
        levels = [*(output.level for output in outputs), *(check.level for check in known)]
        if not ran.steady:
            levels.append("fail")
            reasons.insert(0, "The same input gave other numbers when it was run again.")
        if self.board is None and any(output.difference != 0 for output in outputs):
            levels.append("fail")
            reasons.insert(0, "The simulator does not answer what the golden file holds.")
        return PartCheck(
            role=self.role,
            model=self.file.name,
            sha256=about.model,
            family=contract.family,
            platforms=described.platforms,
            toolkit=described.toolkit,
            inputs=about.count,
            origin=about.origin,
            golden_toolkit=about.toolkit,
            golden_rkzoo=about.rkzoo,
            outputs=outputs,
            found=known,
            steady=ran.steady,
            runs=len(ran.seconds),
            ms=times(ran.seconds),
            npu_ms=times(ran.npu_seconds) if ran.npu_seconds else None,
            level=max(levels, key=LEVELS.index),
            reasons=tuple(reasons),
        )

    def _open(self, contract: Contract, layout: Layout, report: ProgressReporter) -> Session:
        if isinstance(self.board, RemoteBackend):
            return open_remote(self.board, contract, report, layout=layout)
        if self.board is not None:
            return open_board(self.board, contract, report, layout=layout)
        from rkzoo.workflow.compile.simulate import open_rknn

        return open_rknn(self.file, report=report)[1]

    def _outputs(self, ran: _RunResult) -> tuple[OutputCheck, ...]:
        specs = self.golden.about.outputs
        if len(specs) != len(ran.specs):
            raise RkzooError(
                f"{self.file.name} has {len(ran.specs)} outputs on the board.",
                f"The simulator gave {len(specs)}.",
                f"Run rkzoo doctor {self.file}: library and model must fit each other.",
            )
        return tuple(
            check_output(spec, list(self.golden.answers[index]), tensor_spec, arrays)
            for index, (spec, tensor_spec) in enumerate(zip(specs, ran.specs, strict=True))
            for arrays in [[outputs[index] for outputs in ran.outputs]]
        )

    def _found_natively(self, contract: Contract) -> PredictionCheck | None:
        """Result of the decoder that `run` uses, which reads the native layout."""
        try:
            with self._open(contract, "native", SILENT) as session:
                return self._prediction_check(contract, "native", _run(session, self.golden, 1))
        except ConnectionLost:
            raise  # the cable's fault, and not the board's
        except RkzooError as error:
            return PredictionCheck("native", None, "fail", _unplaced(error))

    def _prediction_check(
        self, contract: Contract, layout: Layout, ran: _RunResult
    ) -> PredictionCheck | None:
        """Compare postprocessed results; None where the task has none to compare."""
        if contract.picture is None or contract.texts is not None:
            return None
        order = slice(None, None, -1 if contract.input.color == "RGB" else 1)
        answers = []
        specs, ours = self.golden.about.inputs, self.golden.about.outputs
        try:
            for index, outputs in enumerate(ran.outputs):
                image = np.ascontiguousarray(self.golden.fed[0][index][0][..., order])
                pair = []
                recorded = ((ours, self.golden.outputs(index)), (ran.specs, outputs))
                for described, arrays in recorded:
                    session = _RecordedSession("board", specs, described, arrays)
                    task, threshold = answer_at(contract, session, CONFIDENCE)
                    if task is None:
                        return None
                    pair.append(task(image))
                answers.append(compared(pair[0], pair[1], threshold))
        except RkzooError as error:
            return PredictionCheck(layout, None, "fail", _unplaced(error))
        return _judged(layout, summed(answers))


class _RecordedSession(Closeable):
    """Session that replays given outputs."""

    def __init__(
        self,
        label: Label,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        arrays: list[Array],
    ) -> None:
        self.label, self.inputs, self.outputs, self._arrays = label, inputs, outputs, arrays

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        return self._arrays

    def close(self) -> None:
        pass


def _run(session: Session, golden: Golden, rounds: int) -> _RunResult:
    """Run all inputs in sequence, `rounds` times; keeps the outputs of the last round."""
    ran = _RunResult(session.outputs, [])
    first: list[bytes] = []
    steady = True
    outputs: list[list[Array]] = []
    for number in range(rounds):
        outputs = []
        for index in range(golden.about.count):
            fed = golden.inputs(index)
            start = perf_counter()
            arrays = session.run(fed)
            ran.seconds.append(perf_counter() - start)
            if (own := npu_seconds(session)) is not None and own <= ran.seconds[-1]:
                ran.npu_seconds.append(own)
            # Outputs lie in NPU memory, which the next run overwrites.
            outputs.append([np.array(array) for array in arrays])
            del arrays
            digest = hashlib.blake2b(b"".join(map(np.ndarray.tobytes, outputs[-1]))).digest()
            if not number:
                first.append(digest)
            steady &= digest == first[index]
    if isinstance(session, RemoteSession):
        # What was waited for here holds the network; the board times its runs itself.
        timed = [session.time(golden.inputs(i), rounds) for i in range(golden.about.count)]
        ran.seconds[:] = [one for told in timed for one in told.seconds]
        ran.npu_seconds[:] = [one for told in timed for one in told.npu_seconds]
    return _RunResult(session.outputs, outputs, steady, ran.seconds, ran.npu_seconds)


def _judged(layout: Layout, agreed: Agreement) -> PredictionCheck:
    if disagrees(agreed):
        return PredictionCheck(layout, agreed, "fail", _explain_differences(layout, agreed))
    texts = agreed.same_text is not None and agreed.same_text < agreed.found
    if agreed.share < 1 or texts:
        return PredictionCheck(layout, agreed, "warn", _explain_differences(layout, agreed))
    return PredictionCheck(layout, agreed, "ok")


def _explain_differences(layout: Layout, agreed: Agreement) -> str:
    same = "" if agreed.same_text is None else f", {agreed.same_text} of them alike"
    return (
        f"Of {agreed.things} things {agreed.found} are found by both{same}; the board loses"
        f" {agreed.lost} and finds {agreed.new} new ones (read in the {layout} layout)."
    )


# ---- the whole ----------------------------------------------------------------------


def _verdict(level: Level, parts: Sequence[PartCheck], runtime: str) -> str:
    who = "The simulator" if runtime == "simulator" else "The NPU"
    if level == "fail":
        bad = next(part for part in parts if part.level == "fail")
        return f"{who} does not answer what the golden file of {bad.model} holds: {bad.reasons[0]}"
    if level == "warn":
        odd = next(part for part in parts if part.level == "warn")
        return f"{who} nearly answers what the golden file of {odd.model} holds: {odd.reasons[0]}"
    equal = [output.equal for part in parts for output in part.outputs if output.equal is not None]
    codes = [output.codes for part in parts for output in part.outputs if output.codes is not None]
    share = (
        f": {min(equal):.2%} of codes equal or more, {max(codes)} apart at most" if equal else ""
    )
    return f"{who} answers what the golden file holds{share}."


def _next(level: Level, parts: Sequence[PartCheck], path: Path, label: str, on: str | None) -> str:
    if label == SIMULATED and level != "ok":
        return "Convert the model again with rkzoo convert ... --golden."
    if label != MEASURED and level == "ok":
        return f"On a board of yours, with the same files: rkzoo check {shlex.quote(path.name)}"
    if level == "ok":
        return "Send the report: it is what rkzoo knows of real boards by."
    bad = next(part for part in parts if part.level == level)
    model = shlex.quote(bad.model)
    where = "where it lies" if on is None else f"--on {shlex.quote(on)}"
    return f"Run rkzoo doctor {model} {where}, and send the report with what it says."


def _place(before: Machine, after: Machine, runtime_info: _RuntimeInfo) -> BoardInfo:
    later = {zone.name: zone.celsius for zone in after.zones}
    return BoardInfo(
        board=scrub(printable(before.model)),
        chip=before.chip,
        machine=before.machine,
        kernel=scrub(before.kernel),
        driver=before.driver,
        driver_told=runtime_info.driver,
        library=runtime_info.library,
        library_version=runtime_info.version,
        clocks=clocks_of(before, after),
        heat=tuple(Temperature(scrub(z.name), z.celsius, later.get(z.name)) for z in before.zones),
    )


def _unplaced(error: RkzooError) -> str:
    """The error without addresses and folder names, which would identify the machine."""
    told = re.sub(r"^On \S+: ", "", f"{error.what} {error.why}".strip())
    return re.sub(r"/(?:[^\s/]+/)+", "", re.sub(r"\b(?:ssh|https?)://\S+|\badb:\S+", "it", told))
