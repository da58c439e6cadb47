"""How long decoding takes, beside the plain way: everything to float, transposed, softmaxed.

.venv/bin/python benchmarks/decode.py [--rounds N]

One thread, and its processor time: waiting for a busy machine does not count, though its
caches and clock still tell. Medians of rounds taken alternately, so that a busy moment hits
both. The plain way is also the oracle: both must give the same boxes, else the exit status is
1. A missed goal is only printed, since it depends on the machine. Scenes are made, not
recorded: no weights needed.
"""

# ruff: noqa: E402  (the number of threads must be set before numpy is loaded)

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import statistics
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import thread_time

import cv2
import numpy as np

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.tasks.detect.postprocess import DetectDecoder
from rkzoo.vision.letterbox import fit, plan
from rkzoo.vision.masks import mask_crops
from rkzoo.vision.nms import nms
from rkzoo.vision.rotated import corners, nms_rotated

SIZE, STRIDES, CLASSES, BINS = 640, (8, 16, 32), 80, 16
ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
# Every level has a scale of its own, as in converted models.
BOXES = ((0.085, -40), (0.079, -44), (0.09, -38))
SCORE = (1 / 255, -128)


@dataclass(frozen=True)
class Scene:
    name: str
    objects: int
    one_class: float
    confidence: float
    iou: float


SCENES = (
    Scene("normal, 25 objects", 25, 0.2, 0.25, 0.45),
    Scene("crowd, 300 objects", 300, 0.75, 0.25, 0.45),
    Scene("confidence 0.001", 25, 0.2, 0.001, 0.65),
)
GOALS = {"v8": (0.25, 1.2, 2.0), "v5": (0.4, 4.0, 2.0)}


@dataclass(frozen=True)
class Row:
    name: str
    ours: Callable[[], object]
    plain: Callable[[], object] | None
    goal: float


# ---- scenes ---------------------------------------------------------------------------


def codes(values: np.ndarray, scale: float, zero: int) -> np.ndarray:
    return np.clip(np.round(values / scale) + zero, -128, 127).astype(np.int8)


def objects(rng: np.random.Generator, scene: Scene) -> list[tuple[np.ndarray, int, float]]:
    objects = []
    for _ in range(scene.objects):
        crowded = scene.objects > 100
        wide, high = rng.uniform(14, 60, 2) if crowded else rng.uniform(20, 300, 2)
        cx, cy = rng.uniform(0.06, 0.94, 2) * SIZE
        kind = 0 if rng.random() < scene.one_class else int(rng.integers(CLASSES))
        box = np.array([cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2])
        objects.append((np.clip(box, 0, SIZE), kind, float(rng.uniform(0.4, 0.95))))
    return objects


def near(box: np.ndarray, stride: int, rng: np.random.Generator) -> list[tuple[int, int, float]]:
    """Cells around the middle of a box and how much of the score they see."""
    side = SIZE // stride
    x, y = int((box[0] + box[2]) / 2 / stride), int((box[1] + box[3]) / 2 / stride)
    return [
        (j, i, float(rng.uniform(0.3, 1)) if (i, j) != (x, y) else 1.0)
        for j in range(max(y - 1, 0), min(y + 2, side))
        for i in range(max(x - 1, 0), min(x + 2, side))
        if (i, j) == (x, y) or rng.random() < 0.35
    ]


def level_of(box: np.ndarray) -> int:
    size = max(box[2] - box[0], box[3] - box[1])
    return 0 if size < 64 else 1 if size < 160 else 2


def v8(rng: np.random.Generator, scene: Scene) -> list[np.ndarray]:
    """Nine int8 tensors, NCHW: box, score and score sum of each level."""
    boxes, scores = [], []
    for stride in STRIDES:
        side = SIZE // stride
        boxes.append(rng.normal(-1, 1.5, (4, BINS, side, side)))
        quiet = np.zeros((CLASSES, side, side))
        few = rng.random((side, side)) < 0.14
        y, x = np.nonzero(few)
        quiet[rng.integers(CLASSES, size=len(y)), y, x] = rng.uniform(0.002, 0.03, len(y))
        scores.append(quiet)
    for box, kind, score in objects(rng, scene):
        level = level_of(box)
        stride = STRIDES[level]
        for j, i, share in near(box, stride, rng):
            jitter = box + rng.normal(0, 1, 4)
            middle = np.array([i + 0.5, j + 0.5])
            sides = np.concatenate((middle - jitter[:2] / stride, jitter[2:] / stride - middle))
            reach = np.clip(sides, 0, BINS - 1.01)[:, None]
            boxes[level][:, :, j, i] = 6 - (np.arange(BINS) - reach) ** 2 / 0.5
            cell = scores[level][kind, j, i]
            scores[level][kind, j, i] = max(cell, score * share)
    tensors = []
    for box, score, code in zip(boxes, scores, BOXES, strict=True):
        total = np.clip(score.sum(axis=0, keepdims=True), 0, 1)
        total[rng.random(total.shape) < 0.75] += 0.005  # what 80 small scores add up to
        tensors += [
            codes(box.reshape(4 * BINS, *box.shape[2:]), *code)[None],
            codes(score, *SCORE)[None],
            codes(np.clip(total, 0, 1), *SCORE)[None],
        ]
    return tensors


def v5(rng: np.random.Generator, scene: Scene) -> list[np.ndarray]:
    """Three int8 tensors 1x255xhxw, after their sigmoid."""
    tables = []
    for stride in STRIDES:
        side = SIZE // stride
        table = rng.uniform(0, 0.9, (3, 5 + CLASSES, side, side))
        table[:, 4] = np.where(
            rng.random((3, side, side)) < 0.05, rng.uniform(0.002, 0.05, (3, side, side)), 0
        )
        table[:, 5:] *= rng.random((3, CLASSES, side, side)) < 0.05
        tables.append(table)
    for box, kind, score in objects(rng, scene):
        level = level_of(box)
        stride = STRIDES[level]
        for j, i, share in near(box, stride, rng):
            for number, anchor in enumerate(ANCHORS[level]):
                jitter = box + rng.normal(0, 1, 4)
                size = np.maximum(jitter[2:] - jitter[:2], 2) / anchor
                if size.max() > 4 or size.min() < 0.25:
                    continue
                middle = (jitter[:2] + jitter[2:]) / 2 / stride - (i, j)
                cell = tables[level][number, :, j, i]
                cell[:2], cell[2:4] = (middle + 0.5) / 2, np.sqrt(size) / 2
                cell[4], cell[5:] = score * share, 0.02
                cell[5 + kind] = 0.97
    return [codes(t.reshape(-1, *t.shape[2:]), *SCORE)[None] for t in tables]


# ---- layouts --------------------------------------------------------------------------


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "NCHW":
        return array
    if layout == "NHWC":
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    blocks = -(-array.shape[1] // 16)
    padded = np.zeros((1, blocks * 16, *array.shape[2:]), array.dtype)
    padded[:, : array.shape[1]] = array
    native = padded.reshape(1, blocks, 16, *array.shape[2:]).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(native)


def decoder_of(
    head: DetectHead, tensors: Sequence[np.ndarray], layout: str
) -> tuple[DetectDecoder, list[np.ndarray]]:
    ready = [laid_out(tensor, layout) for tensor in tensors]
    specs = []
    for output, tensor in zip(head.outputs, ready, strict=True):
        scale, zero = BOXES[output.level] if output.role == "box" else SCORE
        specs.append(
            TensorSpec(
                name=output.name, shape=tensor.shape, dtype="int8", layout=layout,  # type: ignore[arg-type]
                scale=scale, zero_point=zero,
            )
        )  # fmt: skip
    return DetectDecoder(head, (SIZE, SIZE), specs), ready


V8_HEAD = DetectHead(
    outputs=tuple(
        HeadOutput(name=f"{role}{level}", role=role, level=level)  # type: ignore[arg-type]
        for level in range(3)
        for role in ("box", "score", "score_sum")
    ),
    classes=CLASSES,
)
V5_HEAD = DetectHead(
    outputs=tuple(HeadOutput(name=f"all{n}", role="anchors", level=n) for n in range(3)),
    classes=CLASSES, coding="anchor", anchors=ANCHORS, objectness="product",
)  # fmt: skip


# ---- the plain way --------------------------------------------------------------------


def channels_first(array: np.ndarray, layout: str, channels: int) -> np.ndarray:
    if layout == "NCHW":
        return array
    if layout == "NHWC":
        return array.transpose(0, 3, 1, 2)
    whole = array.transpose(0, 1, 4, 2, 3)
    return whole.reshape(1, -1, *whole.shape[3:])[:, :channels]


def plain_v8(tensors: list[np.ndarray], layout: str, scene: Scene) -> np.ndarray:
    boxes, scores = [], []
    for level, stride in enumerate(STRIDES):
        raw = channels_first(tensors[3 * level], layout, 4 * BINS).astype(np.float32)
        scale, zero = BOXES[level]
        logits = ((raw - zero) * np.float32(scale)).reshape(4, BINS, -1)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        share = weights / weights.sum(axis=1, keepdims=True)
        sides = (share * np.arange(BINS, dtype=np.float32)[:, None]).sum(axis=1)
        side = SIZE // stride
        y, x = np.divmod(np.arange(side * side), side)
        middle = np.stack((x, y)) + 0.5
        boxes.append((np.concatenate((middle - sides[:2], middle + sides[2:])) * stride).T)
        raw = channels_first(tensors[3 * level + 1], layout, CLASSES).astype(np.float32)
        scores.append(((raw - SCORE[1]) * np.float32(SCORE[0])).reshape(CLASSES, -1).T)
    return plain_rest(np.concatenate(boxes), np.concatenate(scores), scene)


def plain_v5(tensors: list[np.ndarray], layout: str, scene: Scene) -> np.ndarray:
    boxes, scores = [], []
    for level, stride in enumerate(STRIDES):
        raw = channels_first(tensors[level], layout, 255).astype(np.float32)
        side = SIZE // stride
        p = ((raw - SCORE[1]) * np.float32(SCORE[0])).reshape(3, 85, -1).transpose(0, 2, 1)
        y, x = np.divmod(np.arange(side * side), side)
        middle = (p[..., :2] * 2 - 0.5 + np.stack((x, y), axis=1)) * stride
        size = (p[..., 2:4] * 2) ** 2 * np.array(ANCHORS[level], np.float32)[:, None]
        boxes.append(np.concatenate((middle - size / 2, middle + size / 2), axis=2).reshape(-1, 4))
        scores.append((p[..., 5:] * p[..., 4:5]).reshape(-1, CLASSES))
    return plain_rest(np.concatenate(boxes), np.concatenate(scores), scene)


def plain_rest(boxes: np.ndarray, scores: np.ndarray, scene: Scene) -> np.ndarray:
    kind = scores.argmax(axis=1)
    best = np.minimum(scores[np.arange(len(scores)), kind], 1)
    over = best >= np.float32(scene.confidence - 1e-6)
    boxes, best, kind = boxes[over].astype(np.float32), best[over], kind[over]
    order = np.argsort(-best, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[rest, :2])
        high = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        inter = np.prod(np.maximum(high - low, 0), axis=1)
        over_ = inter > scene.iou * (area[first] + area[rest] - inter)
        order = rest[~(over_ & (kind[rest] == kind[first]))]
    kept = kept[:1000]
    return np.column_stack((boxes[kept], best[kept], kind[kept]))


def decode_rows(rng: np.random.Generator) -> list[Row]:
    rows = []
    families = (("v8", V8_HEAD, v8, plain_v8), ("v5", V5_HEAD, v5, plain_v5))
    for family, head, make, plain in families:
        for scene, goal in zip(SCENES, GOALS[family], strict=True):
            tensors = make(rng, scene)
            for layout in ("NC1HWC2", "NHWC", "NCHW"):
                decoder, ready = decoder_of(head, tensors, layout)

                def ours(
                    decoder: DetectDecoder = decoder, ready: list[np.ndarray] = ready,
                    scene: Scene = scene,
                ) -> np.ndarray:  # fmt: skip
                    candidates = decoder.candidates(ready, scene.confidence)
                    kept = nms(
                        candidates.boxes, candidates.score, candidates.class_id, scene.iou, 1000
                    )
                    candidates = candidates[kept]
                    return np.column_stack(
                        (candidates.boxes, candidates.score, candidates.class_id)
                    )

                def oracle(
                    plain: Callable[..., np.ndarray] = plain, ready: list[np.ndarray] = ready,
                    layout: str = layout, scene: Scene = scene,
                ) -> np.ndarray:  # fmt: skip
                    return plain(ready, layout, scene)

                same(ours(), oracle(), f"{family} {scene.name} {layout}")
                candidates = decoder.candidates(ready, scene.confidence)
                note = f"{len(candidates)} to {len(ours())}"
                rows.append(Row(f"{family} {layout:8} {scene.name} ({note})", ours, oracle, goal))
    return rows


def same(got: np.ndarray, want: np.ndarray, what: str) -> None:
    if got.shape != want.shape or not np.allclose(got, want, atol=1e-2):
        raise SystemExit(f"{what}: {got.shape} boxes differ from the plain {want.shape}")


# ---- masks, rotated boxes, letterbox --------------------------------------------------


def mask_row(rng: np.random.Generator) -> Row:
    """20 objects, 1x32x160x160 int8 prototypes, crops of the 640x640 model picture."""
    smooth = cv2.resize(rng.normal(0, 1.5, (12, 12, 32)).astype(np.float32), (160, 160))
    stored = codes(smooth.transpose(2, 0, 1), 0.05, -3)[None]
    native = laid_out(stored, "NC1HWC2")[0]
    weights = rng.normal(0, 0.5, (20, 32)).astype(np.float32)
    start, side = rng.uniform(0, 480, (20, 2)), rng.uniform(30, 260, (20, 2))
    boxes = np.clip(np.concatenate((start, start + side), axis=1), 0, SIZE).astype(np.float32)
    letterbox = plan((SIZE, SIZE), ImageInput(size=(SIZE, SIZE)))

    def ours() -> object:
        return mask_crops(native, weights, boxes, letterbox, 0.05, -3)

    def plain() -> np.ndarray:
        maps = (stored[0].astype(np.float32) + 3) * np.float32(0.05)
        share = 1 / (1 + np.exp(-(weights @ maps.reshape(32, -1)).reshape(-1, 160, 160)))
        whole = np.stack([cv2.resize(mask, (SIZE, SIZE)) for mask in share])
        x, y = np.arange(SIZE)[None, None], np.arange(SIZE)[None, :, None]
        x1, y1, x2, y2 = boxes.T[:, :, None, None]
        return (whole > 0.5) & (x >= x1) & (x < x2) & (y >= y1) & (y < y2)

    whole = plain()
    places, crops = mask_crops(native, weights, boxes, letterbox, 0.05, -3)
    for plane, (x, y), crop in zip(whole, places, crops, strict=True):
        part = plane[y : y + crop.shape[0], x : x + crop.shape[1]]
        if plane.sum() != crop.sum() or not np.array_equal(part, crop.astype(bool)):
            raise SystemExit("masks differ from the plain ones")
    share = sum(crop.size for crop in crops) / SIZE**2
    return Row(f"20 masks at 640, NC1HWC2 (boxes fill {share:.1f} pictures)", ours, plain, 1.2)


def rotated_row(rng: np.random.Generator) -> Row:
    """300 oriented boxes, 15 classes, about 250 objects."""
    base = np.column_stack(
        (rng.uniform(0, 640, (250, 2)), rng.uniform(10, 60, (250, 2)),
         rng.uniform(-np.pi / 4, 3 * np.pi / 4, 250))
    )  # fmt: skip
    again = base[:50] + rng.normal(0, 0.5, (50, 5)) * [1, 1, 1, 1, 0.05]
    boxes = np.concatenate((base, again)).astype(np.float32)
    score = rng.random(300).astype(np.float32)
    kind = rng.integers(15, size=250)
    kind = np.concatenate((kind, kind[:50])).astype(np.int32)

    def plain() -> list[int]:
        order = np.argsort(-score, kind="stable")
        quads = corners(boxes)
        area = boxes[:, 2] * boxes[:, 3]
        kept: list[int] = []
        for i in order:
            for k in kept:
                if kind[i] == kind[k]:
                    common = cv2.intersectConvexConvex(quads[i], quads[k])[0]
                    if common > 0.45 * (area[i] + area[k] - common):
                        break
            else:
                kept.append(int(i))
        return kept

    def ours() -> np.ndarray:
        return nms_rotated(boxes, score, kind, 0.45, 1000)

    if ours().tolist() != plain():
        raise SystemExit("the oriented boxes kept differ from the plain ones")
    return Row(f"NMS of 300 oriented boxes (keeps {len(ours())})", ours, plain, 1.0)


def letterbox_row(rng: np.random.Generator) -> Row:
    image = rng.integers(0, 256, (1080, 1920, 3)).astype(np.uint8)
    spec = ImageInput(size=(SIZE, SIZE))
    canvas = np.empty((1, SIZE, SIZE, 3), np.uint8)

    def ours() -> object:
        return fit(image, spec, canvas)

    def plain() -> np.ndarray:
        whole = np.full((SIZE, SIZE, 3), 114, np.uint8)
        whole[140:500] = cv2.resize(image, (640, 360))
        return np.ascontiguousarray(whole[None, ..., ::-1])

    if not np.array_equal(ours()[0], plain()):  # type: ignore[index]
        raise SystemExit("the letterboxed picture differs from the plain one")
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Row(f"letterbox 1080p to 640 ({peak / 1024:.1f} KiB allocated)", ours, plain, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    rng = np.random.default_rng(1)
    rows = [*decode_rows(rng), mask_row(rng), rotated_row(rng), letterbox_row(rng)]
    title = f"median ms of {rounds} rounds"
    print(f"{title:62} {'ours':>7} {'least':>7} {'plain':>8} ratio  goal")
    for row in rows:
        quick, slow = [], []
        for number in range(rounds):
            start = thread_time()
            row.ours()
            middle = thread_time()
            quick.append(middle - start)
            # The plain way is slow: one round in four tells enough.
            if row.plain is not None and number % 4 == 0:
                row.plain()
                slow.append(thread_time() - middle)
        ours = statistics.median(quick) * 1000
        plain = statistics.median(slow) * 1000
        verdict = "" if ours <= row.goal else "  missed"
        print(
            f"{row.name:62} {ours:7.3f} {min(quick) * 1000:7.3f} {plain:8.2f} "
            f"{plain / ours:5.0f} {row.goal:5.2f}{verdict}"
        )


if __name__ == "__main__":
    main()
