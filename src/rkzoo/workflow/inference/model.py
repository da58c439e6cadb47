"""A model that answers pictures: what `rkzoo.load` returns."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.json_values import to_json_value
from rkzoo.session import Closeable, Label
from rkzoo.tasks.collection import Collection, Index
from rkzoo.vision.image import as_png, write
from rkzoo.vision.letterbox import with_channels
from rkzoo.workflow.inference.inputs import PICTURE, TRANSPARENT, InputKind

if TYPE_CHECKING:
    import supervision

Image = NDArray[np.uint8]


class Prediction(Protocol):
    """What every task's result can do."""

    def __len__(self) -> int: ...

    def to_json(self) -> list[dict[str, Any]]: ...

    def draw(self, image: Image) -> Image: ...

    def lines(self) -> list[str]: ...


@runtime_checkable
class Saveable(Protocol):
    """A result that is no drawing: text, a sound. `suffix` of the usual file of it."""

    suffix: str

    def save(self, path: Path) -> None: ...


@runtime_checkable
class SaveableSidecar(Protocol):
    """A result that is more than its drawing shows, and is written beside it."""

    def save_sidecar(self, drawn: Path) -> None: ...


Draw = Callable[[Any, Image], Image]
Answer = Callable[[Any], tuple[Prediction, tuple[str, ...]]]


@dataclass(frozen=True)
class Batch:
    """What answers up to `size` pictures by one run of the network."""

    size: int
    answer: Callable[[Sequence[Any]], list[tuple[Prediction, tuple[str, ...]]]]


def draw_prediction(prediction: Prediction, image: Image) -> Image:
    """Draws a result that needs nothing else to be drawn."""
    return prediction.draw(image)


@dataclass(frozen=True)
class Result:
    """What was found in one picture, sound or text.

    `found` holds the arrays in source-image coordinates, `source` what was read (a picture in
    BGR, a sound, a text), `runtime` where the numbers come from (onnx, simulator, board),
    `seconds` the time from there to the result. `warnings` say what is likely wrong with it.

    Iterating gives a Result for each thing found; an int, a slice, indices or a mask of one bool
    a thing choose some. The properties give the arrays of `found` under the same name for every
    task, and None where it has no such thing; what is found in a picture is in its pixels.
    """

    prediction: Prediction
    source: Any
    path: Path | None
    runtime: Label
    seconds: float
    painter: Draw = draw_prediction
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prediction)

    def __getitem__(self, index: Index) -> Result:
        """The things at an int, a slice, indices or a mask. Raises RkzooError where they are
        not apart from each other (the classes of a picture's pixels), and IndexError."""
        if not isinstance(self.prediction, Collection):
            raise RkzooError(
                "This result has no things that could be taken one by one.",
                f"It is of the kind {type(self.prediction).__name__}.",
                "Use its properties, or what .found offers.",
            )
        return replace(self, prediction=self.prediction[index])

    def __iter__(self) -> Iterator[Result]:
        return (self[i] for i in range(len(self)))

    @property
    def boxes(self) -> NDArray[np.float32] | None:
        """(N, 4) float32 upright boxes x1, y1, x2, y2."""
        name = "xyxy" if hasattr(self.prediction, "xyxy") else "boxes"
        boxes: NDArray[np.float32] | None = self._array(name)
        return boxes

    @property
    def scores(self) -> NDArray[np.float32] | None:
        """(N,) float32 in 0..1 (-1..1 for likeness; (W, C) for the windows of a sound)."""
        scores: NDArray[np.float32] | None = self._array("scores")
        return scores

    @property
    def class_ids(self) -> NDArray[np.int32] | None:
        """(N,) int32."""
        class_ids: NDArray[np.int32] | None = self._array("class_ids")
        return class_ids

    @property
    def labels(self) -> list[str] | None:
        """The name of each thing's class, N strings."""
        names = self._array("names")
        return None if names is None else list(names)

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """(N, H, W) bool at picture size; for classes of pixels one mask a class."""
        dense = self._array("dense")
        return None if dense is None else dense()

    @property
    def keypoints(self) -> NDArray[np.float32] | None:
        """(N, K, 3) float32 x, y, visibility; of faces (N, 5, 2) x, y."""
        keypoints: NDArray[np.float32] | None = self._array("keypoints")
        return keypoints

    @property
    def polygons(self) -> NDArray[np.float32] | list[list[NDArray[np.float32]]] | None:
        """(N, 4, 2) corners of text and oriented boxes; of masks N lists of outlines (P, 2)."""
        polygons: NDArray[np.float32] | list[list[NDArray[np.float32]]] | None = self._array(
            "polygons"
        )
        return polygons

    @property
    def texts(self) -> tuple[str, ...] | None:
        """N strings: lines read, what was said, translations."""
        texts: tuple[str, ...] | None = self._array("texts")
        return texts

    @property
    def probs(self) -> NDArray[np.float32] | None:
        """(K,) float32 in 0..1: of a classifier the best classes, the best first, as
        `class_ids` and `labels` name them; of a sound all classes."""
        probs: NDArray[np.float32] | None = self._array("probs")
        return probs

    @property
    def found(self) -> Prediction:
        """The former name of `prediction`."""
        return self.prediction

    def _array(self, name: str) -> Any:
        return getattr(self.prediction, name, None)

    @property
    def image(self) -> Image:
        """The BGR picture. Raises RkzooError where it was none."""
        if not isinstance(self.source, np.ndarray):
            raise RkzooError(
                "This result has no picture.",
                f"It is of the kind {type(self.prediction).__name__}.",
                "Use to_json() or save().",
            )
        return self.source

    def to_json(self) -> dict[str, Any]:
        """The result as plain data; coordinates in source-image pixels."""
        picture = isinstance(self.source, np.ndarray)
        size = {"width": self.image.shape[1], "height": self.image.shape[0]} if picture else {}
        fields = {
            "file": str(self.path) if self.path else None,
            **size,
            "runtime": self.runtime,
            "seconds": round(self.seconds, 4),
            "results": self.prediction.to_json(),
            "warnings": list(self.warnings),
        }
        document: dict[str, Any] = to_json_value(fields)
        return document

    def to_supervision(self) -> supervision.Detections:
        """Boxes as supervision.Detections. Raises RkzooError for results without boxes."""
        convert = getattr(self.prediction, "to_supervision", None)
        if convert is None:
            raise RkzooError(
                "This result has no boxes for supervision.",
                f"It is of the kind {type(self.prediction).__name__}.",
                "Use to_json() or the arrays in .found.",
            )
        detections: supervision.Detections = convert()
        return detections

    def draw(self) -> Image:
        """A BGR picture that shows the result."""
        return self.painter(self.prediction, self.image)

    def _repr_png_(self) -> bytes | None:
        """The drawn picture, for a notebook."""
        if isinstance(self.prediction, Saveable):
            return None
        return as_png(self.draw())

    def _repr_html_(self) -> str | None:
        """What cannot be drawn, for a notebook: its lines."""
        if not isinstance(self.prediction, Saveable):
            return None
        return f"<pre>{html.escape(chr(10).join(self.prediction.lines()))}</pre>"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the drawn picture, the text or the sound; the suffix chooses the format."""
        target = Path(path)
        if isinstance(self.prediction, Saveable):
            self.prediction.save(target)
        else:
            write(target, self.draw())
            if isinstance(self.prediction, SaveableSidecar):
                self.prediction.save_sidecar(target)
        return target


_ONE_SOURCE = frozenset({"picture", "sound", "text"})


class Model(Closeable):
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
        painter: Draw = draw_prediction,
        input_kind: InputKind = PICTURE,
        batch: Batch | None = None,
    ) -> None:
        self.name, self.runtime, self.answer, self.medium = name, runtime, answer, input_kind
        self._resources, self._painter = resources, painter
        self._batch = batch
        self.batch = 1 if batch is None else batch.size

    def __call__(self, source: Any) -> Result:
        """Answers one picture, sound or text.

        Args:
            source: The path of a picture or sound, or a picture as BGR uint8 (H, W, 3), for a
                model of four channels BGRA (H, W, 4) too; a text for a model of texts; for plain
                tensors arrays by the names of their inputs, an array where there is one input, or
                the path of an .npy or .npz.

        Returns:
            What was found in it.

        Raises:
            RkzooError: The source cannot be read.
        """
        path, channels = self.read(source)
        start = perf_counter()
        prediction, warnings = self.answer(channels)
        return self._result(path, channels, prediction, warnings, perf_counter() - start)

    def many(self, sources: Sequence[Any]) -> list[Result]:
        """Answers several, each as `__call__` does: `batch` of them by one run, where the model
        was built for a batch. The `seconds` of each are its share of its run.

        Args:
            sources: As `__call__` takes them.

        Returns:
            What was found in each, in order.

        Raises:
            RkzooError: One of them cannot be read.
        """
        return self.answer_read([self.read(source) for source in sources])

    def answer_read(self, pairs: Sequence[tuple[Path | None, Any]]) -> list[Result]:
        """As `many`, for what `read` gave."""
        results = []
        for place in range(0, len(pairs), self.batch):
            part = pairs[place : place + self.batch]
            start = perf_counter()
            if self._batch is None:
                answers = [self.answer(channels) for _, channels in part]
            else:
                answers = self._batch.answer([channels for _, channels in part])
            seconds = (perf_counter() - start) / len(part)
            results += [
                self._result(path, channels, *answer, seconds)
                for (path, channels), answer in zip(part, answers, strict=True)
            ]
        return results

    def read(self, source: Any) -> tuple[Path | None, Any]:
        """The path of a source, where it has one, and what is in it. Raises RkzooError."""
        alpha = self.medium.read is TRANSPARENT.read
        if isinstance(source, Mapping | list | tuple) and self.medium.name in _ONE_SOURCE:
            raise RkzooError(
                f"{self.name} takes one {self.medium.name} at a time.",
                f"It was given a {type(source).__name__}.",
                "Call it for each.",
            )
        if isinstance(source, np.ndarray) and self.medium.name == PICTURE.name:
            return None, _checked(source, alpha)
        return self.medium.file(source), self.medium.read(source)

    def _result(
        self,
        path: Path | None,
        channels: Any,
        prediction: Prediction,
        warnings: tuple[str, ...],
        seconds: float,
    ) -> Result:
        alpha = self.medium.read is TRANSPARENT.read
        channels = with_channels(channels, 3) if alpha else channels
        return Result(prediction, channels, path, self.runtime, seconds, self._painter, warnings)

    def close(self) -> None:
        """Ends the simulator's process, or frees the NPU, where there is one."""
        self._resources.close()


def _checked(image: Image, alpha: bool = False) -> Image:
    channels = (3, 4) if alpha else (3,)
    if (
        image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] not in channels
        or not image.size
    ):
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
