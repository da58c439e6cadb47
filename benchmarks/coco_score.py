"""How long half a million boxes take to score, and how much memory.

    python benchmarks/coco_score.py [--pictures 5000] [--per-picture 100]

Synthetic pictures with about seven objects each; the answers hold most of them, moved a
little, and chance boxes up to the number asked for. Prints seconds and the peak of memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from rkzoo.accuracy import answers
from rkzoo.accuracy.objects import ObjectTruth, coco_stats

CLASSES = 80


def made(pictures: int, per_picture: int) -> tuple[ObjectTruth, list[answers.Record]]:
    """Truth and answers, the same at each call."""
    random = np.random.default_rng(7)
    counts = random.poisson(7, pictures)
    picture = np.repeat(np.arange(pictures), counts)
    total = len(picture)
    side = np.exp(random.uniform(np.log(8), np.log(400), (total, 2)))
    xywh = np.concatenate((random.uniform(0, 1, (total, 2)) * (640 - side), side), axis=1)
    category = random.integers(0, CLASSES, total)
    truth = ObjectTruth(
        picture=picture.astype(np.int64),
        category=category,
        xywh=xywh,
        area=xywh[:, 2:].prod(axis=1) * 0.6,
        crowd=random.uniform(size=total) < 0.01,
        sizes=np.full((pictures, 2), 640, np.int64),
        names=tuple(f"class {number}" for number in range(CLASSES)),
        ids=tuple(range(CLASSES)),
    )
    first = np.concatenate(([0], np.cumsum(counts)))
    records = []
    for number in range(pictures):
        near = xywh[first[number] : first[number + 1]]
        kinds = category[first[number] : first[number + 1]]
        near = near + random.normal(0, 0.06, near.shape) * np.tile(near[:, 2:], 2)
        near = np.repeat(near, 3, axis=0)[:per_picture]
        rest = per_picture - len(near)
        far_side = np.exp(random.uniform(np.log(8), np.log(400), (rest, 2)))
        far = np.concatenate((random.uniform(0, 1, (rest, 2)) * (640 - far_side), far_side), 1)
        boxes = np.concatenate((near, far))
        score = np.concatenate((random.beta(3, 2, len(near)), random.beta(1, 12, rest)))
        order = np.argsort(-score)
        kind = np.concatenate(
            (np.repeat(kinds, 3)[:per_picture], random.integers(0, CLASSES, rest))
        )
        records.append(
            {
                "size": np.array([640, 640], np.int32),
                "xyxy": np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)[
                    order
                ].astype(np.float32),
                "score": score[order].astype(np.float32),
                "class_id": kind[order].astype(np.int32),
            }
        )
    return truth, records


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--pictures", type=int, default=5000)
    options.add_argument("--per-picture", type=int, default=100)
    args = options.parse_args()
    truth, records = made(args.pictures, args.per_picture)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        answers.save(Path(folder) / "answers.npz", records)
        written = time.perf_counter()
        records = answers.load(Path(folder) / "answers.npz")
        read = time.perf_counter()
    stats = coco_stats(truth, records, (), "bbox")
    completed = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{sum(len(record['score']) for record in records)} boxes in {args.pictures} pictures")
    print(
        f"save {written - start:.2f} s, load {read - written:.2f} s, score {completed - read:.2f} s"
    )
    print(f"peak {peak:.0f} MiB, of which {before:.0f} MiB before")
    print(f"mAP50-95 {stats[0]:.6f}")


if __name__ == "__main__":
    main()
