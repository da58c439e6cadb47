"""A board in a comparison: its outputs against the simulator's, and the first that differs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError, printable
from rkzoo.protocol.board import Hello, Opened
from rkzoo.remote.boards import board
from rkzoo.session import Array
from rkzoo.soc.chips import same_family
from rkzoo.soc.machine import Machine
from rkzoo.workflow.comparison.check_outputs import OutputCheck, board_label, check_output
from rkzoo.workflow.comparison.diagnosis import ON_BOARD, Cause, Runtime
from rkzoo.workflow.comparison.result import BoardComparison, BoardOutputs
from rkzoo.workflow.inference.remote_backend import known_chip, machine_on

Answered = dict[Runtime, dict[tuple[str, int], tuple[str, TensorSpec, list[Array]]]]
"""By what ran, and by role and place of an output: its name, its spec, and its arrays."""

_FORMATS: dict[Runtime, str] = {"fp16": "float16", "int8": "INT8", "w4a16": "W4A16"}


@dataclass
class FarBoard:
    """The board of a comparison, and what it told when models were opened on it."""

    address: str
    hello: Hello
    machine: Machine
    told: list[Opened] = field(default_factory=list)

    def hear(self, told: Sequence[Opened]) -> None:
        """Takes what it told of models that were opened."""
        self.told += told

    @property
    def label(self) -> str:
        """Origin of its figures."""
        return board_label(any(one.stand_in for one in self.told), self.machine)

    def against(self, answered: Answered) -> BoardComparison:
        """Its outputs against the simulator's."""
        compared = tuple(
            BoardOutputs(runtime, tuple(_outputs(answered[runtime], answered[on_board])))
            for runtime, on_board in ON_BOARD.items()
            if runtime in answered and on_board in answered
        )
        last = self.told[-1] if self.told else None
        return BoardComparison(
            label=self.label,
            board=printable(self.hello.board),
            chip=self.hello.chip,
            driver=printable((last and last.driver) or self.hello.driver),
            library=PurePosixPath(printable(self.hello.library)).name,
            library_version=printable(last.library_version) if last else "",
            against=compared,
            says=tuple(map(_said, compared)),
        )

    def cause(self, compared: BoardComparison, model: str) -> Cause:
        """What its difference means."""
        return Cause(
            "board",
            model,
            " ".join(compared.says),
            f"rkzoo doctor --on {shlex.quote(self.address)}",
        )


def comparing_board(address: str, soc: str) -> FarBoard:
    """The board at an address. Raises RkzooError where it cannot be reached, or has another chip
    than `soc`, unless that is empty."""
    hello = board(address).hello
    chip = known_chip(hello)
    if soc and chip and not same_family(soc, chip):
        raise RkzooError(
            f"--soc {soc} is not the chip of {address}.",
            f"It has {chip}.",
            "Leave --soc out.",
        )
    return FarBoard(address, hello, machine_on(address))


def _outputs(
    simulated: Mapping[tuple[str, int], tuple[str, TensorSpec, list[Array]]],
    answered: Mapping[tuple[str, int], tuple[str, TensorSpec, list[Array]]],
) -> Iterator[OutputCheck]:
    for key, (name, spec, arrays) in simulated.items():
        if key in answered:
            _, own, ours = answered[key]
            found = check_output(spec, arrays, own, ours)
            role = "" if key[0] == "model" else f"{key[0]}: "
            yield OutputCheck(**{**vars(found), "name": f"{role}{name}"})


def _said(compared: BoardOutputs) -> str:
    form = _FORMATS[compared.runtime]
    first = compared.first
    if first is None:
        return f"The board answers as the simulator does in {form}."
    return (
        f"The board differs from the simulator in {form}, first in the output {first.name}:"
        f" {first.why}."
    )
