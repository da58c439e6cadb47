"""Detection tensors to boxes, for every head that `DetectHead` can describe.

A head is a list of levels; a level is a handful of planes (box, score, objectness, extras)
and a way of writing boxes. An anchor head has one level for each anchor, an uncut tensor is
one level whose boxes are decoded already. So there is one decoder, and no family in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract import Decoded, DetectHead, TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.coding import CODINGS, Grid, Spread, distances, rotated
from rkzoo.tasks.detect.planes import F32, Array, Cells, Plane, Stack, logit, sigmoid

# Rounding of a quantised score sum can hide a cell that is just above the threshold.
_SUM_SLACK = 2
_MANY = 1000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before suppression, in model pixels.

    `boxes` (N, 4) x1,y1,x2,y2, or (N, 5) cx,cy,w,h,angle of a rotated head; `score` (N,),
    `class_id` (N,) int32; `level` (N,) and `cell` (N,) tell where they came from.
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
    """What belongs to given candidates beside box and score: mask `coefficients` (N, M),
    `keypoints` (N, K, 2 or 3) x, y in model pixels and visibility in 0..1."""

    coefficients: F32 | None = None
    keypoints: F32 | None = None


@dataclass(frozen=True)
class Level:
    """Planes that share their cells. `row` is box, objectness and scores, where one tensor has
    them in this order. `offset` counts the cells of the levels before it, for
    tensors that hold all levels. `decoded` boxes and key points are in pixels already."""

    grid: Grid | Spread
    box: Plane | Stack
    score: Plane | Stack
    offset: int = 0
    objectness: Plane | Stack | None = None
    score_sum: Plane | Stack | None = None
    row: Plane | Stack | None = None
    coefficients: Plane | None = None
    keypoints: Plane | None = None
    angle: Plane | Stack | None = None
    decoded: Decoded | None = None


class DetectDecoder:
    """Reads the outputs of one session; made once, called for every frame.

    `specs` are the session's outputs; they are matched to the head by name, or by position
    where a session renames them. Raises RkzooError when the tensors do not fit the head.
    """

    def __init__(
        self, head: DetectHead, size: tuple[int, int], specs: Sequence[TensorSpec]
    ) -> None:
        self.head = head
        planes = _Planes(head, specs)
        uncut = planes.has("decoded") or head.decoded is not None
        build = _uncut if uncut else _anchored if planes.has("anchors") else _plain
        self.levels = build(head, size, planes)
        self._all, self._starts = _together(self.levels, size)
        self.prototypes = planes.whole("prototypes")
        self._points = planes.whole("points")
        self._angles = planes.whole("angles")

    # ---- candidates -----------------------------------------------------------------

    def candidates(
        self, outputs: Sequence[Array], confidence: float, *, multi_label: bool = False
    ) -> Candidates:
        """Every box whose score reaches `confidence`, before suppression.

        One box a cell (its best class), or with `multi_label` one for every class that
        reaches it, as the upstream projects do when they evaluate.
        """
        # All levels at once: a call of numpy costs more than the few numbers it works on.
        level = self._all
        cells = self._gate(level, outputs, confidence)
        if not len(cells):
            return self._nothing()
        row = None
        if level.decoded is not None and level.decoded.picked:
            score, class_id = self._picked(level, outputs, cells)
            which = np.flatnonzero(score >= np.float32(confidence))
            score, class_id = score[which], class_id[which]
        else:
            row = None if level.row is None else level.row.gather(outputs, cells)
            score, class_id, which = self._scores(
                level, outputs, cells, confidence, multi_label, row
            )
        if not len(which):
            return self._nothing()
        cells = cells[which]
        # A scale of 1/255 that was rounded up can give 1.0000001.
        np.minimum(score, 1, out=score)
        boxes = self._boxes(level, outputs, cells, None if row is None else row[which, :4])
        number = self._starts.searchsorted(cells, "right") - 1
        return Candidates(boxes, score, class_id, number, cells - self._starts[number])

    def _nothing(self) -> Candidates:
        none = np.empty(0, np.intp)
        return Candidates(
            np.empty((0, 5 if self.head.rotated else 4), np.float32), np.empty(0, np.float32),
            np.empty(0, np.int32), none, none,
        )  # fmt: skip

    def _gate(self, level: Level, outputs: Sequence[Array], confidence: float) -> Cells:
        """Cells that can reach the confidence: the cheapest plane that tells."""
        threshold = confidence if self.head.activated else logit(confidence)
        if level.objectness is not None:
            return level.objectness.cells_over(outputs, threshold)
        if level.score_sum is not None:
            least = confidence - _SUM_SLACK * level.score_sum.step
            cells = level.score_sum.cells_over(outputs, least)
            if len(cells) < _MANY:
                return cells
            # So low a threshold lets nearly everything pass: look at the scores themselves.
        return level.score.cells_over(outputs, threshold)

    def _scores(
        self,
        level: Level,
        outputs: Sequence[Array],
        cells: Cells,
        confidence: float,
        multi: bool,
        row: Array | None,
    ) -> tuple[F32, Array, Cells]:
        """score (n,), class (n,) and which of `cells` they belong to (n,)."""
        factor = None
        if level.objectness is not None:
            seen = level.objectness.gather(outputs, cells) if row is None else row[:, 4:5]
            factor = self._activated(level.objectness, seen)
            if self.head.objectness == "alone":
                return factor[:, 0].copy(), np.zeros(len(cells), np.int32), np.arange(len(cells))
        stored = level.score.gather(outputs, cells) if row is None else row[:, 5:]
        # Rounding must not lose a score that lies on the threshold.
        limit = np.float32(confidence) - np.float32(1e-6 if level.score.step else 0)
        if multi:
            table = self._activated(level.score, stored)
            if factor is not None:
                table = table * factor
            which, class_id = np.nonzero(table >= limit)
            return table[which, class_id], class_id.astype(np.int32), which
        class_id = stored.argmax(axis=1)
        value = self._activated(level.score, stored[np.arange(len(cells)), class_id])
        if factor is not None:
            value = value * factor[:, 0]
        which = np.flatnonzero(value >= limit)
        return value[which], class_id[which].astype(np.int32), which

    def _picked(self, level: Level, outputs: Sequence[Array], cells: Cells) -> tuple[F32, Array]:
        pairs = level.score.values(_pair(level.score).gather(outputs, cells))
        return pairs[:, 0].copy(), np.rint(pairs[:, 1]).astype(np.int32)

    def _activated(self, plane: Plane | Stack, stored: Array) -> F32:
        values = plane.values(stored)
        return values if self.head.activated else sigmoid(values)

    def _boxes(
        self, level: Level, outputs: Sequence[Array], cells: Cells, stored: Array | None = None
    ) -> F32:
        stored = level.box.gather(outputs, cells) if stored is None else stored
        if level.decoded is not None and not level.decoded.raw:
            return self._decoded_boxes(level, outputs, stored, cells)
        if self.head.rotated:
            sides = distances(level.box, stored, level.grid.bins)
            return rotated(sides, self._angle(level, outputs, cells), cells, level.grid)
        return CODINGS[self.head.coding](level.box, stored, cells, level.grid)

    def _decoded_boxes(
        self, level: Level, outputs: Sequence[Array], stored: Array, cells: Cells
    ) -> F32:
        boxes = level.box.values(stored)
        if self.head.rotated and level.angle is not None:
            angle = level.angle.values(level.angle.gather(outputs, cells))
            return np.concatenate((boxes, angle), axis=1)
        if level.decoded is not None and level.decoded.corners:
            return boxes
        half = boxes[:, 2:] / 2
        return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)

    def _angle(self, level: Level, outputs: Sequence[Array], cells: Cells) -> F32:
        """Radians: (sigmoid(a) - 1/4) * pi, from -pi/4 to 3/4 pi, or a itself."""
        if level.angle is not None:
            raw = level.angle.values(level.angle.gather(outputs, cells))[:, 0]
            if self.head.plain_angle:
                return raw
            share = sigmoid(raw)
        elif self._angles is not None:
            share = self._angles.values(self._angles.gather(outputs, cells + level.offset))[:, 0]
        else:
            raise RkzooError("The rotated head has no angle.", code=1)
        return np.asarray((share - np.float32(0.25)) * np.float32(np.pi), np.float32)

    # ---- extras ---------------------------------------------------------------------

    def extras(self, outputs: Sequence[Array], found: Candidates) -> Extras:
        """Mask coefficients and key points of the candidates that were kept."""
        return Extras(
            self._each(found, self.head.coefficients, self._coefficients, outputs),
            self._keypoints(outputs, found),
        )

    def _each(
        self,
        found: Candidates,
        width: int,
        read: Callable[[Level, Sequence[Array], Cells], F32],
        outputs: Sequence[Array],
    ) -> F32 | None:
        if not width:
            return None
        table = np.empty((len(found), width), np.float32)
        for number, level in enumerate(self.levels):
            mine = np.flatnonzero(found.level == number)
            if len(mine):
                table[mine] = read(level, outputs, found.cell[mine])
        return table

    def _coefficients(self, level: Level, outputs: Sequence[Array], cells: Cells) -> F32:
        plane = _present(level.coefficients, "mask coefficients")
        return plane.values(plane.gather(outputs, cells))

    def _keypoints(self, outputs: Sequence[Array], found: Candidates) -> F32 | None:
        count, values = self.head.keypoints, self.head.keypoint_values
        read = self._whole_points if self._points is not None else self._level_points
        flat = self._each(found, count * values, read, outputs)
        return None if flat is None else flat.reshape(-1, count, values)

    def _whole_points(self, level: Level, outputs: Sequence[Array], cells: Cells) -> F32:
        plane = _present(self._points, "key points")
        return plane.values(plane.gather(outputs, cells + level.offset))

    def _level_points(self, level: Level, outputs: Sequence[Array], cells: Cells) -> F32:
        """(2 p + corner) * stride, or (p + centre) * stride; visibility after its sigmoid."""
        plane = _present(level.keypoints, "key points")
        raw = plane.values(plane.gather(outputs, cells))
        if level.decoded is not None:
            return raw
        points = raw.reshape(len(cells), self.head.keypoints, self.head.keypoint_values)
        centred = self.head.centred_keypoints
        points[..., :2] *= 1 if centred else 2
        points[..., :2] += level.grid.corners(cells)[:, None] + np.float32(0.5 if centred else 0)
        points[..., :2] *= level.grid.strides(cells)
        if self.head.keypoint_values == 3:
            points[..., 2] = sigmoid(points[..., 2])
        return points.reshape(len(cells), -1)

    # ---- proofs ---------------------------------------------------------------------

    def dense(self, outputs: Sequence[Array]) -> tuple[F32, F32, F32]:
        """Every cell of every level: boxes (N, 4) x1,y1,x2,y2 or (N, 5), scores (N, C) with
        the objectness in them, extras (N, E) flat. For proofs, not for frames.

        An uncut tensor that is `picked` gives scores (N, 2): the score and the class.
        """
        boxes, scores, extras = [], [], []
        for number, level in enumerate(self.levels):
            cells = np.arange(level.box.size(outputs))
            boxes.append(self._boxes(level, outputs, cells))
            picked = level.decoded is not None and level.decoded.picked
            plane = _pair(level.score) if picked else level.score
            table = self._activated(plane, plane.gather(outputs, cells))
            if level.objectness is not None:
                factor = self._activated(level.objectness, level.objectness.gather(outputs, cells))
                table = factor if self.head.objectness == "alone" else table * factor
            scores.append(table)
            whole = Candidates(
                boxes[-1], table[:, 0], np.zeros(len(cells), np.int32),
                np.full(len(cells), number), cells,
            )  # fmt: skip
            extra = self.extras(outputs, whole)
            parts = [
                part.reshape(len(cells), -1)
                for part in (extra.coefficients, extra.keypoints)
                if part is not None
            ]
            extras.append(
                np.concatenate(parts, axis=1) if parts else np.empty((len(cells), 0), np.float32)
            )
        return np.concatenate(boxes), np.concatenate(scores), np.concatenate(extras)


P = TypeVar("P")


def _present(plane: P | None, what: str) -> P:
    if plane is None:
        raise RkzooError(f"The head has no {what}.", "Its contract promises them.", code=1)
    return plane


def _pair(score: Plane | Stack) -> Plane:
    """The score and the class number of an uncut tensor that gives both."""
    assert isinstance(score, Plane)  # it is one tensor, so one level
    return replace(score, count=2)


# ---- heads to levels ----------------------------------------------------------------


def _together(levels: Sequence[Level], size: tuple[int, int]) -> tuple[Level, NDArray[np.intp]]:
    """All levels as one, and the cell at which each begins in it."""
    grids = [
        level.grid if isinstance(level.grid, Spread) else level.grid.spread(size)
        for level in levels
    ]
    starts = np.cumsum([0, *(len(grid.stride_of) for grid in grids[:-1])])
    if len(levels) == 1:
        return levels[0], starts

    def stacked(planes: Sequence[Plane | Stack | None]) -> Stack | None:
        flat = tuple(plane for plane in planes if isinstance(plane, Plane))
        return Stack(flat, starts) if len(flat) == len(levels) else None

    return Level(
        grid=Spread.joined(grids),
        box=_present(stacked([level.box for level in levels]), "boxes"),
        score=_present(stacked([level.score for level in levels]), "scores"),
        objectness=stacked([level.objectness for level in levels]),
        score_sum=stacked([level.score_sum for level in levels]),
        row=stacked([level.row for level in levels]),
        angle=stacked([level.angle for level in levels]),
        decoded=levels[0].decoded,
    ), starts


class _Planes:
    """The session's outputs by role and level."""

    def __init__(self, head: DetectHead, specs: Sequence[TensorSpec]) -> None:
        if len(specs) != len(head.outputs):
            raise RkzooError(
                f"The model has {len(specs)} outputs where its contract names {len(head.outputs)}.",
                "The file and its description do not belong together.",
                "Convert the model again with rkzoo convert, or look at it with rkzoo inspect.",
            )
        by_name = {spec.name: index for index, spec in enumerate(specs)}
        known = all(output.name in by_name for output in head.outputs)
        self._found: dict[tuple[str, int], tuple[int, TensorSpec]] = {
            (output.role, output.level): (index, specs[index])
            for position, output in enumerate(head.outputs)
            for index in [by_name[output.name] if known else position]
        }

    def has(self, role: str) -> bool:
        return any(key[0] == role for key in self._found)

    def of(self, role: str, level: int) -> tuple[int, TensorSpec]:
        """Where the tensor stands among the outputs, and what it is."""
        if (role, level) not in self._found:
            raise RkzooError(
                f"Level {level} of the model has no {role} tensor.",
                f"It has {', '.join(f'{r} {n}' for r, n in self._found)}.",
                "Convert the model again with rkzoo convert.",
            )
        return self._found[role, level]

    def get(self, role: str, level: int, count: int, first: int = 0, total: int = 0) -> Plane:
        """`count` channels from `first` of a tensor with `total` (default: just those)."""
        index, spec = self.of(role, level)
        _expect(spec, total or count, role)
        return Plane(index, spec, first, count)

    def maybe(
        self, role: str, level: int, count: int, first: int = 0, total: int = 0
    ) -> Plane | None:
        if (role, level) not in self._found:
            return None
        index, spec = self._found[role, level]
        _expect(spec, total or count, role)
        return Plane(index, spec, first, count)

    def whole(self, role: str) -> Plane | None:
        """A tensor of all levels, all its channels; 1xKxVxN is read as 1x(K*V)xN."""
        if (role, 0) not in self._found:
            return None
        index, spec = self._found[role, 0]
        channels = spec.shape[1]
        if role == "points" and len(spec.shape) == 4:
            # Never NHWC: the sessions keep the order of a tensor that is no feature map.
            channels *= spec.shape[2]
            spec = msgspec.structs.replace(spec, shape=(1, channels, spec.shape[3]))
            return Plane(index, spec, 0, channels)
        return Plane(index, spec, 0, channels)


def _expect(spec: TensorSpec, channels: int, role: str) -> None:
    if spec.layout == "NC1HWC2":
        blocks, width = spec.shape[1], spec.shape[-1]
        fits = blocks * width >= channels > (blocks - 1) * width
        found = blocks * width
    else:
        found = spec.shape[-1] if spec.layout == "NHWC" else spec.shape[1]
        fits = found in (channels, -1)
    if not fits:
        raise RkzooError(
            f"The {role} tensor {spec.name} has {found} channels where {channels} are promised.",
            f"Its shape is {list(spec.shape)}.",
            "Look at the model with rkzoo inspect.",
        )


def _grids(head: DetectHead, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(stride, columns, cells before) for each level."""
    found, before = [], 0
    for stride in head.strides:
        rows, columns = size[0] // stride, size[1] // stride
        found.append((stride, columns, before))
        before += rows * columns
    return found


def _plain(head: DetectHead, size: tuple[int, int], planes: _Planes) -> list[Level]:
    """One level a stride: box and score, perhaps more, in tensors of their own; box and score
    may share one."""
    bins = head.reg_max if head.coding == "dfl" else 1
    values = head.keypoints * head.keypoint_values
    box, score = ("fused", "fused") if planes.has("fused") else ("box", "score")
    first, total = (4 * bins, 4 * bins + head.classes) if planes.has("fused") else (0, 0)
    return [
        Level(
            grid=Grid(stride, columns, bins, activated=head.activated),
            box=planes.get(box, level, 4 * bins, 0, total),
            score=planes.get(score, level, head.classes, first, total),
            offset=before,
            objectness=planes.maybe("objectness", level, 1),
            score_sum=planes.maybe("score_sum", level, 1),
            coefficients=planes.maybe("coefficients", level, head.coefficients),
            keypoints=planes.maybe("keypoints", level, values),
            angle=planes.maybe("angle", level, 1),
        )
        for level, (stride, columns, before) in enumerate(_grids(head, size))
    ]


def _anchored(head: DetectHead, size: tuple[int, int], planes: _Planes) -> list[Level]:
    """One level an anchor, all of a stride in one tensor; mask coefficients behind the
    classes of each anchor, or in a tensor of their own. A head of this shape without anchors
    (YOLOX) has one box a cell."""
    found = []
    for level, (stride, columns, _) in enumerate(_grids(head, size)):
        anchors = head.anchors[level] if head.anchors else ((1.0, 1.0),)
        index, spec = planes.of("anchors", level)
        if len(spec.shape) == 5 and spec.layout != "NC1HWC2":
            found.append(_anchors_apart(head, (size, stride), anchors, index, spec))
            continue
        apart = head.coefficients and planes.has("coefficients")
        each = 5 + head.classes + (0 if apart else head.coefficients)
        for number, anchor in enumerate(anchors):
            total, base = each * len(anchors), each * number

            def part(
                first: int, count: int, level: int = level, base: int = base, total: int = total
            ) -> Plane:
                return planes.get("anchors", level, count, base + first, total)

            coefficients = None
            if apart:
                width = head.coefficients
                coefficients = planes.get(
                    "coefficients", level, width, number * width, width * len(anchors)
                )
            elif head.coefficients:
                coefficients = part(5 + head.classes, head.coefficients)
            found.append(
                Level(
                    grid=Grid(stride, columns, 1, anchor, head.activated),
                    box=part(0, 4),
                    objectness=part(4, 1),
                    score=part(5, head.classes),
                    row=part(0, 5 + head.classes),
                    coefficients=coefficients,
                )
            )
    return found


def _anchors_apart(
    head: DetectHead,
    grid: tuple[tuple[int, int], int],
    anchors: Sequence[tuple[float, float]],
    index: int,
    spec: TensorSpec,
) -> Level:
    """A tensor 1xAxhxwx(5+C), as YOLOv5 and YOLOv7 leave it undecoded: all its anchors are one
    level, cell after cell."""
    size, stride = grid
    spec = msgspec.structs.replace(spec, layout="NHWC")
    _expect(spec, 5 + head.classes, "anchors")
    return Level(
        grid=Spread.over(size, [stride]).for_each(anchors, activated=head.activated),
        box=Plane(index, spec, 0, 4),
        objectness=Plane(index, spec, 4, 1),
        score=Plane(index, spec, 5, head.classes),
    )


def _two_tensors(head: DetectHead, size: tuple[int, int], planes: _Planes) -> list[Level]:
    """Decoded boxes 1xNx4 and scores 1xCxN or 1xNxC in tensors of their own."""
    (box_at, box), (score_at, score) = planes.of("box", 0), planes.of("score", 0)
    box = msgspec.structs.replace(box, layout="NHWC" if box.shape[-1] == 4 else "NCHW")
    last = head.decoded is not None and head.decoded.rows_last
    score = msgspec.structs.replace(score, layout="NCHW" if last else "NHWC")
    _expect(box, 4, "box")
    _expect(score, head.classes, "score")
    return [
        Level(
            grid=Spread.over(size, head.strides),
            box=Plane(box_at, box, 0, 4),
            score=Plane(score_at, score, 0, head.classes),
            decoded=head.decoded,
        )
    ]


def _uncut(head: DetectHead, size: tuple[int, int], planes: _Planes) -> list[Level]:
    """The tensor that holds everything, as one level."""
    if planes.has("box"):
        return _two_tensors(head, size, planes)
    decoded = head.decoded or Decoded()
    index, spec = planes.of("decoded", 0)
    spec = msgspec.structs.replace(spec, layout="NCHW" if decoded.rows_last else "NHWC")
    start = 4 + (head.objectness != "none")
    classes = 2 if decoded.picked else head.classes
    values = head.keypoints * head.keypoint_values
    _expect(spec, start + classes + head.coefficients + values + head.rotated, "uncut")

    def part(first: int, count: int) -> Plane | None:
        return Plane(index, spec, first, count) if count else None

    after = start + classes
    strides = [stride for stride in head.strides]
    return [
        Level(
            grid=Spread.over(size, strides),
            box=Plane(index, spec, 0, 4),
            score=Plane(index, spec, start, 1 if decoded.picked else classes),
            objectness=part(4, int(head.objectness != "none" and not decoded.multiplied)),
            coefficients=part(after, head.coefficients),
            keypoints=part(after, values),
            angle=part(after, int(head.rotated)),
            decoded=decoded,
        )
    ]
