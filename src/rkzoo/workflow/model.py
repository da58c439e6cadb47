"""A model that answers pictures: what `rkzoo.load` returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.session import Closing, Label
from rkzoo.vision.image import read, write

if TYPE_CHECKING:
    import supervision

Image = NDArray[np.uint8]


class Found(Protocol):
    """What every task's result can do."""

    def __len__(self) -> int: ...

    def to_json(self) -> list[dict[str, Any]]: ...

    def draw(self, image: Image) -> Image: ...

    def lines(self) -> list[str]: ...


Draw = Callable[[Any, Image], Image]
Answer = Callable[[Image], tuple[Found, tuple[str, ...]]]


def plainly(found: Found, image: Image) -> Image:
    """Draws a result that needs nothing else to be drawn."""
    return found.draw(image)


@dataclass(frozen=True)
class Result:
    """What was found in one picture.

    `found` holds the arrays in source-image coordinates, `image` the BGR picture itself,
    `runtime` where the numbers come from (onnx, simulator, board), `seconds` the time
    from the decoded picture to the result. `warnings` say what is likely wrong with it.
    """

    found: Found
    image: Image
    path: Path | None
    runtime: Label
    seconds: float
    painter: Draw = plainly
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    def to_json(self) -> dict[str, Any]:
        """The result as plain data; coordinates in source-image pixels."""
        return {
            "file": str(self.path) if self.path else None,
            "width": self.image.shape[1],
            "height": self.image.shape[0],
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
        """Writes the drawn picture; the suffix chooses the format."""
        target = Path(path)
        write(target, self.draw())
        return target


class Model(Closing):
    """Answers pictures, one after another; made by `rkzoo.load`.

    `answer` takes a BGR picture and gives what was found and what is likely wrong with it.

    A context manager; `close` ends the simulator's process where there is one.
    """

    def __init__(
        self,
        name: str,
        runtime: Label,
        answer: Answer,
        resources: ExitStack,
        painter: Draw = plainly,
    ) -> None:
        self.name, self.runtime, self.answer = name, runtime, answer
        self._resources, self._painter = resources, painter

    def __call__(self, source: str | os.PathLike[str] | Image) -> Result:
        """Reads one picture: a path, or BGR uint8 (H, W, 3)."""
        path = None if isinstance(source, np.ndarray) else Path(source)
        image = _checked(source) if isinstance(source, np.ndarray) else read(source)
        start = perf_counter()
        found, warnings = self.answer(image)
        seconds = perf_counter() - start
        return Result(found, image, path, self.runtime, seconds, self._painter, warnings)

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


def save_names(results: Sequence[Path]) -> dict[Path, str]:
    """An output name for each picture: its own, with a number where two are the same."""
    taken: dict[str, int] = {}
    names = {}
    for path in results:
        count = taken.get(path.name, 0)
        taken[path.name] = count + 1
        names[path] = path.name if not count else f"{path.stem}-{count}{path.suffix}"
    return names
