"""What is unusual in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RED = (0, 0, 255)  # BGR


@dataclass(frozen=True, slots=True)
class AnomalyMap:
    """How unusual each place of one image is.

    Attributes:
        values: (H, W) float32 at source resolution, larger is less usual.
        score: The whole picture's.
        threshold: What a score or a value must exceed to be an anomaly.
    """

    values: NDArray[np.float32]
    score: float
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32 or not self.values.size:
            raise ValueError("values must be float32 (H, W)")

    def __len__(self) -> int:
        return 1

    @property
    def anomalous(self) -> bool:
        """Whether the picture's score exceeds the threshold."""
        return self.score > self.threshold

    def mask(self) -> NDArray[np.bool_]:
        """(H, W): where the values exceed the threshold."""
        return np.asarray(self.values > self.threshold)

    def to_json(self) -> list[dict[str, Any]]:
        """One record: score, threshold, whether it is an anomaly, and the share of the picture that
        exceeds the threshold. The map itself is in `values`, and saved as .npy."""
        return [
            {
                "score": round(self.score, 4),
                "threshold": self.threshold,
                "anomalous": self.anomalous,
                "share": round(float(self.mask().mean()), 4),
            }
        ]

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR picture under a heat map, whose middle colour is the threshold, with
        what exceeds it outlined and the score above."""
        import cv2

        scale = 127.5 / self.threshold if self.threshold else 255.0
        grey = np.clip(np.rint(self.values * scale), 0, 255).astype(np.uint8)
        heat = cv2.applyColorMap(grey, cv2.COLORMAP_JET)
        drawn = np.asarray(cv2.addWeighted(image, 0.6, heat, 0.4, 0), np.uint8)
        mask = self.mask().astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        width = max(1, min(drawn.shape[:2]) // 200)
        cv2.drawContours(drawn, outlines, -1, _RED, width)
        size = max(0.4, drawn.shape[1] / 1000)
        place = (width * 4, int(30 * size) + width * 2)
        text = self.lines()[0]
        for color, thick in (((0, 0, 0), 4 * width), ((255, 255, 255), width)):
            cv2.putText(
                drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, color, thick, cv2.LINE_AA
            )
        return drawn

    def save_sidecar(self, drawn: Path) -> None:
        """Write the values as NAME-anomaly.npy, float32 (H, W), beside the drawing NAME.

        Raises:
            RkzooError: The file cannot be written.
        """
        from rkzoo.vision.maps import save_map

        save_map(drawn.with_name(f"{drawn.stem}-anomaly.npy"), self.values)

    def lines(self) -> list[str]:
        """Text output for a terminal."""
        word = "anomalous" if self.anomalous else "normal"
        return [f"{word}, score {self.score:.3f} (threshold {self.threshold:g})"]
