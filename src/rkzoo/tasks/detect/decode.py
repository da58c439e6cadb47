"""Detection tensors to boxes, in the integer domain.

Integer scores are compared with an integer threshold; only the survivors are gathered
and turned into floats, and the softmax of the box distribution is a table of 256 values
(the zero point cancels in a softmax). Nothing touches a whole tensor but one maximum
over the class scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract import DetectHead, HeadOutput, TensorSpec
from rkzoo.errors import RkzooError

Array = NDArray[Any]
F32 = NDArray[np.float32]

# Rounding of the quantised score sum can hide a cell that is just above the threshold.
_SUM_SLACK = 2


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before suppression: xyxy (N, 4) in model pixels, score (N,), class_id (N,)."""

    xyxy: F32
    score: F32
    class_id: NDArray[np.int32]


@dataclass(frozen=True)
class Plane:
    """One output tensor and how to read single cells of it."""

    index: int
    spec: TensorSpec

    def cells(self, outputs: Sequence[Array]) -> Array:
        """A (channels, cells) view, whatever the layout, without a copy."""
        array = outputs[self.index]
        if self.spec.layout == "NHWC":
            return cast(Array, array.reshape(-1, array.shape[-1]).T)
        return array.reshape(array.shape[1], -1)

    def threshold(self, value: float) -> float:
        """The smallest stored number that stands for at least `value`."""
        if self.spec.scale is None:
            return value
        # The slack keeps a value that lies on the lattice from being lost to rounding.
        return float(np.ceil(value / self.spec.scale + self.spec.zero_point - 1e-4))

    def values(self, array: Array) -> F32:
        values = array.astype(np.float32)
        if self.spec.scale is not None:
            values -= np.float32(self.spec.zero_point)
            values *= np.float32(self.spec.scale)
        return values

    @cached_property
    def exponents(self) -> F32 | None:
        """exp(scale * q) for every 8-bit q, indexed by the byte's unsigned value."""
        if self.spec.scale is None or self.spec.dtype not in ("int8", "uint8"):
            return None
        codes = np.arange(256, dtype=np.uint8)
        signed = codes.view(np.int8) if self.spec.dtype == "int8" else codes
        # The largest code becomes exp(0): nothing overflows.
        steps = signed.astype(np.float64) - float(signed.max())
        return np.exp(steps * self.spec.scale).astype(np.float32)


@dataclass(frozen=True)
class Level:
    """One pyramid level: its planes, its stride in pixels, its grid (rows, columns)."""

    score: Plane
    box: Plane
    score_sum: Plane | None
    stride: int
    grid: tuple[int, int]
    reg_max: int

    def boxes(self, outputs: Sequence[Array], cells: NDArray[np.intp]) -> F32:
        """xyxy (N, 4) in model pixels of the given cells."""
        distances = self._distances(self.box.cells(outputs)[:, cells])
        columns = self.grid[1]
        centre = np.empty((len(cells), 2), np.float32)
        centre[:, 0] = cells % columns + 0.5
        centre[:, 1] = cells // columns + 0.5
        xyxy = np.concatenate((centre - distances[:, :2], centre + distances[:, 2:]), axis=1)
        xyxy *= self.stride
        return np.asarray(xyxy, np.float32)

    def _distances(self, coded: Array) -> F32:
        """(4 * reg_max, N) distribution logits to (N, 4) distances l,t,r,b in cells.

        Expectation of the softmax: https://arxiv.org/abs/2006.04388, formula 3.
        """
        table = self.box.exponents
        if table is not None:
            weights = table[np.ascontiguousarray(coded.T).view(np.uint8)]
        else:
            logits = self.box.values(coded.T).reshape(-1, 4, self.reg_max)
            weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        weights = weights.reshape(-1, self.reg_max)
        # One product gives both sums: of the weights and of weight times bin.
        sums = weights @ np.stack((np.ones(self.reg_max), np.arange(self.reg_max)), axis=1).astype(
            np.float32
        )
        return np.asarray((sums[:, 1] / sums[:, 0]).reshape(-1, 4), np.float32)


@dataclass(frozen=True)
class DecodedLevel:
    """The uncut tensor 1x(4+C)xN: centre, size and scores of every candidate."""

    plane: Plane

    @property
    def score(self) -> Plane:
        return self.plane

    def boxes(self, outputs: Sequence[Array], cells: NDArray[np.intp]) -> F32:
        xywh = self.plane.values(self.plane.cells(outputs)[:4, cells].T)
        half = xywh[:, 2:] / 2
        return np.concatenate((xywh[:, :2] - half, xywh[:, :2] + half), axis=1)


class DetectDecoder:
    """Reads the outputs of one session; made once, called for every frame.

    `specs` are the session's outputs; they are matched to the head by name, or by
    position where a session renames them. Raises RkzooError when the tensors do not
    fit the head.
    """

    def __init__(
        self, head: DetectHead, size: tuple[int, int], specs: Sequence[TensorSpec]
    ) -> None:
        self.head = head
        planes = _match(head, specs)
        if "decoded" in planes:
            self.levels: list[Level | DecodedLevel] = [DecodedLevel(planes["decoded"][0])]
        else:
            self.levels = [
                self._level(planes, level, stride, size)
                for level, stride in enumerate(head.strides)
            ]

    def _level(
        self, planes: dict[str, dict[int, Plane]], level: int, stride: int, size: tuple[int, int]
    ) -> Level:
        try:
            box, score = planes["box"][level], planes["score"][level]
        except KeyError:
            raise RkzooError(
                f"Level {level} of the model has no box or no score tensor.",
                f"The head names {[output.name for output in self.head.outputs]}.",
                "Convert the model again with rkzoo convert.",
            ) from None
        _expect(box, 4 * self.head.reg_max, "box")
        _expect(score, self.head.classes, "score")
        return Level(
            score=score,
            box=box,
            score_sum=planes.get("score_sum", {}).get(level),
            stride=stride,
            grid=(size[0] // stride, size[1] // stride),
            reg_max=self.head.reg_max,
        )

    def candidates(
        self, outputs: Sequence[Array], confidence: float, *, multi_label: bool = False
    ) -> Candidates:
        """Every box whose score reaches `confidence`, before suppression.

        One box a cell (its best class), or with `multi_label` one for every class that
        reaches it, as the upstream projects do when they evaluate.
        """
        parts = [self._of(level, outputs, confidence, multi_label) for level in self.levels]
        return Candidates(
            np.concatenate([part.xyxy for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.class_id for part in parts]),
        )

    def _of(
        self, level: Level | DecodedLevel, outputs: Sequence[Array], confidence: float, multi: bool
    ) -> Candidates:
        plane = level.score
        scores = plane.cells(outputs)
        if isinstance(level, DecodedLevel):
            scores = scores[4:]
        stored = plane.threshold(confidence if self.head.activated else _logit(confidence))
        gate = level.score_sum if isinstance(level, Level) else None
        if gate is not None:
            sums = gate.cells(outputs)[0]
            cells = np.flatnonzero(sums >= gate.threshold(confidence) - _SUM_SLACK)
            scores = scores[:, cells]
        else:
            cells = np.flatnonzero(scores.max(axis=0) >= stored)
            scores = scores[:, cells]
        if multi:
            class_id, which = np.nonzero(scores >= stored)
        else:
            class_id = scores.argmax(axis=0)
            which = np.flatnonzero(scores[class_id, np.arange(len(cells))] >= stored)
            class_id = class_id[which]
        value = plane.values(scores[class_id, which])
        if not self.head.activated:
            value = _sigmoid(value)
        # A scale of 1/255 that was rounded up can give 1.0000001.
        np.clip(value, 0, 1, out=value)
        return Candidates(
            level.boxes(outputs, cells[which]), value, class_id.astype(np.int32, copy=False)
        )

    def dense(self, outputs: Sequence[Array]) -> tuple[F32, F32]:
        """Every cell: centre-size boxes (N, 4) in pixels and scores (N, C).

        For proving a cut equal to the uncut graph, not for frames.
        """
        boxes, scores = [], []
        for level in self.levels:
            table = level.score.cells(outputs)
            if isinstance(level, DecodedLevel):
                table = table[4:]
            xyxy = level.boxes(outputs, np.arange(table.shape[1]))
            boxes.append(
                np.concatenate(((xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]), axis=1)
            )
            values = level.score.values(table.T)
            scores.append(values if self.head.activated else _sigmoid(values))
        return np.concatenate(boxes), np.concatenate(scores)


def _sigmoid(logits: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _logit(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return float(np.log(p / (1 - p)))


def _match(head: DetectHead, specs: Sequence[TensorSpec]) -> dict[str, dict[int, Plane]]:
    if len(specs) != len(head.outputs):
        raise RkzooError(
            f"The model has {len(specs)} outputs where its contract names {len(head.outputs)}.",
            "The file and its description do not belong together.",
            "Convert the model again with rkzoo convert, or look at it with rkzoo inspect.",
        )
    by_name = {spec.name: index for index, spec in enumerate(specs)}
    known = all(output.name in by_name for output in head.outputs)

    def plane(position: int, output: HeadOutput) -> Plane:
        index = by_name[output.name] if known else position
        return Plane(index, specs[index])

    planes: dict[str, dict[int, Plane]] = {}
    for position, output in enumerate(head.outputs):
        planes.setdefault(output.role, {})[output.level] = plane(position, output)
    return planes


def _expect(plane: Plane, channels: int, what: str) -> None:
    spec = plane.spec
    found = spec.shape[-1] if spec.layout == "NHWC" else spec.shape[1]
    if found not in (channels, -1):
        raise RkzooError(
            f"The {what} tensor {spec.name} has {found} channels where {channels} are promised.",
            f"Its shape is {list(spec.shape)}.",
            "Look at the model with rkzoo inspect.",
        )
