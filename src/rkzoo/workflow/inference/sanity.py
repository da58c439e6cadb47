"""Detections with a second look where they are doubtful."""

from __future__ import annotations

from typing import Any

from rkzoo.tasks.detect.task import HeadTask
from rkzoo.tasks.detect.verdict import look, verdict
from rkzoo.workflow.inference.model import Found, Image

# Fewer boxes than this, with scores below 1, are not looked at again: it costs nothing then.
_DOUBTFUL = 50


def watched(task: HeadTask[Any], image: Image) -> tuple[Found, tuple[str, ...]]:
    """What the task finds in a BGR picture, and what is likely wrong with it."""
    arrays, letterbox = task.preprocess(image)
    outputs = task.session.run(arrays)
    found: Found = task.decode(outputs, letterbox)
    # Nothing at all is doubtful too: logits below 0 hide everything.
    if 0 < len(found) < _DOUBTFUL and _best(found) < 1:
        return found, ()
    confidence = task.options.confidence
    seen = look(task.decoder, outputs, task.contract.input.size, confidence)
    return found, verdict(seen, confidence, task.head)


def _best(found: Any) -> float:
    """The score of the first, which is the best; masks and poses keep theirs in their boxes."""
    holder = found if hasattr(found, "score") else found.boxes
    return float(holder.score[0])
