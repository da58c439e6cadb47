"""Detections of a head of DETR's kind (contract/query_detect.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.query_detect import QueryDetectHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session
from rkzoo.tasks.detect.classes import class_numbers
from rkzoo.tasks.detect.planes import F32, Array, Plane, logit, sigmoid
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.image_task import ImageTask
from rkzoo.vision.letterbox import Letterbox

Part = Literal["score", "box", "decoded", "label"]
_MOST = 4_000_000  # numbers of scores


class QueryDecoder:
    """Decodes the outputs of one session. Construct once, call once per frame.

    Args:
        head: Describes the outputs.
        size: Input (height, width).
        specs: The session's outputs, matched to the head by name, or by position where the session
            renames them.

    Raises:
        RkzooError: The tensors do not fit the head.
    """

    def __init__(
        self, head: QueryDetectHead, size: tuple[int, int], specs: Sequence[TensorSpec]
    ) -> None:
        self.head = head
        self._scale = np.tile(np.array(size[::-1], np.float32), 2)
        by_name = {spec.name: index for index, spec in enumerate(specs)}
        named = all(output.name in by_name for output in head.outputs)
        if len(specs) < len(head.outputs):
            raise _misfit(f"{len(specs)} outputs where {len(head.outputs)} are promised")
        self._at = {
            output.role: by_name[output.name] if named else place
            for place, output in enumerate(head.outputs)
        }
        self._planes = {role: Plane(index, specs[index], 0, 1) for role, index in self._at.items()}
        self._columns = np.array(head.columns or range(head.classes), np.intp)
        self._expect(specs)

    def _expect(self, specs: Sequence[TensorSpec]) -> None:
        shapes = {role: specs[index].shape for role, index in self._at.items()}
        needed = int(self._columns.max()) + 1 + (self.head.activation == "softmax")
        widths = {"box": 4, "score": needed, "decoded": 4 + needed}
        for role, shape in shapes.items():
            single = role == "label" or (self.head.picked and role == "score")
            if not single and (shape[-1] != 4 if role == "box" else shape[-1] < widths[role]):
                raise _misfit(f"{role} of {list(shape)} where rows of {widths[role]} are promised")
            if np.prod(np.abs(shape), dtype=np.float64) > _MOST:
                raise _misfit(f"{role} of {list(shape)}, more than any detector has")

    def candidates(
        self, outputs: Sequence[Array], confidence: float
    ) -> tuple[F32, F32, NDArray[np.int32]]:
        """The best of all queries and classes, as many as there are queries, whose score reaches
        `confidence`; best first.

        Args:
            outputs: Raw tensors of the session.
            confidence: Threshold in 0..1.

        Returns:
            Boxes (K, 4) x1, y1, x2, y2 in model pixels; scores (K,) in 0..1; classes (K,).
        """
        if self.head.picked or self.head.activation == "softmax":
            query, class_id, score = self._few(outputs, confidence)
        else:
            query, class_id, score = self._over(outputs, confidence)
        rows = self._rows(outputs, "box")
        best = np.argsort(-score, kind="stable")[: len(rows)]
        boxes = self._boxes(rows[query[best]])
        return boxes, score[best], class_id[best].astype(np.int32)

    def dense(self, outputs: Sequence[Array]) -> tuple[F32, F32, F32]:
        """Every query, for a proof: boxes (N, 4) x1, y1, x2, y2 in model pixels; scores (N, C), or
        (K, 2) score and class where the graph picked them; no extras (N, 0)."""
        boxes = self._boxes(self._rows(outputs, "box"))
        if self.head.picked:
            query, class_id, score = self._few(outputs, 0.0)
            pairs = np.stack((score, class_id.astype(np.float32)), axis=1)
            return boxes[query], pairs, np.empty((len(query), 0), np.float32)
        scores = self._activated(self._values(self._rows(outputs, "score"), "score"))
        return boxes, scores, np.empty((len(boxes), 0), np.float32)

    def _rows(self, outputs: Sequence[Array], role: Part) -> Array:
        """(N, columns) as stored."""
        if role in self._at:
            array = outputs[self._at[role]]
            return array.reshape(-1, array.shape[-1])
        rows = self._rows(outputs, "decoded")
        return rows[:, :4] if role == "box" else rows[:, 4:]

    def _plane(self, role: Part) -> Plane:
        return self._planes.get(role) or self._planes["decoded"]

    def _values(self, stored: Array, role: Part) -> F32:
        return self._plane(role).values(stored)

    def _over(
        self, outputs: Sequence[Array], confidence: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], F32]:
        """Query, class and score of each pair over the threshold, compared as stored."""
        rows = self._rows(outputs, "score")
        raw = self.head.activation == "sigmoid"
        least = self._plane("score").stored(logit(confidence) if raw else confidence)
        none = np.empty(0, np.intp)
        if least is None:
            return none, none, np.empty(0, np.float32)
        if self.head.columns or rows.shape[1] != self.head.classes:
            rows = rows[:, self._columns]
        query, class_id = np.nonzero(rows >= least)
        values = self._values(rows[query, class_id], "score")
        return query, class_id, sigmoid(values) if raw else values

    def _few(
        self, outputs: Sequence[Array], confidence: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], F32]:
        """As `_over`, of one class a row: the best, or the one that the graph picked."""
        if self.head.picked:
            score = self._values(outputs[self._at["score"]].ravel(), "score")
            label = np.rint(self._values(outputs[self._at["label"]].ravel(), "label")).astype(int)
            place = np.full(max(int(label.max(initial=0)), int(self._columns.max())) + 1, -1)
            place[self._columns] = np.arange(len(self._columns))
            class_id = place[np.maximum(label, 0)]
        else:
            scores = self._activated(self._values(self._rows(outputs, "score"), "score"))
            class_id = scores.argmax(axis=1)
            score = scores[np.arange(len(scores)), class_id]
        kept = np.flatnonzero((score >= np.float32(confidence)) & (class_id >= 0))
        return kept, class_id[kept], score[kept]

    def _activated(self, values: F32) -> F32:
        """(N, classes) of (N, columns)."""
        if self.head.activation == "softmax":
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        values = values[:, self._columns]
        return sigmoid(values) if self.head.activation == "sigmoid" else values

    def _boxes(self, stored: Array) -> F32:
        boxes = self._values(stored, "box") * self._scale
        if self.head.corners:
            return boxes
        half = boxes[:, 2:] / 2
        return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


class QueryDetector(ImageTask[Detections]):
    """Object detector whose head gives one object a query."""

    def __init__(
        self, contract: Contract, session: Session, options: DetectOptions | None = None
    ) -> None:
        head = contract.head
        if not isinstance(head, QueryDetectHead):
            raise RkzooError(f"{contract.family} has no head with queries.", code=1)
        super().__init__(contract, session)
        self.options = options or DetectOptions()
        self.decoder = QueryDecoder(head, contract.input.size, session.outputs)
        wanted = self.options.classes
        self._classes = (
            None if wanted is None else class_numbers(wanted, contract.labels, head.classes)
        )

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> Detections:
        """Convert raw output tensors to boxes in source-image pixels, best first."""
        boxes, score, class_id = self.decoder.candidates(outputs, self.options.confidence)
        found = Detections(letterbox.boxes_to_source(boxes), score, class_id, self.contract.labels)
        if self._classes is not None:
            found = found[np.isin(class_id, self._classes)]
        return found[: self.options.limit]


def _misfit(seen: str) -> RkzooError:
    return RkzooError(
        "The outputs are not those of the described head.",
        f"There are {seen}.",
        "Look at the model with rkzoo inspect.",
    )
