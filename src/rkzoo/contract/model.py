"""The whole contract of a model: input, head and class names."""

from __future__ import annotations

from typing import Literal

import msgspec

from rkzoo.contract.anomaly import AnomalyHead
from rkzoo.contract.audio import (
    CtcSpeechHead,
    MoonshineHead,
    ParaformerHead,
    SoundHead,
    TransducerHead,
    VoiceActivityHead,
    VoiceHead,
    WhisperHead,
)
from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.depth import DepthHead
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.faces import CentreFaceHead, FaceHead, FaceRecognitionHead
from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.language import ClipHead, MarianHead, SentenceHead, TranslateHead
from rkzoo.contract.pose import OneStagePoseHead, PeoplePoseHead, TopDownPoseHead
from rkzoo.contract.query_detect import QueryDetectHead
from rkzoo.contract.restore import RestoreHead
from rkzoo.contract.schema_base import StrictStruct
from rkzoo.contract.segmentation import PromptableSegmentHead, SemanticHead
from rkzoo.contract.text import PlateHead, TextClsHead, TextDetHead, TextRecHead
from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError


class TensorsHead(StrictStruct, frozen=True, tag="tensors", tag_field="kind"):
    """Outputs without postprocessing: of any model, or of a part of a pipeline, whose task reads
    them by name. `picture` is the name of the image input.
    """

    picture: str = ""


BoxHead = DetectHead | QueryDetectHead
"""What gives boxes with a class, whose tail is cut off and proved."""

PictureHead = (
    DetectHead
    | QueryDetectHead
    | TextDetHead
    | TextClsHead
    | TextRecHead
    | ClassifyHead
    | PlateHead
    | FaceHead
    | CentreFaceHead
    | SemanticHead
    | DepthHead
    | RestoreHead
    | AnomalyHead
    | VectorHead
    | TopDownPoseHead
)
Head = (
    PictureHead
    | TensorsHead
    | PromptableSegmentHead
    | FaceRecognitionHead
    | WhisperHead
    | MoonshineHead
    | CtcSpeechHead
    | ParaformerHead
    | TransducerHead
    | VoiceHead
    | VoiceActivityHead
    | SoundHead
    | ClipHead
    | SentenceHead
    | TranslateHead
    | MarianHead
    | PeoplePoseHead
    | OneStagePoseHead
)

TaskName = Literal[
    "detect",
    "segment",
    "pose",
    "obb",
    "classify",
    "semantic",
    "depth",
    "restore",
    "anomaly",
    "vector",
    "face",
    "face-recognition",
    "plate",
    "text",
    "text-det",
    "text-cls",
    "text-rec",
    "prompt",
    "embed",
    "speech",
    "sound",
    "voice",
    "translate",
    "tensors",
    "asset",
]
"""Task names of a card; `asset` is not a model. tasks/registry.py maps heads to tasks."""


class Contract(StrictStruct, frozen=True):
    """Everything needed to feed a model and to decode its outputs.

    Attributes:
        family: Name of the model's family.
        head: Its outputs.
        picture: The image input (key `input`); None for a model without one.
        labels: Class names.
        others: Further inputs; the image always comes first.
    """

    family: str
    head: Head
    picture: ImageInput | None = msgspec.field(default=None, name="input")
    labels: tuple[str, ...] = ()
    others: tuple[ArrayInput, ...] = ()

    @property
    def input(self) -> ImageInput:
        """The image input. Raises RkzooError for a model without one."""
        if self.picture is None:
            raise RkzooError(
                f"{self.family} takes no pictures.",
                f"Its inputs are {', '.join(other.name for other in self.others)}.",
                "Run the pipeline that it is a part of: see rkzoo list.",
            )
        return self.picture

    @property
    def texts(self) -> ArrayInput | None:
        """The input of text embeddings, if any."""
        return next((other for other in self.others if other.role == "texts"), None)
