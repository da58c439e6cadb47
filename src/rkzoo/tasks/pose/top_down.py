"""Key points of people, one person at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.contract.pose import TopDownPoseHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise, plain
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.image_task import ImageTask
from rkzoo.tasks.pose.crop import PersonCrop
from rkzoo.tasks.pose.keypoints import from_bins, from_maps, from_udp_maps
from rkzoo.tasks.pose.result import Poses
from rkzoo.tasks.spec import check_box
from rkzoo.vision.letterbox import Letterbox, with_channels

Image = NDArray[np.uint8]
F32 = NDArray[np.float32]
Box = tuple[float, float, float, float]

_LABELS = ("person",)
_DECODERS: dict[str, Callable[[Sequence[F32], tuple[int, int]], F32]] = {
    "simcc": from_bins,
    "heatmap": lambda outputs, size: from_maps(outputs[0], size),
    "heatmap-udp": lambda outputs, size: from_udp_maps(outputs[0], size),
}


class TopDownPose(ImageTask[Poses]):
    """Key points of the person in each given box; without boxes the whole picture is the person.
    Construct once, call once per image."""

    def __init__(self, contract: Contract, session: Session, boxes: Sequence[Box] = ()) -> None:
        """Args:
            contract, session: of the network.
            boxes: x1, y1, x2, y2 in source pixels, a person each.

        Raises:
            RkzooError: a box is empty.
        """
        if not isinstance(contract.head, TopDownPoseHead):
            raise RkzooError(f"{contract.family} finds no key points of one person.", code=1)
        super().__init__(contract, session)
        self.head = contract.head
        for box in boxes:
            check_box(box)
        self._boxes = np.array(boxes, np.float32).reshape(-1, 4)
        self._decode = _DECODERS[self.head.coding]

    def __call__(self, image: Image) -> Poses:
        if not len(self._boxes):
            return super().__call__(image)
        height, width = image.shape[:2]
        boxes = self._boxes.clip(0, [width, height, width, height])
        if (outside := (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)).any():
            first = ",".join(f"{side:g}" for side in self._boxes[outside.argmax()])
            raise RkzooError(
                f"The box {first} lies outside the picture.",
                f"The picture is {width} wide and {height} high.",
                "Boxes are given in its pixels, from the top left corner.",
            )
        count = len(boxes)
        people = Detections(boxes, np.ones(count, np.float32), np.zeros(count, np.int32), _LABELS)
        return self.of_people(image, people)

    def of_people(self, image: Image, people: Detections) -> Poses:
        """Key points of people whose boxes are known, in a BGR image (H, W, 3)."""
        image = with_channels(image, 3)
        keypoints = np.empty((len(people), self.head.points, 3), np.float32)
        for row, box in enumerate(people.xyxy):
            crop = PersonCrop.of(
                box, self.contract.input.size, self.head.padding, self.head.coding == "heatmap-udp"
            )
            crop.cut(image, self._canvas[0])
            if self.contract.input.color == "RGB":
                cv2.cvtColor(self._canvas[0], cv2.COLOR_BGR2RGB, dst=self._canvas[0])
            keypoints[row] = self.points(self.session.run([self._canvas]))
            keypoints[row, :, :2] = crop.to_source(keypoints[row, :, :2])
        return Poses(people, keypoints)

    def points(self, outputs: Sequence[NDArray[Any]]) -> F32:
        """Raw output tensors to (K, 3): x, y in pixels of the input, and a score in 0..1."""
        arrays = [
            dequantise(plain(array, spec), spec)
            for array, spec in zip(outputs, self.session.outputs, strict=True)
        ]
        points = self._decode(arrays, self.contract.input.size)
        if points.shape != (self.head.points, 3):
            raise RkzooError(
                f"The model gave {len(points)} key points.",
                f"Its head promises {self.head.points}.",
                "Fix its card: head.points.",
            )
        points[:, 2] = points[:, 2].clip(0, 1)
        return points

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> Poses:
        """Key points of the whole picture."""
        height, width = letterbox.source
        points = self.points(outputs)
        points[:, :2] = letterbox.to_source(points[:, :2])
        people = Detections(
            np.array([[0, 0, width, height]], np.float32),
            np.array([points[:, 2].mean()], np.float32),
            np.zeros(1, np.int32),
            _LABELS,
        )
        return Poses(people, points[None])


class PeoplePose:
    """All people of a picture: boxes by a detector, key points in each."""

    def __init__(
        self,
        detector: Callable[[Image], Any],
        pose: TopDownPose,
        person: str,
    ) -> None:
        self._detector, self._pose, self._person = detector, pose, person

    def __call__(self, image: Image) -> Poses:
        found = self._detector(image)
        boxes: Detections = found if isinstance(found, Detections) else found.boxes
        if boxes.labels and self._person not in boxes.labels:
            raise RkzooError(
                "The detector knows no people.",
                f"None of its classes is called {self._person!r}.",
                "Name the class that is a person in the card, with head: {kind: people-pose, "
                "person: NAME}.",
            )
        number = boxes.labels.index(self._person) if boxes.labels else 0
        people = boxes[np.flatnonzero(boxes.class_id == number)]
        return self._pose.of_people(image, people)
