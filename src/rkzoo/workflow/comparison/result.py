"""Comparison result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rkzoo.json_values import to_json_value
from rkzoo.toolkit.analysis import LayerError
from rkzoo.workflow.comparison.check_outputs import KNOWN, OutputCheck
from rkzoo.workflow.comparison.diagnosis import Cause, Runtime
from rkzoo.workflow.comparison.matching import Agreement, Matches
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures

NOTE = (
    "float is ONNX Runtime on this PC, float16 and INT8 are the toolkit's simulator. The "
    "simulator's figures do not depend on the chip: they are the same for every one, and a board "
    "can differ from them a little."
)

BOARD_NOTE = (
    "float is ONNX Runtime on this PC, float16 and INT8 are the toolkit's simulator, and the board "
    "runs what was built for its chip on the same inputs. The simulator is no exact model of it."
)


@dataclass(frozen=True)
class ComparedImage:
    """An image to compare on: BGR uint8 (H, W, 3), or for plain tensors a sample, the inputs by
    name; and its file if it has one."""

    name: str
    image: Any = field(repr=False)
    path: Path | None = None


@dataclass(frozen=True)
class BoardOutputs:
    """A board's outputs against the simulator's, of one number format. `first` is the first in the
    graph's order that differs by more than boards were seen to."""

    runtime: Runtime
    outputs: tuple[OutputCheck, ...]

    @property
    def first(self) -> OutputCheck | None:
        return next((one for one in self.outputs if one.level != "ok"), None)


@dataclass(frozen=True)
class BoardComparison:
    """The board of a comparison.

    Attributes:
        label: origin of its figures, as of `check`.
        board, chip, driver, library, library_version: the machine, and its NPU's software.
        against: its outputs against the simulator's.
        says: what they show, a sentence for each number format.
        known: what is known of boards' deviation.
    """

    label: str
    board: str
    chip: str | None
    driver: str
    library: str
    library_version: str
    against: tuple[BoardOutputs, ...]
    says: tuple[str, ...]
    known: str = KNOWN

    @property
    def differs(self) -> bool:
        """Whether it differs from the simulator."""
        return any(one.first is not None for one in self.against)


@dataclass(frozen=True)
class RuntimeComparison:
    """One backend over all images.

    Attributes:
        runtime: what was run.
        label: origin of the figures.
        counts: number of items per image; None where the model has none.
        outputs, matches: comparison with float (`matches` per image); empty for float itself.
        agreement: aggregate of `matches`.
        hurt: whether the results deviate from float.
        seconds: duration.
        drawn: drawn images as JPEG.
    """

    runtime: Runtime
    label: str
    counts: tuple[int | None, ...]
    outputs: tuple[OutputFigures, ...] = ()
    matches: tuple[Matches, ...] = ()
    agreement: Agreement | None = None
    hurt: bool = False
    seconds: float = 0.0
    drawn: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class LayerComparison:
    """INT8 error by layer, of one model on one image. `first_bad`: first tensor whose cosine falls
    below 0.99 with all preceding layers in INT8; `worst`: the layers that are worst when quantized
    alone.
    """

    part: str
    picture: str
    rows: tuple[LayerError, ...]
    first_bad: str | None
    worst: tuple[LayerError, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured.

    Attributes:
        ran: backends, float first.
        layers: INT8 error by layer.
        causes: likely causes.
        skipped: what was left out, and why.
        verdict: summary.
        next: suggested command.
        board: the board that was asked, too.
    """

    model: str
    soc: str
    toolkit: str
    threshold: float
    pictures: tuple[str, ...]
    ran: tuple[RuntimeComparison, ...]
    layers: tuple[LayerComparison, ...]
    causes: tuple[Cause, ...]
    skipped: tuple[str, ...]
    verdict: str
    next: str
    seconds: float
    board: BoardComparison | None = None
    note: str = NOTE

    def to_json(self) -> dict[str, Any]:
        """Result as JSON types, without drawn images; values that are not finite become null."""
        bare = replace(self, ran=tuple(replace(variant, drawn=()) for variant in self.ran))
        document: dict[str, Any] = to_json_value(bare)
        for entry in document["ran"]:
            del entry["drawn"]
        return document
