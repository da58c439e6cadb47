"""Every coding, objectness and layout: planted objects come back, and a plain loop agrees."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.contract.detect import DecodedOutput, DetectHead, HeadOutput
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.postprocess import Candidates, DetectDecoder

LAYOUTS = ("NCHW", "NHWC", "NC1HWC2")


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def logit(p):
    return np.log(p / (1 - p))


@dataclass
class Tensors:
    """Float NCHW tensors to what a session would give, and the floats that this stands for."""

    layout: str
    integers: bool
    block: int = 16
    arrays: list[np.ndarray] = field(default_factory=list)
    specs: list[TensorSpec] = field(default_factory=list)
    meant: list[np.ndarray] = field(default_factory=list)

    def add(self, name: str, values: np.ndarray) -> None:
        scale, zero, codes = None, 0, values.astype(np.float32)
        meant = codes.astype(np.float64)
        if self.integers:
            low, high = min(0.0, float(values.min())), max(1e-3, float(values.max()))
            scale = (high - low) / 255
            zero = round(-128 - low / scale)
            codes = np.clip(np.round(values / scale) + zero, -128, 127).astype(np.int8)
            meant = (codes.astype(np.float64) - zero) * scale
        if self.layout == "NHWC":
            codes = np.ascontiguousarray(codes.transpose(0, 2, 3, 1))
        elif self.layout == "NC1HWC2":
            _, channels, rows, columns = codes.shape
            blocks = -(-channels // self.block)
            # What the NPU leaves in the rest of the last block is anything.
            padded = np.full((1, blocks * self.block, rows, columns), 99, codes.dtype)
            padded[:, :channels] = codes
            native = padded.reshape(1, blocks, self.block, rows, columns)
            codes = np.ascontiguousarray(native.transpose(0, 1, 3, 4, 2))
        self.arrays.append(codes)
        self.meant.append(meant)
        self.specs.append(
            TensorSpec(
                name=name, shape=codes.shape, dtype=str(codes.dtype), layout=self.layout,
                scale=scale, zero_point=zero,
            )
        )  # fmt: skip


@dataclass(frozen=True)
class Case:
    head: DetectHead
    size: tuple[int, int]
    tensors: Tensors
    levels: list[dict[str, np.ndarray]]  # role -> floats that are meant, NCHW


def anchors_of(strides, count=3):
    return tuple(
        tuple((stride * (1.0 + n), stride * (2.5 - n / 2)) for n in range(count))
        for stride in strides
    )


def make(coding, objectness, classes, bins, strides, size, activated, tensors, fill) -> Case:
    """`fill(level, role, shape)` gives the floats of a tensor."""
    outputs, levels = [], []
    anchors = anchors_of(strides) if coding == "anchor" else ()
    for level, stride in enumerate(strides):
        rows, columns = size[0] // stride, size[1] // stride
        if anchors:
            parts = [("anchors", len(anchors[level]) * (5 + classes))]
        else:
            parts = [("box", 4 * bins), ("score", classes)]
            parts += [("objectness", 1)] if objectness != "none" else []
        meant = {}
        for role, channels in parts:
            tensors.add(f"{role}_{stride}", fill(level, role, (1, channels, rows, columns)))
            outputs.append(HeadOutput(name=f"{role}_{stride}", role=role, level=level))
            meant[role] = tensors.meant[-1][0]
        levels.append(meant)
    head = DetectHead(
        outputs=tuple(outputs), classes=classes, reg_max=bins, strides=strides, coding=coding,
        activated=activated, anchors=anchors, objectness=objectness,
    )  # fmt: skip
    return Case(head, size, tensors, levels)


def plain_sides(head, numbers):
    if head.coding != "dfl" or head.reg_max == 1:
        return numbers
    sides = []
    for side in np.split(numbers, 4):
        weights = np.exp(side - side.max())
        sides.append((weights * np.arange(len(side))).sum() / weights.sum())
    return np.array(sides)


def plain_box(head, numbers, x, y, stride, anchor):
    if head.coding == "anchor":
        p = 2 * (numbers if head.activated else sigmoid(numbers))
        cx, cy = (p[0] - 0.5 + x) * stride, (p[1] - 0.5 + y) * stride
        w, h = p[2] ** 2 * anchor[0], p[3] ** 2 * anchor[1]
    elif head.coding == "exponent":
        cx, cy = (numbers[0] + x) * stride, (numbers[1] + y) * stride
        w, h = np.exp(numbers[2]) * stride, np.exp(numbers[3]) * stride
    else:
        left, top, right, bottom = plain_sides(head, numbers)
        return [
            (x + 0.5 - left) * stride, (y + 0.5 - top) * stride,
            (x + 0.5 + right) * stride, (y + 0.5 + bottom) * stride,
        ]  # fmt: skip
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def plain_all(case):
    """(box, scores of all classes) of every cell and anchor, by loops."""
    head = case.head
    found = []
    for level, stride in enumerate(head.strides):
        tensors = case.levels[level]
        anchors = head.anchors[level] if head.anchors else [None]
        for number, anchor in enumerate(anchors):
            if anchor:
                each = 5 + head.classes
                rows = tensors["anchors"][number * each : (number + 1) * each]
                box, objectness, score = rows[:4], rows[4:5], rows[5:]
            else:
                box, score = tensors["box"], tensors["score"]
                objectness = tensors.get("objectness")
            for y in range(score.shape[1]):
                for x in range(score.shape[2]):
                    values = score[:, y, x]
                    seen = objectness[0, y, x] if objectness is not None else None
                    if not head.activated:
                        values = sigmoid(values)
                        seen = sigmoid(seen) if seen is not None else None
                    if head.objectness == "product":
                        values = values * seen
                    elif head.objectness == "alone":
                        values = np.array([seen])
                    found.append((plain_box(head, box[:, y, x], x, y, stride, anchor), values))
    return found


CODINGS = (("dfl", "none"), ("dfl", "product"), ("distance", "none"), ("distance", "product"),
           ("anchor", "product"), ("anchor", "alone"), ("exponent", "product"),
           ("exponent", "none"))  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(CODINGS),
    classes=st.integers(1, 40),
    bins=st.integers(1, 32),
    levels=st.integers(1, 4),
    side=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    activated=st.booleans(),
    integers=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    block=st.sampled_from([4, 8, 16]),
    multi=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_a_plain_loop(
    kind, classes, bins, levels, side, activated, integers, layout, block, multi, seed
):
    coding, objectness = kind
    if objectness == "alone":
        classes = 1
    rng = np.random.default_rng(seed)
    strides = (8, 16, 32, 64)[:levels]
    size = (side[0] * strides[-1], side[1] * strides[-1])

    def fill(level, role, shape):
        if role == "box":
            return rng.normal(0, 2, shape)
        numbers = rng.random(shape) ** 2
        return numbers if activated else logit(numbers.clip(1e-3, 1 - 1e-3))

    case = make(
        coding, objectness, classes, bins if coding == "dfl" else 1, strides, size,
        activated, Tensors(layout, integers, block), fill,
    )  # fmt: skip
    confidence = 0.31
    decoder = DetectDecoder(case.head, size, case.tensors.specs)
    got = decoder.candidates(case.tensors.arrays, confidence, multi_label=multi)
    want = []
    for box, values in plain_all(case):
        # Right on the threshold both answers are right: rounding decides.
        chosen = range(len(values)) if multi else [int(np.argmax(values))]
        want += [(box, values[c], c) for c in chosen if values[c] >= confidence - 2e-6]
    assert len(got) == len(want)
    if want:
        np.testing.assert_allclose(got.boxes, [w[0] for w in want], atol=5e-3, rtol=1e-4)
        np.testing.assert_allclose(got.score, [min(w[1], 1) for w in want], atol=2e-6)
        assert got.class_id.tolist() == [w[2] for w in want]
    assert got.boxes.dtype == got.score.dtype == np.float32
    assert np.all(got.score <= 1)


def planted(rng, coding, bins, strides, size):
    """An object and the cell that sees it, the coding's numbers for it, its level and anchor."""
    level = int(rng.integers(len(strides)))
    stride = strides[level]
    x, y = int(rng.integers(size[1] // stride)), int(rng.integers(size[0] // stride))
    anchor = int(rng.integers(3))
    if coding in ("dfl", "distance"):
        most = bins - 1 if coding == "dfl" and bins > 1 else 9
        sides = rng.uniform(0.2, max(most * 0.98, 0.25), 4) if most else np.zeros(4)
        box = np.array([x + 0.5, y + 0.5, x + 0.5, y + 0.5]) + sides * [-1, -1, 1, 1]
        numbers = sides
        if coding == "dfl" and bins > 1:
            table = np.full((4, bins), -20.0)
            low = np.minimum(sides.astype(int), bins - 2)
            rest = (sides - low).clip(1e-6, 1 - 1e-6)
            table[np.arange(4), low] = np.log(1 - rest)
            table[np.arange(4), low + 1] = np.log(rest)
            numbers = table.ravel()
        return level, x, y, anchor, box * stride, numbers
    size_ = rng.uniform(0.5, 3.5, 2) * stride
    middle = (np.array([x, y]) + rng.uniform(0, 1, 2)) * stride
    box = np.concatenate((middle - size_ / 2, middle + size_ / 2))
    if coding == "exponent":
        numbers = np.concatenate((middle / stride - (x, y), np.log(size_ / stride)))
    else:
        wide = np.array(anchors_of(strides)[level][anchor])
        numbers = np.concatenate((middle / stride - (x, y) + 0.5, np.sqrt(size_ / wide))) / 2
    return level, x, y, anchor, box, numbers


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from([k for k in CODINGS if k[1] != "alone"]),
    classes=st.integers(1, 400),
    bins=st.integers(1, 32),
    levels=st.integers(1, 4),
    side=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    layout=st.sampled_from(LAYOUTS),
    integers=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_planted_object_comes_back(kind, classes, bins, levels, side, layout, integers, seed):
    coding, objectness = kind
    if coding == "dfl" and bins == 1:
        coding = "distance"
    rng = np.random.default_rng(seed)
    strides = (8, 16, 32, 64)[:levels]
    size = (side[0] * strides[-1], side[1] * strides[-1])
    level, x, y, anchor, box, numbers = planted(rng, coding, bins, strides, size)
    class_id = int(rng.integers(classes))
    score = float(rng.uniform(0.4, 0.95))
    seen = 1.0 if objectness == "none" else float(rng.uniform(score, 1))

    def fill(at, role, shape):
        values = np.zeros(shape)
        if role == "box" and coding == "dfl":
            values[:] = -20  # the ends of a real tensor's range, so that INT8 keeps it
            values[:, 0] = 0
        if at != level:
            return values
        if role == "box":
            values[0, :, y, x] = numbers
        elif role == "score":
            values[0, class_id, y, x] = score / seen
        elif role == "objectness":
            values[0, 0, y, x] = seen
        else:
            cell = values[0, anchor * (5 + classes) : (anchor + 1) * (5 + classes), y, x]
            cell[:4], cell[4], cell[5 + class_id] = numbers, seen, score / seen
        return values

    tensors = Tensors(layout, integers)
    case = make(
        coding, objectness, classes, bins if coding == "dfl" else 1, strides, size, True,
        tensors, fill,
    )  # fmt: skip
    got = DetectDecoder(case.head, size, tensors.specs).candidates(tensors.arrays, 0.3)
    assert len(got) == 1
    assert got.class_id.tolist() == [class_id]
    assert got.score[0] == pytest.approx(score, abs=0.01)
    if not integers:
        np.testing.assert_allclose(got.boxes[0], box, atol=0.5)
        return
    # INT8: no more than the steps of the box tensor can move it.
    role = "anchors" if coding == "anchor" else "box"
    spec = next(s for s in tensors.specs if s.name == f"{role}_{strides[level]}")
    stride = strides[level]
    lattice = spec.scale * stride
    if coding == "distance":
        allowed = lattice
    elif coding == "dfl":  # a logit moves by half a step, the expectation by less than the bins
        allowed = stride * (bins - 1) * (np.expm1(spec.scale)) + 0.5
    elif coding == "exponent":
        allowed = lattice + (box[2:] - box[:2]).max() * np.expm1(spec.scale)
    else:
        wide = np.array(anchors_of(strides)[level][anchor]).max()
        allowed = 2 * lattice + 8 * spec.scale * wide
    np.testing.assert_allclose(got.boxes[0], box, atol=allowed)


# ---- uncut tensors --------------------------------------------------------------------


def uncut(columns: np.ndarray, rows_last: bool) -> np.ndarray:
    """(N, R) rows to the tensor."""
    return np.ascontiguousarray(columns.T[None] if rows_last else columns[None], np.float32)


def uncut_decoder(head_changes, decoded, tensor, size=(64, 96)):
    head = DetectHead(
        outputs=(HeadOutput(name="output0", role="decoded"),), decoded=decoded, **head_changes
    )
    spec = TensorSpec(name="output0", shape=tensor.shape, dtype="float32")
    return DetectDecoder(head, size, [spec])


@settings(max_examples=80, deadline=None)
@given(
    rows_last=st.booleans(),
    corners=st.booleans(),
    picked=st.booleans(),
    objectness=st.booleans(),
    extras=st.sampled_from([(0, 0), (32, 0), (0, 17)]),
    classes=st.integers(3, 30),
    seed=st.integers(0, 2**31),
)
def test_uncut_tensors(rows_last, corners, picked, objectness, extras, classes, seed):
    rng = np.random.default_rng(seed)
    coefficients, keypoints = extras
    objectness = objectness and not picked
    boxes = rng.uniform(5, 60, (40, 4))
    scores = rng.random((40, classes)) ** 2
    seen = rng.random((40, 1)) if objectness else np.ones((40, 1))
    tail = rng.normal(0, 1, (40, coefficients + 3 * keypoints))
    best = (scores * seen).argmax(axis=1)
    value = (scores * seen).max(axis=1)
    middle = [value[:, None], best[:, None]] if picked else [*([seen] * objectness), scores]
    tensor = uncut(np.concatenate([boxes, *middle, tail], axis=1), rows_last)
    decoder = uncut_decoder(
        {"classes": classes, "objectness": "product" if objectness else "none",
         "coefficients": coefficients, "keypoints": keypoints},
        DecodedOutput(rows_last=rows_last, corners=corners, picked=picked),
        tensor,
    )  # fmt: skip
    got = decoder.candidates([tensor], 0.4)
    over = np.flatnonzero(value.astype(np.float32) >= np.float32(0.4))
    half = boxes[:, 2:] / 2
    want = boxes if corners else np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), 1)
    assert got.cell.tolist() == over.tolist()
    np.testing.assert_allclose(got.boxes, want[over], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(got.score, value[over], rtol=1e-5)
    assert got.class_id.tolist() == best[over].tolist()
    found = decoder.extras([tensor], got)
    if coefficients:
        np.testing.assert_allclose(found.coefficients, tail[over], rtol=1e-5)
    if keypoints:
        np.testing.assert_allclose(found.keypoints.reshape(-1, 51), tail[over], rtol=1e-5)


def test_an_uncut_tensor_of_raw_numbers_is_decoded_as_its_levels_would_be():
    rng = np.random.default_rng(5)
    size, strides, classes = (64, 96), (8, 16, 32), 4
    parts = []

    def fill(level, role, shape):
        values = rng.normal(0, 0.5, shape) if role == "box" else rng.random(shape)
        parts.append(values)
        return values

    tensors = Tensors("NCHW", False)
    case = make("exponent", "product", classes, 1, strides, size, True, tensors, fill)
    cut = DetectDecoder(case.head, size, tensors.specs).candidates(tensors.arrays, 0.5)
    rows = [
        np.concatenate((box[0], seen[0], score[0])).reshape(5 + classes, -1).T
        for box, score, seen in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]
    tensor = uncut(np.concatenate(rows), rows_last=False)
    whole = uncut_decoder(
        {"classes": classes, "objectness": "product", "coding": "exponent"},
        DecodedOutput(rows_last=False, raw=True),
        tensor,
        size,
    ).candidates([tensor], 0.5)
    assert len(cut) > 10
    np.testing.assert_allclose(whole.boxes, cut.boxes, rtol=1e-5)
    np.testing.assert_allclose(whole.score, cut.score, rtol=1e-6)


# ---- extras and edges -----------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("integers", [False, True])
def test_extras_follow_the_boxes_that_are_kept(layout, integers):
    """In the order of the kept boxes, whatever it is. The original reads the extras of a
    cell's second class at the wrong place."""
    rng = np.random.default_rng(7)
    strides, size, classes = (8, 16), (32, 48), 5
    tensors, outputs, meant = Tensors(layout, integers), [], {}
    for level, stride in enumerate(strides):
        rows, columns = size[0] // stride, size[1] // stride
        for role, channels in (("box", 32), ("score", classes), ("coefficients", 7),
                               ("keypoints", 6)):  # fmt: skip
            shape = (1, channels, rows, columns)
            values = rng.random(shape) if role == "score" else rng.normal(0, 1, shape)
            tensors.add(f"{role}{level}", values)
            outputs.append(HeadOutput(name=f"{role}{level}", role=role, level=level))
            meant[role, level] = tensors.meant[-1][0]
    head = DetectHead(
        outputs=tuple(outputs), classes=classes, reg_max=8, strides=strides, coefficients=7,
        keypoints=2,
    )  # fmt: skip
    decoder = DetectDecoder(head, size, tensors.specs)
    found = decoder.candidates(tensors.arrays, 0.6, multi_label=True)
    kept = found[rng.permutation(len(found))[:9]]
    extras = decoder.extras(tensors.arrays, kept)
    for row in range(9):
        level, cell = int(kept.level[row]), int(kept.cell[row])
        stride = strides[level]
        y, x = divmod(cell, size[1] // stride)
        np.testing.assert_allclose(
            extras.coefficients[row], meant["coefficients", level][:, y, x], atol=1e-5
        )
        raw = meant["keypoints", level][:, y, x].reshape(2, 3)
        want = np.column_stack(((2 * raw[:, :2] + (x, y)) * stride, sigmoid(raw[:, 2])))
        np.testing.assert_allclose(extras.keypoints[row], want, atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", CODINGS)
def test_nothing_found_is_an_empty_result(kind, layout):
    coding, objectness = kind
    tensors = Tensors(layout, True)
    case = make(
        coding, objectness, 1, 4 if coding == "dfl" else 1, (8, 16), (32, 64), True, tensors,
        lambda level, role, shape: np.zeros(shape),
    )  # fmt: skip
    found = DetectDecoder(case.head, case.size, tensors.specs).candidates(tensors.arrays, 0.25)
    assert isinstance(found, Candidates)
    assert found.boxes.shape == (0, 4)
    assert len(found.score) == len(found.class_id) == len(found.level) == len(found.cell) == 0


def test_a_rotated_box_is_turned_about_its_own_centre():
    """Angle 90 degrees: the offset of the centre turns with the box. Never clamped: the box
    hangs over the edge (the original clamps it and so moves it)."""
    box = np.zeros((1, 4, 1, 1), np.float32)
    box[0, :, 0, 0] = (1, 2, 5, 4)
    share = 0.25 + 0.5  # of pi, from -pi/4
    tensors = Tensors("NCHW", False)
    for name, values in (("box", box), ("score", np.full((1, 1, 1, 1), 0.9)),
                         ("angle", np.full((1, 1, 1, 1), logit(share)))):  # fmt: skip
        tensors.add(name, values)
    head = DetectHead(
        outputs=tuple(HeadOutput(name=n, role=n) for n in ("box", "score", "angle")),
        classes=1, reg_max=1, coding="distance", strides=(8,), rotated=True,
    )  # fmt: skip
    got = DetectDecoder(head, (8, 8), tensors.specs).candidates(tensors.arrays, 0.5)
    # l,t,r,b = 1,2,5,4: 6 x 6 cells, centre off by (2, 1), turned to (-1, 2).
    np.testing.assert_allclose(
        got.boxes, [[(0.5 - 1) * 8, (0.5 + 2) * 8, 48, 48, np.pi / 2]], atol=1e-4
    )


def test_a_head_that_does_not_fit_is_refused():
    tensors = Tensors("NCHW", False)
    case = make("anchor", "product", 3, 1, (8,), (32, 32), True, tensors,
                lambda level, role, shape: np.zeros(shape))  # fmt: skip
    wrong = msgspec.structs.replace(case.head, classes=80)
    with pytest.raises(RkzooError, match="24 channels where 255"):
        DetectDecoder(wrong, (32, 32), tensors.specs)
