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
    from rkzoo.api import (
        advise,
        bench,
        compare,
        estimate,
        evaluate,
        inspect,
        stream,
        tune,
    )
    from rkzoo.errors import RkzooError
    from rkzoo.streaming.tracking import Tracked
    from rkzoo.tasks.anomaly.result import AnomalyMap
    from rkzoo.tasks.classify.result import Classes
    from rkzoo.tasks.depth.result import DepthMap
    from rkzoo.tasks.detect.result import Detections
    from rkzoo.tasks.embed.result import SimilarityScores
    from rkzoo.tasks.face.result import Faces, RecognizedFaces
    from rkzoo.tasks.obb.result import OrientedBoxes
    from rkzoo.tasks.pose.result import Poses
    from rkzoo.tasks.restore.result import RestoredPicture
    from rkzoo.tasks.segment.result import Masks
    from rkzoo.tasks.semantic.result import ClassMap, ClassMasks
    from rkzoo.tasks.sound.classification import AudioClassification
    from rkzoo.tasks.sound.voice_activity import VoiceActivity
    from rkzoo.tasks.speech.transcript import Transcript
    from rkzoo.tasks.tensors.result import Tensors
    from rkzoo.tasks.text.detect_text import TextBoxes
    from rkzoo.tasks.text.result import TextLines
    from rkzoo.tasks.translate.result import Translation
    from rkzoo.tasks.vector.result import Vector
    from rkzoo.tasks.voice.result import SynthesizedSpeech
    from rkzoo.workflow.advice.advise import Advice
    from rkzoo.workflow.apps.stream import StreamSummary
    from rkzoo.workflow.comparison.inspect import Inspection
    from rkzoo.workflow.comparison.result import Comparison
    from rkzoo.workflow.compile.convert import ConversionResult, convert
    from rkzoo.workflow.evaluation.evaluate import Evaluation
    from rkzoo.workflow.inference.load import load
    from rkzoo.workflow.inference.model import Model, Result
    from rkzoo.workflow.performance.bench import AnswerReport, BenchReport
    from rkzoo.workflow.performance.estimate import Estimate
    from rkzoo.workflow.request.request import ModelOptions, Request
    from rkzoo.workflow.tuning.tune import TuningResult

    __version__: str

__all__ = [
    "Advice",
    "AnomalyMap",
    "AnswerReport",
    "AudioClassification",
    "BenchReport",
    "ClassMap",
    "ClassMasks",
    "Classes",
    "Comparison",
    "ConversionResult",
    "DepthMap",
    "Detections",
    "Estimate",
    "Evaluation",
    "Faces",
    "Inspection",
    "Masks",
    "Model",
    "ModelOptions",
    "OrientedBoxes",
    "Poses",
    "RecognizedFaces",
    "Request",
    "RestoredPicture",
    "Result",
    "RkzooError",
    "SimilarityScores",
    "StreamSummary",
    "SynthesizedSpeech",
    "Tensors",
    "TextBoxes",
    "TextLines",
    "Tracked",
    "Transcript",
    "Translation",
    "TuningResult",
    "Vector",
    "VoiceActivity",
    "__version__",
    "advise",
    "bench",
    "compare",
    "convert",
    "estimate",
    "evaluate",
    "inspect",
    "load",
    "stream",
    "tune",
]

_MODULES = {
    "api": (*("advise", "bench", "compare", "estimate", "evaluate", "inspect", "stream", "tune"),),
    "errors": ("RkzooError",),
    "streaming.tracking": ("Tracked",),
    "tasks.anomaly.result": ("AnomalyMap",),
    "tasks.classify.result": ("Classes",),
    "tasks.detect.result": ("Detections",),
    "tasks.embed.result": ("SimilarityScores",),
    "tasks.face.result": ("Faces", "RecognizedFaces"),
    "tasks.obb.result": ("OrientedBoxes",),
    "tasks.pose.result": ("Poses",),
    "tasks.segment.result": ("Masks",),
    "tasks.depth.result": ("DepthMap",),
    "tasks.restore.result": ("RestoredPicture",),
    "tasks.semantic.result": ("ClassMap", "ClassMasks"),
    "tasks.sound.voice_activity": ("VoiceActivity",),
    "tasks.sound.classification": ("AudioClassification",),
    "tasks.speech.transcript": ("Transcript",),
    "tasks.tensors.result": ("Tensors",),
    "tasks.text.detect_text": ("TextBoxes",),
    "tasks.text.result": ("TextLines",),
    "tasks.translate.result": ("Translation",),
    "tasks.vector.result": ("Vector",),
    "tasks.voice.result": ("SynthesizedSpeech",),
    "workflow.advice.advise": ("Advice",),
    "workflow.apps.stream": ("StreamSummary",),
    "workflow.comparison.inspect": ("Inspection",),
    "workflow.comparison.result": ("Comparison",),
    "workflow.compile.convert": ("ConversionResult", "convert"),
    "workflow.evaluation.evaluate": ("Evaluation",),
    "workflow.inference.load": ("load",),
    "workflow.inference.model": ("Model", "Result"),
    "workflow.performance.bench": ("AnswerReport", "BenchReport"),
    "workflow.performance.estimate": ("Estimate",),
    "workflow.request.request": ("ModelOptions", "Request"),
    "workflow.tuning.tune": ("TuningResult",),
}
_HOME = {name: f"rkzoo.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rkzoo")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rkzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
