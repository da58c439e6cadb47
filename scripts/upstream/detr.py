"""Detectors that are transformers, from Hugging Face's transformers."""

from __future__ import annotations

from pathlib import Path

from upstream import Network


def _rtdetr(path: Path) -> None:
    import torch
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        decoder_in_channels=[256, 256, 256],
        hidden_expansion=0.5,
        decoder_layers=3,
        num_labels=80,
    )
    model = RTDetrForObjectDetection(config).eval()

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values):  # type: ignore[no-untyped-def]
            found = self.model(pixel_values)
            return found.logits, found.pred_boxes

    torch.onnx.export(
        Outputs(),
        (torch.randn(1, 3, 640, 640),),
        str(path),
        input_names=["pixel_values"],
        output_names=["logits", "pred_boxes"],
        opset_version=17,
        dynamo=False,
    )


NETWORKS = {
    "rtdetr-r18": Network(
        _rtdetr, ("torch", "transformers"), "Apache-2.0", "https://arxiv.org/abs/2304.08069"
    ),
}
