"""What Frigate gives to a detector's file and asks of it, as published.

Fields, defaults and signatures of https://github.com/blakeblackshear/frigate at e3fa701
(2026-07-23): frigate/detectors/detector_config.py, frigate/detectors/detection_api.py,
frigate/detectors/detector_types.py (how files in plugins/ are found),
frigate/object_detection/base.py (how rows are read), frigate/util/builtin.py (label maps).
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Union

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class PixelFormatEnum(str, Enum):
    rgb = "rgb"
    bgr = "bgr"
    yuv = "yuv"


class InputTensorEnum(str, Enum):
    nchw = "nchw"
    nhwc = "nhwc"
    hwnc = "hwnc"
    hwcn = "hwcn"


class InputDTypeEnum(str, Enum):
    float = "float"
    float_denorm = "float_denorm"
    int = "int"


class ModelConfig(BaseModel):
    """Of the fields those that a detector can read; `labelmap_path` is read by `labels_in`."""

    path: str | None = None
    labelmap_path: str | None = None
    width: int = 320
    height: int = 320
    labelmap: dict[int, str] = Field(default_factory=dict)
    input_tensor: InputTensorEnum = InputTensorEnum.nhwc
    input_pixel_format: PixelFormatEnum = PixelFormatEnum.rgb
    input_dtype: InputDTypeEnum = InputDTypeEnum.int
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @property
    def merged_labelmap(self) -> dict[int, str]:
        return {**labels_in(self.labelmap_path), **self.labelmap}


class BaseDetectorConfig(BaseModel):
    type: str = Field(default="cpu")
    model: ModelConfig | None = None
    model_path: str | None = None
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True, protected_namespaces=())


class DetectionApi(ABC):
    type_key: str
    supported_models: list[Any]

    @abstractmethod
    def __init__(self, detector_config: BaseDetectorConfig) -> None:
        model = detector_config.model
        assert model is not None
        self.detector_config, self.thresh = detector_config, 0.4
        self.width, self.height = model.width, model.height

    @abstractmethod
    def detect_raw(self, tensor_input):  # type: ignore[no-untyped-def]
        pass


def labels_in(path: str | None) -> dict[int, str]:
    """A label map: a number and a name a line; what is missing up to 91 is "unknown"."""
    if path is None:
        return {}
    labels = dict.fromkeys(range(91), "unknown")
    for line in Path(path).read_text("utf-8").splitlines():
        number, _, name = line.partition(" ")
        labels[int(number)] = name.strip()
    return labels


def modules() -> dict[str, ModuleType]:
    """The modules that a detector's file imports."""
    made = {
        name: ModuleType(name)
        for name in (
            "frigate",
            "frigate.detectors",
            "frigate.detectors.detection_api",
            "frigate.detectors.detector_config",
        )
    }
    made["frigate.detectors.detection_api"].DetectionApi = DetectionApi  # type: ignore[attr-defined]
    config = made["frigate.detectors.detector_config"]
    for kind in (BaseDetectorConfig, ModelConfig, PixelFormatEnum, InputTensorEnum, InputDTypeEnum):
        setattr(config, kind.__name__, kind)
    return made


def create_detector(given: dict[str, Any], model: dict[str, Any]) -> Any:
    """The detector of a configuration: its class is found among DetectionApi's by `type_key`, its
    configuration among BaseDetectorConfig's by `type`; the model is set afterwards."""
    kinds = Union[tuple(BaseDetectorConfig.__subclasses__())]  # noqa: UP007
    union = Annotated[kinds, Field(discriminator="type")] if _several() else kinds
    config: Any = TypeAdapter(union).validate_python(given)
    config.model = ModelConfig.model_validate(model)
    by_key = {kind.type_key: kind for kind in DetectionApi.__subclasses__()}
    return by_key[config.type](config)  # type: ignore[abstract]


def _several() -> bool:
    return len(BaseDetectorConfig.__subclasses__()) > 1


def detect(
    detector: Any, labels: dict[int, str], picture: np.ndarray, threshold: float = 0.4
) -> list[tuple[str, float, tuple[float, ...]]]:
    """As RemoteObjectDetector.detect: the rows pass through shared memory of (20, 6) float32."""
    shared = np.zeros((20, 6), np.float32)
    shared[:] = detector.detect_raw(tensor_input=picture)[:]
    found = []
    for row in shared:
        if row[1] < threshold:
            break
        found.append((labels[int(row[0])], float(row[1]), tuple(map(float, row[2:]))))
    return found


assert "frigate" not in sys.modules, "these stand in for Frigate, which is installed here"
