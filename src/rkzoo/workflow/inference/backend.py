"""Runtime backends: one class a runtime, by the name that --runtime takes.

A new runtime is a subclass of `Backend` in a file of its own, a line in `BACKENDS`, and its name
in `Label` (session.py) and among the choices of --runtime (cli/model_options.py), unless, as for a
board at the other end of a cable, another option chooses it (`runtime_of`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Label, Session

if TYPE_CHECKING:
    from rkzoo.toolkit.builds import BuildInputs
    from rkzoo.toolkit.recipe import Recipe
    from rkzoo.workflow.request.request import Request
    from rkzoo.workflow.request.resolved import ResolvedModel

BACKENDS: dict[str, str] = {
    "onnx": "onnx_backend:OnnxBackend",
    "simulator": "simulator_backend:SimulatorBackend",
    "board": "board:BoardBackend",
    "remote": "remote_backend:RemoteBackend",
}


def runtime_of(request: Request, usual: str) -> str:
    """The name in `BACKENDS` of what runs a request; `usual` where it does not say."""
    return "remote" if request.on is not None else request.runtime or usual


def backend(name: str) -> type[Backend]:
    """The class of a runtime."""
    module, attribute = BACKENDS[name].split(":")
    kind: type[Backend] = getattr(import_module(f"{__package__}.{module}"), attribute)
    return kind


@dataclass(frozen=True)
class Backend(ABC):
    """One model on one runtime: plain data, which opens here, in a worker process or on another
    machine."""

    label: ClassVar[Label]

    @classmethod
    @abstractmethod
    def of_model(cls, ready: ResolvedModel, request: Request, report: ProgressReporter) -> Backend:
        """A float model for this runtime. Raises RkzooError where it cannot run it."""

    @classmethod
    @abstractmethod
    def of_rknn(
        cls, path: Path, request: Request, report: ProgressReporter
    ) -> tuple[Contract, Backend]:
        """The contract of a .rknn, and the file for this runtime. Raises RkzooError where it
        cannot run it."""

    @abstractmethod
    def open(
        self, contract: Contract, *, threads: int = 0, report: ProgressReporter = SILENT
    ) -> Session:
        """A session that runs the model; `threads` as for OnnxSession. Raises RkzooError."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """What decides the answers beside the contract, as a key for a cache."""

    @property
    def build(self) -> BuildInputs | None:
        """What RKNN-Toolkit2 builds, where this runtime builds something."""
        return None

    @property
    def recipe(self) -> Recipe | None:
        """How the model was built for an NPU; None where it was not, or that is not known."""
        return self.build.recipe if self.build is not None else None

    @property
    def origin(self) -> BuildInputs | None:
        """What the model was built from, where that is at hand."""
        return self.build

    @property
    def on(self) -> str | None:
        """Address of the board that runs the model; None where it runs here."""
        return None

    @property
    def hardware(self) -> str:
        """Chip, driver and library of the NPU that the numbers come from; "" for none."""
        return ""

    @property
    def npu_cores(self) -> int:
        """NPU cores that may be used; 0 where there is no NPU."""
        return 0

    def on_core(self, number: int) -> Backend:
        """The same for worker `number` of several: each has an NPU core in turn."""
        return self

    def in_floats(self) -> Backend:
        """The same with float inputs and outputs, as the vendor's Python demos have them."""
        return self


def nothing_to_build() -> RkzooError:
    """For a model that RKNN-Toolkit2 does not build."""
    return RkzooError("There is nothing to build.", code=1)
