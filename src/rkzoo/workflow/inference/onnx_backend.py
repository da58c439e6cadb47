"""ONNX Runtime on this machine: float32."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Session
from rkzoo.workflow.inference.backend import Backend

if TYPE_CHECKING:
    from rkzoo.workflow.request.request import Request
    from rkzoo.workflow.request.resolved import ResolvedModel


@dataclass(frozen=True)
class OnnxBackend(Backend):
    """An ONNX graph, serialised."""

    label = "onnx"

    graph: bytes

    @classmethod
    def of_model(
        cls, ready: ResolvedModel, request: Request, report: ProgressReporter
    ) -> OnnxBackend:
        if request.sizes:
            raise RkzooError(
                "--sizes does not go with ONNX Runtime.",
                "It is for a build of several sizes, and a float model is not built.",
                "Leave it out, or add --runtime simulator.",
            )
        return cls(ready.graph().SerializeToString())

    @classmethod
    def of_rknn(
        cls, path: Path, request: Request, report: ProgressReporter
    ) -> tuple[Contract, OnnxBackend]:
        raise RkzooError(
            f"{path} cannot be run by ONNX Runtime.",
            "A .rknn file is for the NPU.",
            "Run the .onnx it was made from, or use --runtime simulator.",
        )

    def open(
        self, contract: Contract, *, threads: int = 0, report: ProgressReporter = SILENT
    ) -> Session:
        from rkzoo.runtime.onnx import OnnxSession

        return OnnxSession(self.graph, contract.picture, threads=threads)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.graph).hexdigest()
