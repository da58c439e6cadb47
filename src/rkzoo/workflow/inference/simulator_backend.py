"""RKNN-Toolkit2's simulator on this PC: the NPU's arithmetic, emulated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Session
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.workflow.inference.backend import Backend

if TYPE_CHECKING:
    from rkzoo.workflow.request.request import Request
    from rkzoo.workflow.request.resolved import ResolvedModel


@dataclass(frozen=True)
class SimulatorBackend(Backend):
    """What the toolkit builds and then simulates."""

    label = "simulator"

    inputs: BuildInputs

    @classmethod
    def of_model(
        cls, ready: ResolvedModel, request: Request, report: ProgressReporter
    ) -> SimulatorBackend:
        from rkzoo.workflow.compile.simulate import simulator_inputs

        inputs = simulator_inputs(
            ready,
            pictures=request.pictures,
            dtype=request.dtype,
            toolkit=request.toolkit,
            count=request.calibration_count,
            batch=request.batch,
            sizes=request.sizes,
            report=report,
        )
        return cls(inputs)

    @classmethod
    def of_rknn(
        cls, path: Path, request: Request, report: ProgressReporter
    ) -> tuple[Contract, SimulatorBackend]:
        from rkzoo.workflow.compile.simulate import rknn_inputs

        contract, inputs = rknn_inputs(path, report=report)
        return contract, cls(inputs)

    def open(
        self, contract: Contract, *, threads: int = 0, report: ProgressReporter = SILENT
    ) -> Session:
        from rkzoo.workflow.compile.simulate import simulate

        size = contract.picture.size if contract.picture else None
        return simulate(self.inputs, report, size)

    @property
    def build(self) -> BuildInputs:
        return self.inputs

    @property
    def digest(self) -> str:
        # The folder's name is the key of its content.
        return f"{self.inputs.onnx.parent.name} {msgspec.json.encode(self.inputs.recipe).decode()}"
