"""Detectors that are transformers: from Hugging Face's transformers, and RF-DETR's own exporter.

The `-deploy` forms have the published postprocessor behind them, as the projects' own exporters
put it there: the best of all queries and classes, boxes in pixels of `orig_target_sizes`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from upstream import Network

_SIDE = 640
_QUERIES = 300


def _resnet18() -> Any:
    from transformers import RTDetrResNetConfig

    return RTDetrResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


def _rtdetr() -> Any:
    """https://github.com/lyuwenyu/RT-DETR, rtdetr_r18vd_6x_coco."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection

    return RTDetrForObjectDetection(RTDetrConfig(backbone_config=_resnet18(), **_R18))


def _rtdetrv2() -> Any:
    """https://github.com/lyuwenyu/RT-DETR, rtdetrv2_r18vd_120e_coco."""
    from transformers import RTDetrV2Config, RTDetrV2ForObjectDetection

    return RTDetrV2ForObjectDetection(RTDetrV2Config(backbone_config=_resnet18(), **_R18))


_R18 = {
    "encoder_in_channels": [128, 256, 512],
    "decoder_in_channels": [256, 256, 256],
    "hidden_expansion": 0.5,
    "decoder_layers": 3,
    "num_labels": 80,
}


def _dfine() -> Any:
    """https://github.com/Peterande/D-FINE, dfine_hgnetv2_n_coco."""
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    backbone = HGNetV2Config(
        hidden_sizes=[64, 256, 512, 1024],
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[3, 3, 3, 3],
        use_learnable_affine_block=True,
        out_features=["stage3", "stage4"],
    )
    config = DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[512, 1024],
        feat_strides=[16, 32],
        encoder_hidden_dim=128,
        encoder_ffn_dim=512,
        encode_proj_layers=[1],
        hidden_expansion=0.34,
        depth_mult=0.5,
        d_model=128,
        decoder_in_channels=[128, 128],
        decoder_ffn_dim=512,
        num_feature_levels=2,
        decoder_layers=3,
        decoder_n_points=[6, 6],
        num_labels=80,
    )
    return DFineForObjectDetection(config)


def _export(make: Callable[[], Any], deployed: bool, path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = make().eval()
    _spread(model)

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values, orig_target_sizes=None):  # type: ignore[no-untyped-def]
            found = self.model(pixel_values)
            if orig_target_sizes is None:
                return found.logits, found.pred_boxes
            return _deployed(found.logits, found.pred_boxes, orig_target_sizes)

    picture = torch.randn(1, 3, _SIDE, _SIDE)
    sizes = torch.tensor([[_SIDE, _SIDE]])
    torch.onnx.export(
        Outputs(),
        (picture, sizes) if deployed else (picture,),
        str(path),
        input_names=["images", "orig_target_sizes"] if deployed else ["pixel_values"],
        output_names=["labels", "boxes", "scores"] if deployed else ["logits", "pred_boxes"],
        opset_version=17,
        dynamo=False,
    )


def _deployed(logits, boxes, sizes):  # type: ignore[no-untyped-def]
    """The postprocessor of RT-DETR, and of D-FINE and DEIM that have the same: of all queries times
    classes the best, after a sigmoid; `sizes` are width and height."""
    import torch

    x, y, w, h = boxes.unbind(-1)
    corners = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=-1)
    corners = corners * sizes.repeat(1, 2).unsqueeze(1)
    classes = logits.shape[-1]
    scores, index = torch.topk(torch.sigmoid(logits).flatten(1), _QUERIES, dim=-1)
    query = index // classes
    best = corners.gather(dim=1, index=query.unsqueeze(-1).repeat(1, 1, 4))
    return index - query * classes, best, scores


def _spread(model: Any) -> None:
    """Draws the weights so that what they make neither dies away nor grows, and the heads so that
    scores and boxes differ from query to query as those of a trained network do, most scores low:
    as they are first made, the queries are all alike."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            gain = 2**0.5 if isinstance(module, torch.nn.Conv2d) else 1.0
            std = gain * module.weight[0].numel() ** -0.5
            torch.nn.init.normal_(module.weight, std=std)
        elif isinstance(module, torch.nn.BatchNorm2d):  # transformers draws it as a layer's
            torch.nn.init.ones_(module.weight)
    for name, weights in model.named_parameters():
        scores = "class_embed" in name or "enc_score_head" in name or "enc_out_class" in name
        if not scores and "bbox" not in name:
            continue
        last = scores or (weights.shape[0] % 4 == 0 and weights.shape[0] < 200)
        if weights.ndim > 1:
            gain = 1.5 if scores else 0.5 if last else 1.4
            torch.nn.init.normal_(weights, std=gain * weights.shape[1] ** -0.5)
        elif scores:
            torch.nn.init.constant_(weights, -4.0)
        elif last:
            torch.nn.init.zeros_(weights)


def _rfdetr(path: Path) -> None:
    """https://github.com/roboflow/rf-detr, nano, by its own exporter."""
    import torch
    from rfdetr import RFDETRNano

    torch.manual_seed(0)
    network = RFDETRNano(pretrain_weights=None, device="cpu")
    _spread(network.model.model)
    network.export(output_dir=str(path.parent), verbose=False)
    made = next(file for file in path.parent.glob("*.onnx") if file != path)
    made.rename(path)


def _of(make: Callable[[], Any], origin: str, *, deployed: bool = False) -> Network:
    return Network(
        partial(_export, make, deployed), ("torch", "transformers"), "Apache-2.0", origin
    )


_RTDETR = "https://arxiv.org/abs/2304.08069"
_RTDETRV2 = "https://arxiv.org/abs/2407.17140"
_DFINE = "https://arxiv.org/abs/2410.13842"
NETWORKS = {
    "rtdetr-r18": _of(_rtdetr, _RTDETR),
    "rtdetr-r18-deploy": _of(_rtdetr, _RTDETR, deployed=True),
    "rtdetrv2-s": _of(_rtdetrv2, _RTDETRV2),
    "rtdetrv2-s-deploy": _of(_rtdetrv2, _RTDETRV2, deployed=True),
    "dfine-n": _of(_dfine, _DFINE),
    "dfine-n-deploy": _of(_dfine, _DFINE, deployed=True),
    "rfdetr-nano": Network(
        _rfdetr, ("torch", "rfdetr"), "Apache-2.0", "https://arxiv.org/abs/2511.09554"
    ),
}
