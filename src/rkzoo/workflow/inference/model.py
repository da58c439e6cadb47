"""A model that answers pictures: what `rkzoo.load` returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.session import Closing, Label
from rkzoo.vision.image import write
from rkzoo.workflow.inference.inputs import PICTURE, Medium

if TYPE_CHECKING:
    import supervision

Image = NDArray[np.uint8]


class Found(Protocol):
    """What every task's result can do."""

    def __len__(self) -> int: ...

    def to_json(self) -> list[dict[str, Any]]: ...

    def draw(self, image: Image) -> Image: ...

    def lines(self) -> list[str]: ...


@runtime_checkable
class Written(Protocol):
    """A result that is no drawing: text, a sound. `suffix` of the usual file of it."""

    suffix: str

    def save(self, path: Path) -> None: ...


@runtime_checkable
class Beside(Protocol):
    """A result that is more than its drawing shows, and is written beside it."""

    def save_beside(self, drawn: Path) -> None: ...


Draw = Callable[[Any, Image], Image]
Answer = Callable[[Any], tuple[Found, tuple[str, ...]]]


def plainly(found: Found, image: Image) -> Image:
    """Draws a result that needs nothing else to be drawn."""
    return found.draw(image)


@dataclass(frozen=True)
class Result:
    """What was found in one picture, sound or text.

    `found` holds the arrays in source-image coordinates, `source` what was read (a picture in
    BGR, a sound, a text), `runtime` where the numbers come from (onnx, simulator, board),
    `seconds` the time from there to the result. `warnings` say what is likely wrong with it.
    """

    found: Found
    source: Any
    path: Path | None
    runtime: Label
    seconds: float
    painter: Draw = plainly
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    @property
    def image(self) -> Image:
        """The BGR picture. Raises RkzooError where it was none."""
        if not isinstance(self.source, np.ndarray):
            raise RkzooError(
                "This result has no picture.",
                f"It is of the kind {type(self.found).__name__}.",
                "Use to_json() or save().",
            )
        return self.source

    def to_json(self) -> dict[str, Any]:
        """The result as plain data; coordinates in source-image pixels."""
        picture = isinstance(self.source, np.ndarray)
        size = {"width": self.image.shape[1], "height": self.image.shape[0]} if picture else {}
        return {
            "file": str(self.path) if self.path else None,
            **size,
            "runtime": self.runtime,
            "seconds": round(self.seconds, 4),
            "results": self.found.to_json(),
            "warnings": list(self.warnings),
        }

    def to_supervision(self) -> supervision.Detections:
        """Boxes as supervision.Detections. Raises RkzooError for results without boxes."""
        convert = getattr(self.found, "to_supervision", None)
        if convert is None:
            raise RkzooError(
                "This result has no boxes for supervision.",
                f"It is of the kind {type(self.found).__name__}.",
                "Use to_json() or the arrays in .found.",
            )
        detections: supervision.Detections = convert()
        return detections

    def draw(self) -> Image:
        """A BGR picture that shows the result."""
        return self.painter(self.found, self.image)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the drawn picture, the text or the sound; the suffix chooses the format."""
        target = Path(path)
        if isinstance(self.found, Written):
            self.found.save(target)
        else:
            write(target, self.draw())
            if isinstance(self.found, Beside):
                self.found.save_beside(target)
        return target


class Model(Closing):
    """Answers pictures (or sounds, or texts: its `medium`), one after another; made by
    `rkzoo.load`.

    `answer` takes what the medium reads and gives what was found and what is likely wrong.

    A context manager; `close` ends the simulator's process where there is one.
    """

    def __init__(
        self,
        name: str,
        runtime: Label,
        answer: Answer,
        resources: ExitStack,
        painter: Draw = plainly,
        medium: Medium = PICTURE,
    ) -> None:
        self.name, self.runtime, self.answer, self.medium = name, runtime, answer, medium
        self._resources, self._painter = resources, painter

    def __call__(self, source: Any) -> Result:
        """Reads one picture, a path or BGR uint8 (H, W, 3); or one sound or text."""
        if isinstance(source, np.ndarray) and self.medium is PICTURE:
            path, given = None, _checked(source)
        else:
            path, given = self.medium.file(source), self.medium.read(source)
        start = perf_counter()
        found, warnings = self.answer(given)
        seconds = perf_counter() - start
        return Result(found, given, path, self.runtime, seconds, self._painter, warnings)

    def close(self) -> None:
        self._resources.close()


def _checked(image: Image) -> Image:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise RkzooError(
            f"The picture is an array of {image.dtype} {list(image.shape)}.",
            "A colour picture is uint8 (height, width, 3) in BGR order, as OpenCV reads it.",
            "Convert it, or give the path of the file.",
        )
    return image


def save_names(sources: Sequence[Path | None]) -> list[str]:
    """An output name for each source: its own, with a number where two are the same; `text` for
    what was typed."""
    taken: dict[str, int] = {}
    names = []
    for source in sources:
        path = source or Path("text")
        count = taken.get(path.name, 0)
        taken[path.name] = count + 1
        names.append(path.name if not count else f"{path.stem}-{count}{path.suffix}")
    return names
