"""What a comparison finds, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rkzoo.plain import plain
from rkzoo.session import Label
from rkzoo.toolkit.analysis import LayerError
from rkzoo.workflow.comparison.diagnosis import Cause, Runtime
from rkzoo.workflow.comparison.matching import Agreement, Matches
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures

NOTE = (
    "float is ONNX Runtime on this PC, float16 and INT8 are the toolkit's simulator. The "
    "simulator's figures do not depend on the chip: they are the same for every one, and a board "
    "can differ from them a little."
)


@dataclass(frozen=True)
class Picture:
    """A picture to compare on: BGR uint8 (H, W, 3), or of a model with plain inputs a sample of
    them by name; and its file where it has one."""

    name: str
    image: Any = field(repr=False)
    path: Path | None = None


@dataclass(frozen=True)
class Ran:
    """One runtime over all pictures. `outputs` and `matches` (one a picture) are against
    float, and empty for float itself; `hurt` says that it does not answer as float does.
    `counts` are the things found in each picture, None where the model has no such answer;
    `drawn` their pictures as JPEG."""

    runtime: Runtime
    label: Label
    counts: tuple[int | None, ...]
    outputs: tuple[OutputFigures, ...] = ()
    matches: tuple[Matches, ...] = ()
    agreement: Agreement | None = None
    hurt: bool = False
    seconds: float = 0.0
    drawn: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Layers:
    """The INT8 error layer by layer, of one model in one picture. `first_bad` is the first
    tensor whose cosine falls below 0.99 with all before it in INT8 too, `worst` those that are
    the worst by themselves."""

    part: str
    picture: str
    rows: tuple[LayerError, ...]
    first_bad: str | None
    worst: tuple[LayerError, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured. `ran` begins with float; `skipped` says what was left out
    and why, `causes` what is likely wrong, `verdict` all of it in a sentence, `next` the
    command that goes on from there."""

    model: str
    soc: str
    toolkit: str
    threshold: float
    pictures: tuple[str, ...]
    ran: tuple[Ran, ...]
    layers: tuple[Layers, ...]
    causes: tuple[Cause, ...]
    skipped: tuple[str, ...]
    verdict: str
    next: str
    seconds: float
    board: None = None
    note: str = NOTE

    def to_json(self) -> dict[str, Any]:
        """As plain data, without the drawn pictures; what is not finite becomes null."""
        bare = replace(self, ran=tuple(replace(one, drawn=()) for one in self.ran))
        document: dict[str, Any] = plain(bare)
        for one in document["ran"]:
            del one["drawn"]
        return document
