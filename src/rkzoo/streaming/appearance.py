"""What tracked things look like: embeddings of their crops, kept with each track.

As published for Deep SORT (Wojke et al., Simple Online and Realtime Tracking with a Deep
Association Metric, 2017) and BoT-SORT (Aharon et al., BoT-SORT: Robust Associations
Multi-Pedestrian Tracking, 2022): cosine distances with a gate, features as a moving average, and
appearance in place of overlap where both allow that it is the same thing. That a lost track has to
look more like the box than any other track does is Lowe's ratio test (2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]

Describe = Callable[[Numbers], Floats]
"""Indices of boxes (K,) to embeddings (K, D) of length 1."""


@dataclass(frozen=True)
class CropEmbedder:
    """Embeddings of what lies in boxes. `embed` takes BGR pictures and gives (K, D) of length 1;
    `names` are the classes that it is asked about, None for all."""

    embed: Callable[[Sequence[NDArray[np.uint8]]], Floats]
    names: frozenset[str] | None = None

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Floats:
        """A BGR image (H, W, 3) and boxes (K, 4) x1, y1, x2, y2 in it to (K, D)."""
        height, width = image.shape[:2]
        x1, y1 = (
            np.clip(np.floor(boxes[:, i]), 0, most - 1) for i, most in ((0, width), (1, height))
        )
        x2, y2 = (np.maximum(np.ceil(boxes[:, i + 2]), low + 1) for i, low in ((0, x1), (1, y1)))
        edges = np.stack((x1, y1, x2, y2), axis=1).astype(int).tolist()
        return self.embed([image[top:bottom, left:right] for left, top, right, bottom in edges])


@dataclass(frozen=True)
class AppearanceOptions:
    """How appearance is used.

    Attributes:
        max_distance: the largest cosine distance between a track and a box that look alike.
        ratio: looks count where the distance of the best track is at most this much of that of the
            next, so that an embedding that finds everybody alike decides nothing.
        min_iou: the least overlap at which appearance decides in place of it (proximity gate).
        momentum: weight of a track's features so far beside new ones.
        refresh: frames after which a track that nobody disputes is looked at again.
        buffer: frames that a lost track can be found again by its looks.
        reach: how far from its predicted place a lost track is looked for, in its own heights,
            and as much more with every frame as `speed`.
        speed: see `reach`; people run at a tenth of their height a frame.
        covered: overlap with another box from which a crop shows too much of that.
    """

    max_distance: float = 0.25
    ratio: float = 0.9
    min_iou: float = 0.5
    momentum: float = 0.9
    refresh: int = 5
    buffer: int = 150
    reach: float = 1.0
    speed: float = 0.1
    covered: float = 0.4


def disputed(overlap: Floats, least: float) -> NDArray[np.bool_]:
    """Which boxes (N,) have no partner that is theirs alone; `overlap` (tracks, N)."""
    may = overlap >= least
    lone = may.sum(axis=1, keepdims=True) == 1
    plain = ((may & lone).sum(axis=0) == 1) & (may.sum(axis=0) == 1)
    return np.asarray(~plain)


def fused(overlap: Floats, distance: Floats, options: AppearanceOptions) -> Floats:
    """Similarity (tracks, boxes) of overlap and cosine distance, NaN where none is known: the
    overlap, or half of what the looks agree on where that is more (BoT-SORT, equation 12)."""
    near = (distance < options.max_distance) & (overlap >= options.min_iou)
    near &= distance <= options.ratio * second_best(distance)
    return np.where(near, np.maximum(overlap, 1 - distance / 2), overlap)


def second_best(distance: Floats) -> Floats:
    """(N,) distance of each box to the track (T, N) that is the next alike; inf where there is
    none."""
    if len(distance) < 2:
        return np.full(distance.shape[1], np.inf)
    known = np.where(np.isnan(distance), np.inf, distance)
    return np.asarray(np.partition(known, 1, axis=0)[1])


def averaged(before: Floats, now: Floats, momentum: float) -> Floats:
    """Exponential moving average of embeddings (D,), of length 1."""
    mixed = momentum * before + (1 - momentum) * now
    return np.asarray(mixed / max(float(np.linalg.norm(mixed)), 1e-12))


def within_reach(
    places: Floats, unseen: NDArray[np.int64], boxes: Floats, options: AppearanceOptions
) -> NDArray[np.bool_]:
    """Whether lost tracks (T, 4; centre x, y, width, height) unseen for (T,) frames can have come
    to boxes (N, 4; likewise) of about their size: (T, N)."""
    apart = np.linalg.norm(places[:, None, :2] - boxes[None, :, :2], axis=2)
    height = np.maximum(places[:, 3], 1.0)
    radius = height * (options.reach + options.speed * unseen)
    ratio = np.maximum(boxes[None, :, 3], 1.0) / height[:, None]
    return np.asarray((apart <= radius[:, None]) & (ratio > 0.5) & (ratio < 2))
