"""How families without anchors were trained: what their graphs compute alike and do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from rkzoo.graph.families.anchor_free import Level
from rkzoo.graph.families.recognition import ImageSource

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_IMAGENET_BGR = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
_BY_255 = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@dataclass(frozen=True)
class Training:
    """What a family's published configuration feeds: `color` order, (mean, std) in units of
    0..255, how the picture is fitted. `mark` says by what its head is known; empty where other
    families have the very same."""

    family: str
    title: str
    color: Literal["RGB", "BGR"]
    pixels: tuple[tuple[float, float, float], tuple[float, float, float]]
    fit: Literal["letterbox", "stretch"] = "letterbox"
    place: Literal["center", "top-left"] = "center"
    mark: str = ""

    def over(self, picture: ImageSource) -> ImageSource:
        """The picture fed so; what the graph does itself is taken off by the registry."""
        mean, std = self.pixels
        image = msgspec.structs.replace(
            picture.image, color=self.color, fit=self.fit, place=self.place, mean=mean, std=std
        )
        return replace(picture, image=image)

    @property
    def assumed(self) -> str:
        """The assumption and how to say otherwise, in a sentence for the user."""
        mean, std = (",".join(f"{number:g}" for number in row) for row in self.pixels)
        known = f"{self.mark} tell it as {self.title}" if self.mark else f"Taken for {self.title}"
        fit = "stretched to the input" if self.fit == "stretch" else "with their proportions kept"
        return (
            f"{known}; as published it is fed {self.color} pixels with mean {mean} and std {std}, "
            f"{fit}: that is assumed, for the file does not say. Say otherwise with --color, "
            "--mean and --std."
        )


# https://github.com/PaddlePaddle/PaddleDetection/tree/release/2.6/configs/picodet
PICODET = Training(
    "picodet", "PicoDet", "RGB", _IMAGENET, "stretch", mark="Levels to stride 64 and 8 bins a side"
)
# https://github.com/RangiLyu/nanodet/blob/main/config/nanodet-plus-m_416.yml
NANODET_PLUS = Training(
    "nanodet-plus", "NanoDet-Plus", "BGR", _IMAGENET_BGR, "stretch",
    mark="Levels to stride 64 and 8 bins a side, with scores and boxes in one tensor or measured "
    "from the corners of the cells,",
)  # fmt: skip
NANODET = Training(
    "nanodet", "NanoDet", "BGR", _IMAGENET_BGR, "stretch",
    mark="Three undecoded levels of 8 bins a side",
)  # fmt: skip
# https://github.com/open-mmlab/mmdetection/blob/main/configs/rtmdet/rtmdet_l_8xb32-300e_coco.py
RTMDET = Training(
    "rtmdet", "RTMDet", "BGR", _IMAGENET_BGR, place="top-left",
    mark="Plain distances from the corners of the cells",
)  # fmt: skip
# https://github.com/PaddlePaddle/PaddleDetection/tree/release/2.6/configs/ppyoloe
PPYOLOE = Training("ppyoloe", "PP-YOLOE+", "RGB", _BY_255, "stretch")

# https://github.com/lyuwenyu/RT-DETR/blob/main/rtdetr_pytorch/configs/dataset/coco_detection.yml
RTDETR = Training("rtdetr", "RT-DETR or RT-DETRv2", "RGB", _BY_255, "stretch")
# https://github.com/Peterande/D-FINE/blob/master/configs/dataset/coco_detection.yml, and DEIM's
DFINE = Training(
    "dfine", "D-FINE or DEIM", "RGB", _BY_255, "stretch",
    mark="Boxes as distances from a query's reference",
)  # fmt: skip
# https://github.com/roboflow/rf-detr, rfdetr 1.11.2: RFDETR.means, stds and predict
RFDETR = Training(
    "rfdetr", "RF-DETR", "RGB", _IMAGENET, "stretch",
    mark="Boxes in proportion to a query's reference",
)  # fmt: skip
# https://github.com/facebookresearch/detr/blob/main/datasets/coco.py; a fixed size is stretched to
DETR = Training("detr", "DETR", "RGB", _IMAGENET, "stretch", mark="Boxes without a reference")


def is_picodet(levels: Sequence[Level]) -> bool:
    """Four levels to stride 64 and 8 bins a side, which no other family has."""
    return len(levels) == 4 and levels[-1].stride == 64 and levels[0].box.shape[1] == 32
