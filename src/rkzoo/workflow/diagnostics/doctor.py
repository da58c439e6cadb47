"""`rkzoo doctor`: diagnoses a board, a PC or a model on it, with remedies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from rkzoo.checks import LEVELS, Level
from rkzoo.errors import RkzooError
from rkzoo.files import open_file, os_errors_explained
from rkzoo.soc.chips import same_family
from rkzoo.soc.library import LITE, examine, named_library
from rkzoo.soc.machine import Machine, machine_from_json, read_machine
from rkzoo.soc.versions import Version, judge, parse
from rkzoo.toolkit.versions import RELEASES
from rkzoo.workflow.diagnostics.board_checks import (
    board_findings,
    known_versions,
    library_name,
    needs_cma,
    runtime,
    version_finding,
)
from rkzoo.workflow.diagnostics.findings import Finding, fail, ok, warn

EXIT = {"ok": 0, "warn": 3, "fail": 4}
"""Exit codes by the worst finding; 1 and 2 are reserved for errors of the command."""

DISCLAIMER = (
    "What doctor knows comes from Rockchip's documents and users' reports; rkzoo has not"
    " measured it on a board."
)


@dataclass(frozen=True)
class Diagnosis:
    """All findings. `place` is `board` or `pc`."""

    place: str
    machine: Machine
    findings: tuple[Finding, ...] = field(default=())

    @property
    def level(self) -> Level:
        """Level of the worst finding."""
        return max((f.level for f in self.findings), key=LEVELS.index, default="ok")

    @property
    def exit_code(self) -> int:
        """Exit code of the command, by the worst finding."""
        return EXIT[self.level]

    def to_json(self) -> dict[str, Any]:
        """As JSON types, with the machine."""
        machine = asdict(self.machine)
        machine["root"] = str(self.machine.root)
        machine["holders"] = [msgspec.structs.asdict(user) for user in self.machine.holders]
        return {
            "place": self.place,
            "level": self.level,
            "findings": [asdict(finding) for finding in self.findings],
            "machine": machine,
            "label": "not measured on a board",
        }


class _Told(msgspec.Struct, frozen=True):
    """What `Diagnosis.to_json` gives, as far as a diagnosis is made of it."""

    place: Literal["board", "pc"]
    findings: tuple[Finding, ...]
    machine: msgspec.Raw


def diagnosis_from_json(data: bytes) -> Diagnosis:
    """What was examined elsewhere, of `Diagnosis.to_json`.

    Raises:
        msgspec.DecodeError: It is none.
    """
    told = msgspec.json.decode(data, type=_Told)
    return Diagnosis(told.place, machine_from_json(told.machine), told.findings)


def diagnose(
    root: Path = Path("/"), *, model: Path | None = None, adb: bool = False, soc: str | None = None
) -> Diagnosis:
    """Examine a machine, and whether it can run a model. Changes nothing.

    Args:
        root: `/` or a captured tree; a PC is examined only where it is the live machine.
        model: .rknn or .onnx file.
        adb: allow starting adb's daemon to list devices.
        soc: target chip, where the machine is a PC.
    """
    machine = read_machine(root)
    findings: list[Finding] = []
    if machine.board:
        findings += board_findings(machine)
    elif machine.live:
        from rkzoo.workflow.diagnostics.pc_checks import pc_findings

        findings += pc_findings(adb=adb, memory=machine.free)
    else:
        findings.append(
            fail(
                "tree-empty",
                "This is not the tree of a Rockchip board.",
                f"{root}/proc/device-tree/compatible names none",
                "Make one on the board and give it here.",
                "rkzoo doctor --capture board.tar",
            )
        )
    if model is not None:
        findings += model_findings(model, machine, soc)
    return Diagnosis("board" if machine.board else "pc", machine, tuple(findings))


# ---- models -------------------------------------------------------------------------


def model_findings(path: Path, machine: Machine, soc: str | None = None) -> list[Finding]:
    """Check a model file, and whether `machine` can run it."""
    try:
        with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
            magic = file.read(4)
        if magic in (b"RKNN", b"RKCE") or path.suffix.lower() == ".rknn":
            return list(_rknn(path, machine, soc))
        return list(_onnx(path, machine))
    except RkzooError as error:
        return [fail("model-unreadable", error.what, error.why, error.fix)]


def _rknn(path: Path, machine: Machine, soc: str | None) -> Iterator[Finding]:
    from rkzoo.graph.rknn.checks import rknn_checks
    from rkzoo.graph.rknn.reader import read

    file = read(path)
    built = f"{path.name}, for {', '.join(file.platforms) or 'no named chip'}, by {file.toolkit}"
    chip = machine.chip or soc
    # Chips of other generations match no platform, and are rejected too.
    if chip and file.platforms and not any(same_family(p.lower(), chip) for p in file.platforms):
        yield fail(
            "model-chip",
            f"The model is built for {', '.join(file.platforms)} and cannot run on {chip}.",
            "the .rknn itself",
            f"Convert it again for {chip}.",
            f"rkzoo convert MODEL --soc {chip}",
        )
    else:
        yield ok("model", built, "the .rknn itself")
    try:
        opening = _as_opened(machine)
    except RkzooError as error:
        yield fail("library-named", error.what, "the environment", error.fix)
    else:
        target = chip or next((p.lower() for p in file.platforms), "CHIP")
        yield from _model_version(file.toolkit, opening, target)
    if machine.board and machine.chip:
        need = (file.weight_bytes or 0) + (file.memory_bytes or 0)
        yield from _fits(need, file.memory_bytes is not None, machine)
    for check in rknn_checks(file):
        yield Finding(
            "model-built",
            check.level,
            check.text,
            "the .rknn itself",
            "" if check.level == "ok" else "Convert the model again, or see `rkzoo inspect`.",
            "" if check.level == "ok" else f"rkzoo inspect {path}",
        )


def _as_opened(machine: Machine) -> Machine:
    """The machine with the library that models are opened with: one that is named comes before a
    board's own, and is all that a machine without a known chip has. Raises RkzooError where what
    is named is no file."""
    path = named_library() if machine.live else ""
    if path in ("", LITE):
        return machine
    library = examine(Path(path), path)
    # Under another name it serves the chip, too.
    named = replace(library, name=library_name(machine) or library.name)
    return replace(machine, libraries=(named,))


def _model_version(toolkit: str, machine: Machine, target: str) -> Iterator[Finding]:
    """`target`: the chip that the model is for."""
    version = parse(toolkit)
    library = runtime(machine)
    rules = judge(
        known_versions(machine) | {"model": version},
        chip=machine.chip,
        library=library_name(machine) or "librknnrt.so",
    )
    ours = [rule for rule in rules if "model" in rule.when]
    for rule in ours:
        for finding in version_finding(rule, machine, version):
            yield _or_convert(finding, parse(library.version) if library else None, target)
    if not ours and library and version:
        yield ok("model-version", f"the library knows models of toolkit {version}", library.path)


def _or_convert(finding: Finding, have: Version | None, target: str) -> Finding:
    """Add the alternative of converting the model with the library's version, where rkzoo has
    it.
    """
    if str(have) not in {release.version for release in RELEASES}:
        return finding
    return replace(
        finding,
        fix=f"{finding.fix} Or convert the model with the library's version.",
        command=f"rkzoo convert MODEL --soc {target} --toolkit {have}",
    )


def _fits(need: int, whole: bool, machine: Machine) -> Iterator[Finding]:
    """Check memory. `whole`: `need` includes the working memory; otherwise only the weights."""
    cma = needs_cma(machine)
    have = machine.cma_free if cma else machine.free
    if not need or have is None:
        return
    what = "weights and work memory" if whole else "weights, before any work memory"
    text = f"{need / 2**20:.1f} MiB of {what}, {have / 2**20:.1f} MiB free"
    seen = "the .rknn and /proc/meminfo" + (" (CmaFree)" if cma else " (MemAvailable)")
    if need <= have:
        yield ok("model-memory", f"the model fits: {text}", seen)
    elif cma:
        yield fail(
            "model-cma",
            f"The model does not fit into the contiguous memory (CMA): {text}.",
            seen,
            "Raise cma= on the kernel's command line (rk_dma_heap_cma= on RV1103 and RV1106), stop"
            " what holds it, or take a smaller model or input size.",
            "grep Cma /proc/meminfo",
        )
    else:
        yield fail(
            "model-memory-low",
            f"The model does not fit into memory: {text}.",
            seen,
            "End other programs, or take a smaller model or input size.",
            "free -m",
        )


def _onnx(path: Path, machine: Machine) -> Iterator[Finding]:
    if machine.board:
        yield warn(
            "model-not-converted",
            "This is an ONNX model; the NPU runs .rknn files only.",
            str(path),
            f"Convert it on a PC for {machine.chip or 'this chip'}, and copy the .rknn here.",
            f"rkzoo convert {path.name} --soc {machine.chip or 'CHIP'}",
        )
    try:
        from rkzoo.graph.families.plain import as_plain_tensors, plain_notes
        from rkzoo.graph.families.recognition import UnknownHead
        from rkzoo.graph.families.registry import file_labels, recognise_arranged
        from rkzoo.graph.lowering.checks import graph_checks
        from rkzoo.graph.onnx.read import load
        from rkzoo.graph.onnx.summary import summarise
    except RkzooError:  # the package onnx is not installed
        yield warn(
            "onnx-missing",
            "ONNX models cannot be read here.",
            "the package onnx is not installed, as is usual on a board",
            "Look at the model on a PC, or install what a PC has.",
            "pip install 'rkzoo[pc]'",
        )
        return
    model = load(path)
    recognition, unknown = None, None
    notes: tuple[str, ...] = ()
    try:
        _, recognition = recognise_arranged(model, None)
    except RkzooError as error:
        unknown = error
    if isinstance(unknown, UnknownHead):
        try:
            plain = as_plain_tensors(model)
            notes = (*plain.seen, *plain_notes(plain.graph, plain.contract, requested=False))
        except RkzooError as error:
            unknown = error
    named = len(file_labels(model))
    for check in graph_checks(summarise(model), recognition, unknown, named=named, plain=notes):
        fix = "" if check.level == "ok" else "See `rkzoo inspect` for all of it."
        command = "" if check.level == "ok" else f"rkzoo inspect {path}"
        yield Finding("model-graph", check.level, check.text, str(path.name), fix, command)
