"""A video whose truth is known: people cut out of real pictures, who walk, cross, hide behind a
wall and turn round there. And how many identities a tracker confuses, by the plain definition."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FRAMES = 960, 360, 240
WALLS = ((300, 390), (620, 710))
TALL = 150  # pixels


@dataclass(frozen=True)
class Moment:
    """One frame: BGR image, (N, 4) true boxes and (N,) identities of those that can be seen well
    enough (two fifths), and what a detector finds: (M, 4) boxes and (M,) scores."""

    image: NDArray[np.uint8]
    truth: NDArray[np.float64]
    identities: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]


def people(data: Path, count: int) -> list[NDArray[np.uint8]]:
    """Crops of whole people, BGR, each `TALL` high, from COCO's pictures."""
    known = json.loads((data / "instances_bbox.json").read_text())
    person = next(c["id"] for c in known["categories"] if c["name"] == "person")
    names = {image["id"]: image["file_name"] for image in known["images"]}
    found, taken = [], set()
    for one in sorted(known["annotations"], key=lambda a: -a["bbox"][3]):
        x, y, width, height = one["bbox"]
        upright = height > 200 and 0.25 < width / height < 0.5
        if one["category_id"] != person or not upright or one["image_id"] in taken:
            continue
        taken.add(one["image_id"])  # one of each picture: they look different
        image = cv2.imread(str(data / "images" / names[one["image_id"]]))
        crop = image[round(y) : round(y + height), round(x) : round(x + width)]
        size = (round(TALL * width / height), TALL)
        found.append(np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8))
    return found[:count]


def video(crops: Sequence[NDArray[np.uint8]], seed: int) -> list[Moment]:
    """Everybody walks to and fro at a speed of his own and turns where chance says, behind a wall
    as often as not; who is nearer covers the others."""
    chance = np.random.default_rng(seed)
    ground = chance.integers(90, 140, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    ground = np.asarray(cv2.resize(ground, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    count = len(crops)
    x = chance.uniform(0, WIDTH - 80, count)
    speed = chance.uniform(2, 6, count) * chance.choice((-1, 1), count)
    y = np.sort(chance.uniform(120, HEIGHT - TALL - 5, count))  # the last is the nearest
    turns = chance.integers(40, 110, count)
    moments = []
    for frame in range(FRAMES):
        for one in range(count):
            behind = any(a < x[one] + 20 and x[one] + 40 < b for a, b in WALLS)
            due = frame >= turns[one] and (behind or frame >= turns[one] + 60)
            wide = crops[one].shape[1]
            if due or x[one] + speed[one] < 0 or x[one] + speed[one] + wide > WIDTH:
                speed[one] = -speed[one] * chance.uniform(0.7, 1.3)
                speed[one] = np.sign(speed[one]) * np.clip(abs(speed[one]), 2, 6)
                turns[one] = frame + chance.integers(50, 110)
            x[one] = np.clip(x[one] + speed[one], 0, WIDTH - wide)
        moments.append(_moment(ground, crops, x, y, chance))
    return moments


def _moment(
    ground: NDArray[np.uint8],
    crops: Sequence[NDArray[np.uint8]],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    chance: np.random.Generator,
) -> Moment:
    image, owner = ground.copy(), np.full((HEIGHT, WIDTH), -1)
    boxes = np.zeros((len(crops), 4))
    for one, crop in enumerate(crops):
        top, left = round(float(y[one])), round(float(x[one]))
        area = np.s_[top : top + TALL, left : left + crop.shape[1]]
        image[area], owner[area] = crop, one
        boxes[one] = left, top, left + crop.shape[1], top + TALL
    for start, end in WALLS:
        image[:, start:end], owner[:, start:end] = (60, 70, 80), -1
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    seen = np.bincount(owner[owner >= 0], minlength=len(crops)) / areas
    there = np.flatnonzero(seen > 0.4)
    found = there[chance.random(len(there)) > 0.03]  # a detector misses some
    shaken = boxes[found] + chance.normal(0, 0.015 * TALL, (len(found), 4))
    scores = np.clip(seen[found] - chance.uniform(0.05, 0.2, len(found)), 0.05, 1)
    order = np.argsort(-scores)
    return Moment(image, boxes[there], there, shaken[order], scores[order])


def switches(moments: Sequence[Moment], answers: Sequence[tuple[NDArray, NDArray]]) -> int:
    """How often a true identity goes on under another number: CLEAR MOT's mismatches (Bernardin and
    Stiefelhagen, 2008). `answers`: (M, 4) boxes and (M,) numbers of each frame, 0 for none. Pairs
    of the frame before are kept while they overlap by half; the others are made best first."""
    last: dict[int, int] = {}
    count = 0
    for moment, (boxes, numbers) in zip(moments, answers, strict=True):
        boxes, numbers = boxes[numbers > 0], numbers[numbers > 0]
        pairs = sorted(
            (-(last.get(int(identity)) == int(number)), -_overlap(true, box), identity, number)
            for true, identity in zip(moment.truth, moment.identities, strict=True)
            for box, number in zip(boxes, numbers, strict=True)
            if _overlap(true, box) >= 0.5
        )
        used: set[int] = set()
        known: set[int] = set()
        for _, _, identity, number in pairs:
            if int(identity) in known or int(number) in used:
                continue
            known.add(int(identity))
            used.add(int(number))
            count += last.get(int(identity), int(number)) != int(number)
            last[int(identity)] = int(number)
    return count


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inside = wide * high
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)
