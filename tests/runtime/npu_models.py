"""Small recordings for the stand-in library, and the stand-in itself, for several tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npu_standin.recording import In, Out, Recording

SIZE = (16, 24)
PICTURE = In("images", (1, *SIZE, 3), w_stride=32)
BOX = Out("box", (1, 20, 2, 3), scale=0.25, zero_point=-3)
SCORE = Out("score", (1, 5, 2, 3), scale=1 / 255, zero_point=-128, spare=2)
FLAT = Out("flat", (1, 7), dtype="float32", native=3)
OUTPUTS = (BOX, SCORE, FLAT)


def numbers(seed: int, out: Out) -> np.ndarray:
    random = np.random.default_rng(seed)
    if out.dtype == "int8":
        return random.integers(-128, 128, out.shape, dtype=np.int8)
    return random.standard_normal(out.shape).astype(out.dtype)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, PICTURE.shape, dtype=np.uint8)


def small(count: int = 3, **settings: object) -> Recording:
    """`count` pictures, each with outputs of its own (seeds 0, 1, ...)."""
    recording = Recording((PICTURE,), OUTPUTS, **settings)  # type: ignore[arg-type]
    for seed in range(count):
        recording.answer([picture(seed)], [numbers(seed, out) for out in OUTPUTS])
    return recording


def written(folder: Path, recording: Recording, name: str = "model.rknn") -> Path:
    path = folder / name
    path.write_bytes(recording.bytes())
    return path
