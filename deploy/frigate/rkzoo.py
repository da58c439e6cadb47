"""A detector for Frigate that asks a running `rkzoo serve`. See README.md beside this file.

Frigate hands over the picture as the camera gave it, of the model's size; the server feeds it to
the network as it was trained, decodes the boxes and answers with pixels. So nothing is normalised
here, and nothing is normalised twice.
"""

import json
import logging
from http.client import HTTPException
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import numpy as np
from frigate.detectors.detection_api import DetectionApi
from frigate.detectors.detector_config import BaseDetectorConfig
from pydantic import ConfigDict, Field

logger = logging.getLogger(__name__)

DETECTOR_KEY = "rkzoo"
MOST = 20  # boxes that Frigate takes
LARGEST_ANSWER = 1 << 20  # bytes


class RkzooDetectorConfig(BaseDetectorConfig):
    """Detection by a server of rkzoo, on this board or another."""

    model_config = ConfigDict(title="rkzoo")

    type: Literal["rkzoo"]
    url: str = Field(
        default="http://127.0.0.1:8000",
        pattern="^https?://",
        title="URL of the server",
        description="Where rkzoo serve listens.",
    )
    served_model: str = Field(
        title="Model", description="The name under which rkzoo serve has the model."
    )
    timeout: float = Field(
        default=2.0,
        gt=0,
        title="Seconds",
        description="Time for an answer, after which the frame has no objects.",
    )
    token_file: str | None = Field(
        default=None, title="Token file", description="File with the server's token."
    )


class RkzooDetector(DetectionApi):
    """Frigate's view of a model that rkzoo serves."""

    type_key = DETECTOR_KEY

    def __init__(self, detector_config: RkzooDetectorConfig) -> None:
        super().__init__(detector_config)
        model = detector_config.model
        for key, value, wanted in (
            ("input_tensor", model.input_tensor, ("nhwc",)),
            ("input_dtype", model.input_dtype, ("int",)),
            ("input_pixel_format", model.input_pixel_format, ("rgb", "bgr")),
        ):
            if value.value not in wanted:
                raise ValueError(
                    f"The detector rkzoo takes pictures as they are: set {key} of the model to"
                    f" {' or '.join(wanted)}, in place of {value.value}."
                )
        self.labels: dict[int, str] = model.merged_labelmap
        self.swapped = model.input_pixel_format.value == "bgr"
        self.timeout = detector_config.timeout
        path = f"/v1/models/{quote(detector_config.served_model, safe='')}:predict"
        query = urlencode({"confidence": self.thresh, "max_boxes": MOST})
        self.url = f"{detector_config.url.rstrip('/')}{path}?{query}"
        self.headers = {"Content-Type": "image/x-portable-pixmap"}
        if detector_config.token_file:
            with open(detector_config.token_file, encoding="utf-8") as file:
                self.headers["Authorization"] = f"Bearer {file.read().strip()}"
        self.failing = False
        self.told: set[tuple[int, str]] = set()

    def detect_raw(self, tensor_input: np.ndarray) -> np.ndarray:
        """The objects of a picture.

        Args:
            tensor_input: uint8 (1, height, width, 3).

        Returns:
            float32 (20, 6), the likeliest first: class, score, and the box as top, left, bottom,
            right in 0..1. Rows without an object are 0; all are where the server does not answer.
        """
        detections = np.zeros((MOST, 6), np.float32)
        try:
            found = self._asked(tensor_input[0])
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            if not self.failing:
                logger.error(f"rkzoo does not answer at {self.url}: {_reason(error)}")
            self.failing = True
            return detections
        if self.failing:
            logger.info("rkzoo answers again")
        self.failing = False
        if found:
            detections[: len(found)] = found
        return detections

    def _asked(self, picture: np.ndarray) -> list[tuple[float, ...]]:
        height, width = picture.shape[:2]
        if self.swapped:
            picture = picture[..., ::-1]
        # PPM: the pixels as they are, behind one line.
        body = b"P6 %d %d 255\n" % (width, height) + picture.tobytes()
        request = Request(self.url, body, self.headers)
        with urlopen(request, timeout=self.timeout) as answer:
            document = json.loads(answer.read(LARGEST_ANSWER))
        rows = []
        for one in document["results"]:
            number = int(one["class_id"])
            left, top, right, bottom = one["box"]
            self._compare(number, one["label"])
            # A class without a name would end Frigate's camera process.
            if number in self.labels and one["score"] >= self.thresh:
                box = (top / height, left / width, bottom / height, right / width)
                rows.append((number, one["score"], *box))
        # Frigate reads rows up to the first of a low score.
        return sorted(rows, key=lambda row: -row[1])[:MOST]

    def _compare(self, number: int, label: str) -> None:
        """Says once where Frigate's label map calls a class otherwise than the model does."""
        if self.labels.get(number) != label and (number, label) not in self.told:
            self.told.add((number, label))
            logger.warning(
                f"Class {number} is {label!r} for the model and {self.labels.get(number)!r} for"
                " Frigate: is labelmap_path the one of this model?"
            )


def _reason(error: Exception) -> str:
    """The server's own words where it sent some."""
    if not isinstance(error, HTTPError):
        return f"{type(error).__name__}: {error}"
    try:
        told: Any = json.loads(error.read(LARGEST_ANSWER))
        return f"{error.code}: {told['error']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"
