"""Detections with a second look where they are doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from rkzoo.tasks.detect.task import HeadTask
from rkzoo.tasks.detect.verdict import diagnose_outputs, output_statistics
from rkzoo.vision.letterbox import Letterbox
from rkzoo.workflow.inference.model import Image, Prediction

# Fewer boxes than this, with scores below 1, are not looked at again: it costs nothing then.
_DOUBTFUL = 50


def run_with_checks(task: HeadTask[Any], image: Image) -> tuple[Prediction, tuple[str, ...]]:
    """What the task finds in a BGR picture, and what is likely wrong with it."""
    arrays, letterbox = task.preprocess(image)
    return _checked(task, task.session.run(arrays), letterbox)


def run_many_with_checks(
    task: HeadTask[Any], images: Sequence[Image]
) -> list[tuple[Prediction, tuple[str, ...]]]:
    """As `run_with_checks` for each, by one run of a session of a batch."""
    places: list[Letterbox] = []
    outputs = task.outputs_of(images, places)
    return [_checked(task, *pair) for pair in zip(outputs, places, strict=True)]


def _checked(
    task: HeadTask[Any], outputs: list[NDArray[Any]], letterbox: Letterbox
) -> tuple[Prediction, tuple[str, ...]]:
    prediction: Prediction = task.postprocess(outputs, letterbox)
    # Nothing at all is doubtful too: logits below 0 hide everything. But not where only some
    # classes are wanted.
    if len(prediction) == 0 and task.options.classes is not None:
        return prediction, ()
    if 0 < len(prediction) < _DOUBTFUL and _best(prediction) < 1:
        return prediction, ()
    confidence = task.options.confidence
    seen = output_statistics(task.decoder, outputs, task.contract.input.size, confidence)
    return prediction, diagnose_outputs(seen, confidence, task.head)


def _best(prediction: Any) -> float:
    """The score of the first, which is the best; masks and poses keep theirs in their boxes."""
    holder = prediction if hasattr(prediction, "score") else prediction.boxes
    return float(holder.score[0])
