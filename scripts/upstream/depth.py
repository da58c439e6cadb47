"""Depth estimators, from Hugging Face's transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from upstream import Network


def _export(model: Any, path: Path, size: int) -> None:
    """Writes the network that gives `predicted_depth`, its answer of a picture of `size` pixels."""
    import torch

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, pixel_values):  # type: ignore[no-untyped-def]
            return self.model(pixel_values).predicted_depth

    torch.onnx.export(
        Outputs(),
        (torch.randn(1, 3, size, size),),
        str(path),
        input_names=["pixel_values"],
        output_names=["predicted_depth"],
        opset_version=17,
        dynamo=False,
    )


def _vary(model: Any) -> None:
    """Draws the decoder anew, as torch does by default: with the weights that transformers starts
    from, every pixel has the same depth. The last layer's bias keeps most of it above its ReLU."""
    import torch

    layers = [m for part in (model.neck, model.head) for m in part.modules()]
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.reset_parameters()
    last = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(8)
        last.bias.fill_(1.0)


def _depth_anything(path: Path, **options: Any) -> None:
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    # As the configuration of depth-anything/Depth-Anything-V2-Small-hf.
    backbone = Dinov2Config(
        image_size=518,
        patch_size=14,
        hidden_size=384,
        num_attention_heads=6,
        out_features=["stage3", "stage6", "stage9", "stage12"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        **options,
    )
    model = DepthAnythingForDepthEstimation(config)
    _vary(model)
    _export(model, path, 252)


def _metric(path: Path) -> None:
    _depth_anything(path, depth_estimation_type="metric", max_depth=20)


def _midas_swin2(path: Path) -> None:
    import torch
    from transformers import DPTConfig, DPTForDepthEstimation, Swinv2Config

    torch.manual_seed(0)
    # As the configuration of Intel/dpt-swinv2-tiny-256.
    backbone = Swinv2Config(
        image_size=256,
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=16,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = DPTConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[96, 192, 384, 768],
        fusion_hidden_size=256,
        use_batch_norm_in_fusion_residual=False,
    )
    model = DPTForDepthEstimation(config)
    _vary(model)
    _export(model, path, 256)


_NEEDS = ("torch", "transformers")
NETWORKS = {
    "depth-anything-v2-small": Network(
        _depth_anything, _NEEDS, "Apache-2.0", "https://arxiv.org/abs/2406.09414"
    ),
    "depth-anything-v2-metric": Network(
        _metric, _NEEDS, "Apache-2.0", "https://arxiv.org/abs/2406.09414"
    ),
    "midas-swin2-tiny": Network(
        _midas_swin2, _NEEDS, "Apache-2.0", "https://arxiv.org/abs/2307.14460"
    ),
}
