"""The calls of slots, of models and of a board's sessions: what the server and its workers say."""

from __future__ import annotations

from typing import Any

import msgspec

from rkzoo.contract.inputs import TensorSpec
from rkzoo.protocol.board import OpenSession
from rkzoo.session import Label


class ModelArguments(msgspec.Struct, frozen=True):
    """What is served: a model as `rkzoo run` names it, fields of `Request`, and which slot of
    how many this is (0: as many as keep the NPU busy)."""

    model: str
    request: dict[str, Any] = {}
    number: int = 0
    slots: int = 0


class PartSpecs(msgspec.Struct, frozen=True):
    """Inputs and outputs of one graph, as the Open Inference Protocol is told of them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batch(self) -> int:
        """How many samples one run takes; 1 where its inputs do not agree on it."""
        first = {spec.shape[0] if spec.shape else 1 for spec in self.inputs}
        return first.pop() if len(first) == 1 else 1


class OpenedModel(msgspec.Struct, frozen=True):
    """An open model. `parts` by role, "model" where there is one; `files` are those whose change
    means another model; `written` the suffixes that `predict` gives; `languages` those that it
    hears or speaks, empty where it does not tell."""

    kind: str
    task: str
    runtime: Label
    parts: dict[str, PartSpecs]
    slots: int
    labels: tuple[str, ...]
    written: tuple[str, ...]
    languages: tuple[str, ...] = ()


class PredictOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of an answer; fields of `Request` by their names.

    `format` is "json", or the suffix of a file as `rkzoo run -o` writes it: ".jpg" (the drawn
    picture), ".srt", ".vtt", ".txt", ".wav" ... `filename` names the input in messages, and its
    suffix may tell its format.
    """

    format: str = "json"
    filename: str = ""
    language: str | None = None
    translate: bool = False
    speed: float = 1.0
    confidence: float | None = None
    iou: float | None = None
    max_boxes: int | None = None
    classes: tuple[str | int, ...] | None = None
    points: tuple[tuple[float, ...], ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()

    def asked(self) -> dict[str, Any]:
        """The fields of `Request` that were given."""
        return {
            name: value
            for name in self.__struct_fields__[2:]
            if (value := getattr(self, name)) != DEFAULTS[name]
        }


DEFAULTS = dict(
    zip(PredictOptions.__struct_fields__, PredictOptions.__struct_defaults__, strict=True)
)


class Predicted(msgspec.Struct, frozen=True):
    """An answer to `predict`; its bytes are the first buffer. `seconds` from the decoded input
    to the result; `duration` of a sound that was given, in seconds."""

    format: str
    seconds: float
    duration: float | None = None


class InferArguments(msgspec.Struct, frozen=True):
    """Requests of the Open Inference Protocol for one graph, one a buffer. `name` and `version`
    are what the answers call the model."""

    header_sizes: tuple[int | None, ...]
    name: str
    version: str
    part: str = "model"


class InferReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one request; its body is the buffer at the same place."""

    header_size: int | None = None
    error: Any = None


class Embedded(msgspec.Struct, frozen=True):
    """An answer to `embed`; its buffer holds float32, a row of `width` for each item. `tokens`
    is how many the texts among them had."""

    width: int
    tokens: int


Item = str | bytes
"""What is embedded: a text, or a picture's file. The buffer of `embed` is a list in MessagePack."""


class SessionArguments(msgspec.Struct, frozen=True):
    """What a session on the NPU opens: a file of this board, and how."""

    file: str
    asked: OpenSession


class TimeArguments(msgspec.Struct, frozen=True):
    """How often the request in the first buffer is run; `header_size` is its JSON part."""

    runs: int
    header_size: int | None = None


class RecordArguments(msgspec.Struct, frozen=True):
    """What the file in the first buffer is called: its suffix may tell its format."""

    filename: str
