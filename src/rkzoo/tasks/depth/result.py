"""Depth estimation result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEPS = 65535


@dataclass(frozen=True, slots=True)
class DepthMap:
    """Depth of one image.

    Attributes:
        values: (H, W) float32 at source resolution, known up to scale and shift only unless
            `metric`.
        inverse: True when larger values are nearer (disparity), False when they are farther.
        metric: The values are metres.
    """

    values: NDArray[np.float32]
    inverse: bool = True
    metric: bool = False

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32 or not self.values.size:
            raise ValueError("values must be float32 (H, W)")

    def __len__(self) -> int:
        return 1

    def to_json(self) -> list[dict[str, Any]]:
        """One record: minimum, maximum, mean, which extreme is nearest, and the unit where there
        is one. The map itself is in `values`, and saved as .npy.
        """
        unit = {"unit": "m"} if self.metric else {}
        return [
            {
                **unit,
                "min": round(float(self.values.min()), 4),
                "max": round(float(self.values.max()), 4),
                "mean": round(float(self.values.mean(dtype=np.float64)), 4),
                "nearest": "max" if self.inverse else "min",
            }
        ]

    def nearness(self) -> NDArray[np.float64]:
        """Normalized inverse depth (H, W) float64: 0 farthest, 1 nearest; all 0 for a constant
        map.
        """
        values = self.values.astype(np.float64)
        values = values if self.inverse else -values
        low, high = values.min(), values.max()
        return np.asarray((values - low) / (high - low) if high > low else np.zeros_like(values))

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Render the map as a BGR image (H, W, 3): dark is far, bright is near. Replaces `image`.

        The inferno colormap is perceptually uniform, so equal steps look equal.
        """
        import cv2

        grey = np.rint(self.nearness() * 255).astype(np.uint8)
        return np.asarray(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), np.uint8)

    def save_sidecar(self, drawn: Path) -> None:
        """Write the values as NAME-depth.npy, float32 (H, W), beside the drawing NAME.

        Raises:
            RkzooError: the file cannot be written.
        """
        from rkzoo.vision.maps import save_map

        save_map(drawn.with_name(f"{drawn.stem}-depth.npy"), self.values)

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py): `disparity` or `depth`, flattened row by row
        and quantized to uint16 between minimum and maximum. Evaluation aligns scale and shift, so
        that loses nothing that counts.
        """
        name = "disparity" if self.inverse else "depth"
        nearness = self.nearness()
        steps = np.rint((nearness if self.inverse else 1 - nearness) * _STEPS)
        return {name: steps.astype(np.uint16).ravel()}

    def lines(self) -> list[str]:
        """Text output for a terminal."""
        row = self.to_json()[0]
        near, far = ("max", "min") if self.inverse else ("min", "max")
        if self.metric:
            return [f"depth, {row[near]:g} m nearest to {row[far]:g} m, mean {row['mean']:g} m"]
        return [
            f"relative depth, {row[near]:g} nearest to {row[far]:g} farthest, mean {row['mean']:g}"
        ]
