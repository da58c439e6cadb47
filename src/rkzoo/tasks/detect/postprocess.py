"""Postprocessing of every detection head that `DetectHead` can describe.

A head is a list of levels; a level has planes (box, score, objectness, extras) and a box
coding. An anchor-based head has one level per anchor; an uncut tensor is one level whose boxes
are decoded already. So one decoder serves all families.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.detect import DecodedOutput, DetectHead, Part
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.coding import CODINGS, Grid, distances, rotated
from rkzoo.tasks.detect.planes import F32, Array, Cells, Plane, Stack, logit, sigmoid

# In quantization steps: rounding of a score sum can hide a cell just above the threshold.
_SUM_SLACK = 2
_MANY = 1000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before NMS, in model pixels.

    Attributes:
        boxes: (N, 4) x1, y1, x2, y2, or (N, 5) cx, cy, w, h, angle of a rotated head.
        score: (N,) float32.
        class_id: (N,) int32.
        level, cell: (N,) level, and cell within it, of each box.
    """

    boxes: F32
    score: F32
    class_id: np.ndarray[tuple[int], np.dtype[np.int32]]
    level: Cells
    cell: Cells

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Array) -> Candidates:
        return Candidates(
            self.boxes[index],
            self.score[index],
            self.class_id[index],
            self.level[index],
            self.cell[index],
        )


@dataclass(frozen=True, slots=True)
class Extras:
    """Further outputs of given candidates.

    Attributes:
        coefficients: (N, M) mask coefficients.
        keypoints: (N, K, 2 or 3) x, y in model pixels, and visibility in 0..1; (N, K, 1) visibility
            alone.
    """

    coefficients: F32 | None = None
    keypoints: F32 | None = None


T = TypeVar("T")


@dataclass(frozen=True)
class Level(Generic[T]):
    """Planes that share their cells; for all levels together, their stacks.

    `row` is box, objectness and scores where one tensor holds them in this order. `decoded`: boxes
    and keypoints are in pixels already. `picked`: best score and class index, of a head that
    gives only these.
    """

    grid: Grid
    box: T
    score: T
    objectness: T | None = None
    score_sum: T | None = None
    row: T | None = None
    coefficients: T | None = None
    keypoints: T | None = None
    angle: T | None = None
    picked: T | None = None
    decoded: DecodedOutput | None = None


class DetectDecoder:
    """Decodes the outputs of one session. Construct once, call once per frame.

    Args:
        head: describes the detection head.
        size: input (height, width).
        specs: the session's outputs, matched to the head by name, or by position where the session
            renames them.

    Raises:
        RkzooError: the tensors do not fit the head.
    """

    def __init__(
        self, head: DetectHead, size: tuple[int, int], specs: Sequence[TensorSpec]
    ) -> None:
        self.head = head
        planes = _Planes(head, specs)
        uncut = planes.has("decoded") or (head.decoded is not None and not head.decoded.raw)
        build = _uncut if uncut else _anchored if planes.has("anchors") else _plain
        self.levels = build(head, size, planes)
        if not uncut:
            for level in self.levels:
                _expect_cells(level)
        starts = [0, *accumulate(len(level.grid) for level in self.levels)]
        self._starts = np.array(starts[:-1], np.intp)
        # All levels at once: the overhead of a numpy call exceeds the work on a few numbers.
        self._all = _together(self.levels, starts)
        self.prototypes = planes.whole("prototypes", head.coefficients)
        values = head.keypoint_values
        self._width_height = np.array(size[::-1], np.float32)
        self._points, self._point_rows = planes.points(head.keypoints, values)
        self._angles = _alone(planes.whole("angles", 1))

    # ---- candidates -----------------------------------------------------------------

    def candidates(
        self, outputs: Sequence[Array], confidence: float, *, multi_label: bool = False
    ) -> Candidates:
        """Return every box whose score reaches `confidence`, before NMS.

        Args:
            outputs: raw tensors of the session.
            confidence: threshold in 0..1.
            multi_label: one box per class that reaches the threshold, as upstream evaluation does,
                instead of one box per cell (its best class).
        """
        every = self._all
        cells = self._gate(outputs, confidence)
        if not len(cells):
            return self._nothing()
        row = None if every.row is None else every.row.gather(outputs, cells)
        if every.picked is not None:
            score, class_id = self._picked(every.picked, outputs, cells)
            which = np.flatnonzero(score >= np.float32(confidence))
            score, class_id = score[which], class_id[which]
        else:
            score, class_id, which = self._scores(outputs, cells, confidence, multi_label, row)
        if not len(which):
            return self._nothing()
        cells = cells.take(which)
        # A scale of 1/255 that was rounded up can give 1.0000001.
        np.minimum(score, 1, out=score)
        boxes = self._boxes(outputs, cells, None if row is None else row[:, :4].take(which, 0))
        number = self._starts.searchsorted(cells, "right") - 1
        return Candidates(boxes, score, class_id, number, cells - self._starts.take(number))

    def _nothing(self) -> Candidates:
        none = np.empty(0, np.intp)
        return Candidates(
            np.empty((0, 5 if self.head.rotated else 4), np.float32), np.empty(0, np.float32),
            np.empty(0, np.int32), none, none,
        )  # fmt: skip

    def _gate(self, outputs: Sequence[Array], confidence: float) -> Cells:
        """Cells that can reach the threshold, found on the cheapest suitable plane."""
        every = self._all
        # Neither factor is above 1, so each alone reaches what their product has to.
        least = confidence**2 if self.head.objectness == "geometric" else confidence
        threshold = least if self.head.activated else logit(least)
        if every.objectness is not None:
            return every.objectness.cells_over(outputs, threshold)
        if every.score_sum is not None:
            total = confidence - _SUM_SLACK * every.score_sum.step
            # With a very low threshold nearly everything passes: use the scores themselves.
            if total > 0:
                cells = every.score_sum.cells_over(outputs, total)
                if len(cells) < _MANY:
                    return cells
        return every.score.cells_over(outputs, threshold)

    def _scores(
        self,
        outputs: Sequence[Array],
        cells: Cells,
        confidence: float,
        multi: bool,
        row: Array | None,
    ) -> tuple[F32, Array, Cells]:
        """Scores (n,), classes (n,) and their row indices into `cells` (n,)."""
        plane, objectness = self._all.score, self._all.objectness
        factor = None
        if objectness is not None:
            seen = objectness.gather(outputs, cells) if row is None else row[:, 4:5]
            factor = self._activated(objectness, seen[:, 0], cells)
            if self.head.objectness == "alone":
                return factor, np.zeros(len(cells), np.int32), np.arange(len(cells))
        gathered = plane.gather(outputs, cells) if row is None else row[:, 5:]
        # A score equal to the threshold must not be lost to rounding.
        limit = np.float32(confidence) - np.float32(1e-6 if plane.step else 0)
        if multi:
            table = self._activated(plane, gathered, cells)
            if factor is not None:
                table = self._joint(table, factor[:, None])
            which, class_id = np.nonzero(table >= limit)
            return table[which, class_id], class_id.astype(np.int32), which
        class_id = gathered.argmax(axis=1)
        value = self._activated(plane, gathered[np.arange(len(cells)), class_id], cells)
        if factor is not None:
            value = self._joint(value, factor)
        which = np.flatnonzero(value >= limit)
        return value.take(which), class_id.take(which).astype(np.int32), which

    def _joint(self, scores: F32, objectness: F32) -> F32:
        """Score of class and objectness: their product, or its square root."""
        both = scores * objectness
        if self.head.objectness == "geometric":
            # A zero point that was rounded can make one of them slightly negative.
            both = np.sqrt(np.maximum(both, 0))
        return np.asarray(both, np.float32)

    def _picked(
        self, plane: Stack, outputs: Sequence[Array], cells: Cells
    ) -> tuple[F32, NDArray[np.int32]]:
        pairs = plane.values(plane.gather(outputs, cells), cells)
        return pairs[:, 0].copy(), np.rint(pairs[:, 1]).astype(np.int32)

    def _activated(self, plane: Stack, gathered: Array, cells: Cells) -> F32:
        values = plane.values(gathered, cells)
        return values if self.head.activated else sigmoid(values)

    def _boxes(self, outputs: Sequence[Array], cells: Cells, gathered: Array | None = None) -> F32:
        box, grid, decoded = self._all.box, self._all.grid, self._all.decoded
        gathered = box.gather(outputs, cells) if gathered is None else gathered
        if decoded is not None and not decoded.raw:
            return self._decoded_boxes(outputs, box.values(gathered, cells), cells, decoded)
        if self.head.rotated:
            sides = distances(box, gathered, cells, grid)
            return rotated(sides, self._angle(outputs, cells), cells, grid)
        return CODINGS[self.head.coding](box, gathered, cells, grid)

    def _decoded_boxes(
        self, outputs: Sequence[Array], boxes: F32, cells: Cells, decoded: DecodedOutput
    ) -> F32:
        angle = self._all.angle
        if decoded.relative:
            boxes = boxes * np.tile(self._width_height, 2)
        if self.head.rotated and angle is not None:
            turned = angle.values(angle.gather(outputs, cells), cells)
            return np.concatenate((boxes, turned), axis=1)
        if decoded.corners:
            return boxes
        half = boxes[:, 2:] / 2
        return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)

    def _angle(self, outputs: Sequence[Array], cells: Cells) -> F32:
        """Angle in radians: (sigmoid(a) - 1/4) * pi, in -pi/4..3/4 pi, or `a` itself."""
        plane = self._all.angle or _present(self._angles, "angle")
        share = plane.values(plane.gather(outputs, cells), cells)[:, 0]
        if self._all.angle is not None:
            if self.head.plain_angle:
                return share
            share = sigmoid(share)
        return np.asarray((share - np.float32(0.25)) * np.float32(np.pi), np.float32)

    # ---- extras ---------------------------------------------------------------------

    def extras(self, outputs: Sequence[Array], candidates: Candidates) -> Extras:
        """Decode mask coefficients and keypoints of the kept candidates only."""
        cells = self._starts.take(candidates.level) + candidates.cell
        coefficients = None
        if self.head.coefficients:
            plane = _present(self._all.coefficients, "mask coefficients")
            coefficients = _scattered(plane, outputs, cells)
        return Extras(coefficients, self._keypoints(outputs, cells))

    def _keypoints(self, outputs: Sequence[Array], cells: Cells) -> F32 | None:
        """(K, points, values) as decoded in the graph, or (2 p + corner) * stride, or
        (p + centre) * stride, or p * anchor + corner * stride, or (p + corner) * stride;
        visibility after its sigmoid."""
        head, grid, decoded = self.head, self._all.grid, self._all.decoded
        if not head.keypoints:
            return None
        if self._points is not None:
            return self._whole_points(self._points, outputs, cells)
        plane = _present(self._all.keypoints, "key points")
        raw = _scattered(plane, outputs, cells)
        points = raw.reshape(len(cells), head.keypoints, head.keypoint_values)
        if head.keypoint_values == 1:
            return points if decoded is not None else sigmoid(points)
        if decoded is not None and not decoded.raw:
            points[..., :2] *= self._width_height if decoded.relative_points else 1
            return points
        corner, stride = grid.corner[cells][:, None], grid.stride[cells][:, None]
        if head.coding == "anchor":
            points[..., :2] = points[..., :2] * grid.anchor[cells][:, None] + corner * stride
        elif head.coding == "exponent":
            points[..., :2] = (points[..., :2] + corner) * stride
        elif head.centred_keypoints:
            points[..., :2] = (points[..., :2] + corner + np.float32(0.5)) * stride
        else:
            points[..., :2] = (points[..., :2] * 2 + corner) * stride
        if head.keypoint_values == 3:
            points[..., 2] = sigmoid(points[..., 2])
        return points

    def _whole_points(self, plane: Stack, outputs: Sequence[Array], cells: Cells) -> F32:
        """Keypoints (K, points, values) from one tensor of all levels. 1xKxVxN is a map of K
        channels whose rows are the values, so any layout is supported.
        """
        rows = np.arange(self._point_rows) * len(self._all.grid)
        raw = _scattered(plane, outputs, (rows[:, None] + cells).ravel())
        values = raw.reshape(self._point_rows, len(cells), -1).transpose(1, 2, 0)
        shape = (len(cells), self.head.keypoints, self.head.keypoint_values)
        return np.asarray(values.reshape(shape), np.float32)

    def middle_pixels(self, candidates: Candidates) -> F32:
        """x, y (N, 2) of the middle pixel of each one's cell."""
        cells = self._starts.take(candidates.level) + candidates.cell
        return self._all.grid.middle_pixels.take(cells, axis=0)

    # ---- reference decoding ---------------------------------------------------------

    def all_candidates(self, outputs: Sequence[Array], confidence: float) -> Candidates:
        """Reference implementation of `candidates` for tests: decodes every cell, then filters."""
        boxes, scores, _ = self.dense(outputs)
        if self._all.picked is not None:
            score, class_id = scores[:, 0], np.rint(scores[:, 1]).astype(np.int32)
        else:
            score, class_id = scores.max(axis=1), scores.argmax(axis=1).astype(np.int32)
        cells = np.flatnonzero(score >= np.float32(confidence))
        number = self._starts.searchsorted(cells, "right") - 1
        return Candidates(
            boxes[cells], score[cells], class_id[cells], number, cells - self._starts.take(number)
        )

    def dense(self, outputs: Sequence[Array]) -> tuple[F32, F32, F32]:
        """Decode every cell of every level. For verification, not for frames.

        Returns:
            Boxes (N, 4) x1, y1, x2, y2 or (N, 5); scores (N, C), objectness included; extras (N,
            E), flattened. An uncut tensor that is `picked` gives scores (N, 2): score and class.
        """
        every = self._all
        cells = np.arange(every.box.size(outputs))
        plane = every.picked or every.score
        scores = self._activated(plane, plane.gather(outputs, cells), cells)
        if every.objectness is not None:
            seen = every.objectness.gather(outputs, cells)
            factor = self._activated(every.objectness, seen, cells)
            scores = factor if self.head.objectness == "alone" else self._joint(scores, factor)
        extra = self.extras(
            outputs,
            Candidates(
                np.empty((len(cells), 0), np.float32), scores[:, 0],
                np.zeros(len(cells), np.int32), np.zeros_like(cells), cells,
            ),
        )  # fmt: skip
        parts = [
            part.reshape(len(cells), -1)
            for part in (extra.coefficients, extra.keypoints)
            if part is not None
        ]
        flat = np.concatenate(parts, axis=1) if parts else np.empty((len(cells), 0), np.float32)
        return self._boxes(outputs, cells), scores, flat


def _present(plane: T | None, what: str) -> T:
    if plane is None:
        raise RkzooError(f"The head has no {what}.", "Its contract promises them.", code=1)
    return plane


def _scattered(plane: Stack, outputs: Sequence[Array], cells: Cells) -> F32:
    """Values (K, count) of cells in any order."""
    order = cells.argsort()
    ascending = cells.take(order)
    values = np.empty((len(cells), plane.count), np.float32)
    values[order] = plane.values(plane.gather(outputs, ascending), ascending)
    return values


# ---- heads to levels ----------------------------------------------------------------

_ROLES = [field.name for field in fields(Level) if field.name not in ("grid", "decoded")]


def _together(levels: Sequence[Level[Plane]], starts: Sequence[int]) -> Level[Stack]:
    """Stack all levels into one."""

    def stacked(role: str) -> Stack | None:
        planes = [getattr(level, role) for level in levels]
        return None if None in planes else Stack(planes, starts)

    grid = Grid.joined([level.grid for level in levels])
    return Level(grid, decoded=levels[0].decoded, **{role: stacked(role) for role in _ROLES})  # type: ignore[arg-type]


def _alone(plane: Plane | None) -> Stack | None:
    return None if plane is None else Stack([plane], [0, 0])


class _Planes:
    """The session's outputs by role and level."""

    def __init__(self, head: DetectHead, specs: Sequence[TensorSpec]) -> None:
        if len(specs) != len(head.outputs):
            raise RkzooError(
                f"The model has {len(specs)} outputs where its contract names {len(head.outputs)}.",
                "The file and its description do not belong together.",
                "Convert the model again with rkzoo convert, or look at it with rkzoo inspect.",
            )
        for spec in specs:
            if len(spec.shape) < 3:
                raise RkzooError(
                    f"The output {spec.name} has the shape {list(spec.shape)}.",
                    "A detection head gives channels and cells.",
                    "Look at the model with rkzoo inspect.",
                )
        by_name = {spec.name: index for index, spec in enumerate(specs)}
        known = all(output.name in by_name for output in head.outputs)
        self._tensors: dict[tuple[str, int], tuple[int, TensorSpec]] = {
            (output.role, output.level): (index, _in_rows(specs[index], head.decoded))
            for position, output in enumerate(head.outputs)
            for index in [by_name[output.name] if known else position]
        }

    def has(self, role: str) -> bool:
        return any(key[0] == role for key in self._tensors)

    def of(self, role: str, level: int) -> tuple[int, TensorSpec]:
        """Index of the output and its spec. Raises RkzooError when missing."""
        if (role, level) not in self._tensors:
            raise RkzooError(
                f"Level {level} of the model has no {role} tensor.",
                f"It has {', '.join(f'{r} {n}' for r, n in self._tensors)}.",
                "Convert the model again with rkzoo convert.",
            )
        return self._tensors[role, level]

    def get(self, role: str, level: int, count: int, first: int = 0, total: int = 0) -> Plane:
        """Plane of `count` channels from `first`, of a tensor with `total` (default: exactly
        `count`)."""
        index, spec = self.of(role, level)
        _expect(spec, total or count, role)
        return Plane(index, spec, first, count)

    def maybe(
        self, role: str, level: int, count: int, first: int = 0, total: int = 0
    ) -> Plane | None:
        if (role, level) not in self._tensors:
            return None
        index, spec = self._tensors[role, level]
        _expect(spec, total or count, role)
        return Plane(index, spec, first, count)

    def whole(self, role: str, count: int) -> Plane | None:
        """One tensor of all levels, with all its `count` channels."""
        return self.maybe(role, 0, count)

    def points(self, count: int, values: int) -> tuple[Stack | None, int]:
        """Keypoints of all levels, and the number of rows they occupy: `values` for a map 1xKxVxN
        with a channel per point, 1 where all values are channels, 1x(K*V)xN.
        """
        if not self.has("points"):
            return None, 1
        mapped = len(self.of("points", 0)[1].shape) > 3
        channels, rows = (count, values) if mapped else (count * values, 1)
        return _alone(self.whole("points", channels)), rows


def _in_rows(spec: TensorSpec, decoded: DecodedOutput | None) -> TensorSpec:
    """A tensor of three dimensions of an uncut head, with the layout that it has."""
    if decoded is None or len(spec.shape) != 3:
        return spec
    return msgspec.structs.replace(spec, layout="NCHW" if decoded.rows_last else "NHWC")


def _places(widths: Mapping[Part, int], order: Sequence[Part]) -> dict[Part, int]:
    """Where each part of a row of numbers begins."""
    kept = [part for part in order if part in widths]
    return dict(zip(kept, accumulate((widths[part] for part in kept), initial=0), strict=False))


def _expect(spec: TensorSpec, channels: int, role: str) -> None:
    if spec.layout == "NC1HWC2":
        # The number of padding blocks is up to the library (chip, dtype); the last blocks may
        # be entirely empty.
        room = spec.shape[1] * spec.shape[-1]
        actual = min(spec.channels, room) or room
        fits = actual == channels if spec.channels else room >= channels
    else:
        actual = spec.shape[-1] if spec.layout == "NHWC" else spec.shape[1]
        fits = actual in (channels, -1)
    if not fits:
        raise RkzooError(
            f"The {role} tensor {spec.name} has {actual} channels where {channels} are promised.",
            f"Its shape is {list(spec.shape)}.",
            "Look at the model with rkzoo inspect.",
        )


def _expect_cells(level: Level[Plane]) -> None:
    for role in _ROLES:
        plane: Plane | None = getattr(level, role)
        if plane is not None and plane.cells not in (0, len(level.grid)):
            raise RkzooError(
                f"The {role} tensor {plane.spec.name} has {plane.cells} cells where"
                f" {len(level.grid)} are promised.",
                f"Its shape is {list(plane.spec.shape)}.",
                "Look at the model with rkzoo inspect.",
            )


def _plain(head: DetectHead, size: tuple[int, int], planes: _Planes) -> list[Level[Plane]]:
    """One level a stride: box and score, perhaps more, in tensors of their own; box, score and
    key points may share one."""
    bins = head.reg_max if head.coding == "dfl" else 1
    values = head.keypoints * head.keypoint_values
    decoded = head.decoded or DecodedOutput()
    shared: dict[Part, int] = {}
    if planes.has("fused"):
        shared = {"box": 4 * bins, "score": head.classes}
        if values and not planes.has("keypoints") and not planes.has("points"):
            shared["keypoints"] = values
    places, total = _places(shared, decoded.order), sum(shared.values())

    def within(part: Part) -> tuple[int, int]:
        return (places.get(part, 0), total)

    box, score, points = (
        "fused" if part in shared else part for part in ("box", "score", "keypoints")
    )
    return [
        Level(
            grid=Grid.of(
                size, [stride], bins=bins, activated=head.activated, offset=head.cell_offset,
                pixels=decoded.pixels,
            ),
            box=planes.get(box, level, 4 * bins, *within("box")),
            score=planes.get(score, level, head.classes, *within("score")),
            objectness=planes.maybe("objectness", level, 1),
            score_sum=planes.maybe("score_sum", level, 1),
            coefficients=planes.maybe("coefficients", level, head.coefficients),
            keypoints=planes.maybe(points, level, values, *within("keypoints"))
            if values
            else None,
            angle=planes.maybe("angle", level, 1),
            decoded=head.decoded,
        )
        for level, stride in enumerate(head.strides)
    ]  # fmt: skip


def _anchored(head: DetectHead, size: tuple[int, int], planes: _Planes) -> list[Level[Plane]]:
    """One level an anchor, all of a stride in one tensor; mask coefficients behind the
    classes of each anchor, or they or key points in a tensor of their own. A head of this
    shape without anchors (YOLOX) has one box a cell."""
    levels = []
    for level, stride in enumerate(head.strides):
        anchors = head.anchors[level] if head.anchors else ((1.0, 1.0),)
        index, spec = planes.of("anchors", level)
        if len(spec.shape) == 5 and spec.layout != "NC1HWC2":
            grid = Grid.of(size, [stride], anchors, activated=head.activated)
            levels.append(_anchors_apart(head, grid, index, spec))
            continue
        apart = head.coefficients and planes.has("coefficients")
        each = 5 + head.classes + (0 if apart else head.coefficients)
        for number, anchor in enumerate(anchors):
            total, base = each * len(anchors), each * number

            def part(
                first: int, count: int, level: int = level, base: int = base, total: int = total
            ) -> Plane:
                return planes.get("anchors", level, count, base + first, total)

            def aside(
                role: str,
                width: int,
                level: int = level,
                number: int = number,
                count: int = len(anchors),
            ) -> Plane | None:
                return planes.maybe(role, level, width, number * width, width * count)

            coefficients = aside("coefficients", head.coefficients)
            if head.coefficients and not apart:
                coefficients = part(5 + head.classes, head.coefficients)
            levels.append(
                Level(
                    grid=Grid.of(size, [stride], [anchor], activated=head.activated),
                    box=part(0, 4),
                    objectness=part(4, 1),
                    score=part(5, head.classes),
                    row=part(0, 5 + head.classes),
                    coefficients=coefficients,
                    keypoints=aside("keypoints", head.keypoints * head.keypoint_values),
                )
            )
    return levels


def _anchors_apart(head: DetectHead, grid: Grid, index: int, spec: TensorSpec) -> Level[Plane]:
    """A tensor 1xAxhxwx(5+C), as YOLOv5 and YOLOv7 export without decoding: all anchors are one
    level."""
    spec = msgspec.structs.replace(spec, layout="NHWC")
    _expect(spec, 5 + head.classes, "anchors")
    return Level(
        grid=grid,
        box=Plane(index, spec, 0, 4),
        objectness=Plane(index, spec, 4, 1),
        score=Plane(index, spec, 5, head.classes),
    )


def _two_tensors(head: DetectHead, size: tuple[int, int], planes: _Planes) -> list[Level[Plane]]:
    """Decoded boxes 1xNx4 and scores 1xCxN or 1xNxC in separate tensors."""
    (box_at, box), (score_at, score) = planes.of("box", 0), planes.of("score", 0)
    box = msgspec.structs.replace(box, layout="NHWC" if box.shape[-1] == 4 else "NCHW")
    last = head.decoded is not None and head.decoded.rows_last
    score = msgspec.structs.replace(score, layout="NCHW" if last else "NHWC")
    _expect(box, 4, "box")
    _expect(score, head.classes, "score")
    return [
        Level(
            grid=Grid.of(size, head.strides),
            box=Plane(box_at, box, 0, 4),
            score=Plane(score_at, score, 0, head.classes),
            decoded=head.decoded,
        )
    ]


def _uncut(head: DetectHead, size: tuple[int, int], planes: _Planes) -> list[Level[Plane]]:
    """The single tensor of an uncut model, as one level."""
    if planes.has("box"):
        return _two_tensors(head, size, planes)
    decoded = head.decoded or DecodedOutput()
    index, spec = planes.of("decoded", 0)
    spec = msgspec.structs.replace(spec, layout="NCHW" if decoded.rows_last else "NHWC")
    bins = head.reg_max if decoded.raw and head.coding == "dfl" else 1
    widths: dict[Part, int] = {
        "box": 4 * bins,
        "objectness": int(head.objectness != "none"),
        "score": 2 if decoded.picked else head.classes,
        "coefficients": head.coefficients,
        "keypoints": head.keypoints * head.keypoint_values,
        "angle": int(head.rotated),
    }
    _expect(spec, sum(widths.values()), "uncut")
    places = _places(widths, decoded.order)

    def part(name: Part) -> Plane | None:
        count = widths[name]
        return Plane(index, spec, places[name], count) if count else None

    score = Plane(index, spec, places["score"], 1 if decoded.picked else widths["score"])
    return [
        Level(
            grid=Grid.of(
                size, head.strides, bins=bins, activated=head.activated, offset=head.cell_offset,
                pixels=decoded.pixels,
            ),
            box=Plane(index, spec, places["box"], widths["box"]),
            score=score,
            picked=part("score") if decoded.picked else None,
            objectness=None if decoded.multiplied else part("objectness"),
            coefficients=part("coefficients"),
            keypoints=part("keypoints"),
            angle=part("angle"),
            decoded=decoded,
        )
    ]  # fmt: skip
