"""Networks that make a picture of a picture, from spandrel, which keeps their authors' code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from upstream import Network


def _export(model: Any, path: Path, side: int) -> None:
    import torch

    torch.onnx.export(
        model.eval(),
        (torch.rand(1, 3, side, side),),
        str(path),
        input_names=["input"],
        output_names=["output"],
        opset_version=17,
        dynamo=False,
    )


def _real_esrgan(path: Path) -> None:
    import torch
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    # As inference_realesrgan.py of xinntao/Real-ESRGAN makes realesr-general-x4v3.
    model = Compact(num_feat=64, num_conv=32, upscale=4)
    with torch.no_grad():
        for layer in model.body:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, a=0.25)
        model.body[-1].weight.mul_(0.05)  # so that the picture shows through what is added
    _export(model, path, 128)


def _dncnn(path: Path) -> None:
    import torch
    from spandrel.architectures.DnCNN import DnCNN

    torch.manual_seed(0)
    model = DnCNN(in_nc=3, out_nc=3, nc=64, nb=20, act_mode="R")
    with torch.no_grad():
        convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
        for layer in convolutions:
            torch.nn.init.kaiming_normal_(layer.weight)
        convolutions[-1].weight.mul_(0.05)
    _export(model, path, 128)


_NEEDS = ("torch", "spandrel", "einops")
NETWORKS = {
    "realesr-general-x4v3": Network(
        _real_esrgan, _NEEDS, "BSD-3-Clause", "https://arxiv.org/abs/2107.10833"
    ),
    "dncnn-color": Network(_dncnn, _NEEDS, "MIT", "https://arxiv.org/abs/1608.03981"),
}
