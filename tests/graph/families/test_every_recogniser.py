"""Every recogniser is asked about every family's graph, stock and Rockchip's: one takes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import onnx
import pytest
import test_anchor_heads
import test_embedding_networks
import test_undecoded_heads
import tiny_maps
import tiny_queries
import tiny_undecoded
import tiny_whole
import tiny_yolo
from tiny_heads import HEADS, VENDOR, Head, build, vendor
from tiny_yolo import Spec

from rkzoo.contract.inputs import ImageInput
from rkzoo.graph.families.recognition import ImageSource
from rkzoo.graph.families.registry import PROMPTED, RECOGNISERS, Recognition
from rkzoo.graph.onnx.view import prepared

Make = Callable[[], onnx.ModelProto]


def in_vendor_form(head: Head) -> str:
    """YOLOv10's head has the tensors of YOLOv8's there."""
    return head.family.replace("yolov10", "yolov8")


GRAPHS: list[tuple[str, Make, str]] = [
    *((f"stock {head!r}", partial(build, head), head.family) for head in HEADS),
    *((f"vendor {head!r}", partial(vendor, head), in_vendor_form(head)) for head in VENDOR),
    *(
        (f"stock {tail}", partial(tiny_yolo.stock, Spec(tail=tail)), "yolov8")
        for tail in ("joined", "separate", "weighted")
    ),
    ("vendor 9", tiny_yolo.vendor, "yolov8"),
    ("vendor 6", partial(tiny_yolo.vendor, sums=False), "yolov8"),
    ("vendor plain", partial(tiny_yolo.vendor, Spec(bins=1)), "yolov6"),
    *(
        (name, make, family)
        for name, (make, family) in (test_anchor_heads.STOCK | test_anchor_heads.VENDOR).items()
    ),
    *(
        (f"undecoded {name}", partial(tiny_undecoded.undecoded, net), family)
        for name, (net, family, _) in test_undecoded_heads.HEADS.items()
    ),
    ("yolov5-face", tiny_undecoded.yolov5_face, "yolov5-face"),
    ("yunet", tiny_undecoded.yunet, "yunet"),
    (
        "rtmdet decoded",
        partial(tiny_undecoded.decoded, tiny_undecoded.Raw(bins=1, strides=(8, 16, 32), one=False)),
        "rtmdet",
    ),
    *(
        (f"classifier {end}", partial(tiny_whole.classifier, end), "classifier")
        for end in ("gemm", "softmax", "matmul", "conv", "squeezenet")
    ),
    *((f"depth {end}", partial(tiny_maps.depth, end), "midas") for end in ("relative", "metric")),
    ("super-resolution", tiny_maps.super_resolution, "restore"),
    ("denoiser", tiny_maps.denoiser, "restore"),
    ("anomaly", tiny_maps.anomaly, "anomaly"),
    ("lprnet", tiny_whole.lprnet, "lprnet"),
    ("retinaface", tiny_whole.retinaface, "retinaface"),
    *(
        (
            f"queries {coding} {form}",
            partial(tiny_queries.detr, tiny_queries.Detr(coding, form)),
            of,
        )
        for coding, of in tiny_queries.FAMILIES.items()
        for form in tiny_queries.FORMS
    ),
    ("dinov2 tokens", partial(test_embedding_networks.tokens, 1, name="images"), "dinov2"),
]
FAMILIES = {
    *("anomaly", "classifier", "lprnet", "midas", "restore", "retinaface"),
    *tiny_queries.FAMILIES.values(),
    *("nanodet", "nanodet-plus", "picodet", "rtmdet", "yolov5-face", "yolov8-face", "yunet"),
    *("yolov5", "yolov6", "yolov7", "yolov8", "yolov10", "yolo26", "yolox", "ppyoloe"),
    *(f"{base}-{task}" for base in ("yolov8", "yolo26") for task in ("seg", "pose", "obb")),
}


def claims(model: onnx.ModelProto) -> list[str]:
    """The family that each recogniser takes the graph for, where it does."""
    (images,) = (info for info in model.graph.input if info.name == "images")
    height, width = (d.dim_value for d in images.type.tensor_type.shape.dim[2:])
    view = prepared(model, {"images": (1, 3, height, width)})
    picture = ImageSource(ImageInput(size=(height, width)))
    answers = [known(view, picture) for _, known in (*RECOGNISERS, *PROMPTED)]
    return [answer.family for answer in answers if isinstance(answer, Recognition)]


@pytest.mark.parametrize(
    ("make", "family"), [graph[1:] for graph in GRAPHS], ids=[graph[0] for graph in GRAPHS]
)
def test_one_recogniser_takes_a_graph_and_no_other(make: Make, family: str) -> None:
    assert claims(make()) == [family]


def test_every_family_is_among_the_graphs() -> None:
    assert {family for _, _, family in GRAPHS} >= FAMILIES
