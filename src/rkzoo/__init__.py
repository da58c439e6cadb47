"""Any trained model in, right results out on Rockchip NPUs.

    import rkzoo

    with rkzoo.load("ppocr") as model:
        result = model("page.jpg")
        result.save("read.jpg")
        print(result.to_json())

Importing this module imports nothing heavy: the names below load when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rkzoo.errors import RkzooError
    from rkzoo.tasks.detect.result import Detections
    from rkzoo.tasks.obb.result import OrientedBoxes
    from rkzoo.tasks.pose.result import Poses
    from rkzoo.tasks.segment.result import Masks
    from rkzoo.tasks.text.result import TextLines
    from rkzoo.workflow.compile.convert import Converted, convert
    from rkzoo.workflow.inference.load import load
    from rkzoo.workflow.inference.model import Model, Result

__all__ = [
    "Converted",
    "Detections",
    "Masks",
    "Model",
    "OrientedBoxes",
    "Poses",
    "Result",
    "RkzooError",
    "TextLines",
    "convert",
    "load",
]

_HOME = {
    "Converted": "rkzoo.workflow.compile.convert",
    "Detections": "rkzoo.tasks.detect.result",
    "Masks": "rkzoo.tasks.segment.result",
    "Model": "rkzoo.workflow.inference.model",
    "OrientedBoxes": "rkzoo.tasks.obb.result",
    "Poses": "rkzoo.tasks.pose.result",
    "Result": "rkzoo.workflow.inference.model",
    "RkzooError": "rkzoo.errors",
    "TextLines": "rkzoo.tasks.text.result",
    "convert": "rkzoo.workflow.compile.convert",
    "load": "rkzoo.workflow.inference.load",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rkzoo' has no attribute {name!r}")
