"""Non-maximum suppression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def nms(
    xyxy: NDArray[np.float32],
    score: NDArray[np.float32],
    class_id: NDArray[np.int32],
    iou: float,
    limit: int,
) -> NDArray[np.intp]:
    """Greedy suppression within each class: indices of the kept boxes, best first.

    `xyxy` (N, 4), `score` (N,), `class_id` (N,). A box goes when its intersection over
    union with a better box of its class exceeds `iou`. At most `limit` are kept.
    """
    if not len(xyxy):
        return np.empty(0, np.intp)
    order = np.argsort(-score, kind="stable")
    xywh = xyxy[order].copy()
    xywh[:, 2:] -= xywh[:, :2]
    kept = cv2.dnn.NMSBoxesBatched(
        xywh.tolist(), score[order].tolist(), class_id[order].tolist(), -np.inf, iou
    )
    return order[np.asarray(kept, np.intp).reshape(-1)][:limit]
