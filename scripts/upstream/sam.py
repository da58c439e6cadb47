"""Segmenters by prompt, from Hugging Face's transformers, as two graphs each: what sees the picture
and what answers a prompt. Inputs and outputs are called as samexporter's, whose files are the usual
ones (https://github.com/vietanhdev/samexporter)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from upstream import Network


@cache
def _sam2() -> Any:
    import torch
    from transformers import Sam2Config, Sam2Model

    torch.manual_seed(0)
    # The defaults are those of facebook/sam2.1-hiera-tiny.
    model = Sam2Model(Sam2Config()).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Drawn so that masks and their scores vary; 0.02 leaves them all alike.
            if weight.dim() > 1 and ("mask_decoder" in name or "prompt_encoder" in name):
                weight.normal_(0, 1.5 / weight[0].numel() ** 0.5)
    return model


def _sam2_encoder(path: Path) -> None:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _sam2()

        def forward(self, image):  # type: ignore[no-untyped-def]
            return tuple(self.model.get_image_embeddings(image))

    torch.onnx.export(
        Encoder(),
        (torch.randn(1, 3, 1024, 1024),),
        str(path),
        input_names=["image"],
        output_names=["high_res_feats_0", "high_res_feats_1", "image_embed"],
        opset_version=18,
        dynamo=True,  # the older exporter leaves an If in it
    )


def _sam2_decoder(path: Path) -> None:
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _sam2()

        def forward(  # type: ignore[no-untyped-def]
            self, image_embed, high_0, high_1, coords, labels, mask, has_mask
        ):
            prompts = self.model.prompt_encoder
            # One prompt of one picture, and SAM's own point that is none. The labels are floats and
            # stay that, as in samexporter's file: the toolkit builds no whole numbers here.
            coords = torch.cat([coords, torch.zeros(1, 1, 2)], dim=1)[:, None] + 0.5
            labels = torch.cat([labels, -torch.ones(1, 1)], dim=1)[:, None, :, None]
            side = prompts.input_image_size
            points = prompts.shared_embedding(coords, (side, side)) * (labels != -1)
            points = points + prompts.not_a_point_embed.weight * (labels == -1)
            for kind, weight in enumerate(prompts.point_embed.weight):
                points = points + weight * (labels == kind)
            empty = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
            dense = has_mask * prompts.mask_embed(mask) + (1 - has_mask) * empty
            masks, scores, _, _ = self.model.mask_decoder(
                image_embeddings=image_embed,
                image_positional_embeddings=self.model.get_image_wide_positional_embeddings(),
                sparse_prompt_embeddings=points,
                dense_prompt_embeddings=dense,
                multimask_output=True,
                high_resolution_features=[high_0, high_1],
            )
            return masks[:, 0], scores[:, 0]

    shapes = {
        "image_embed": (1, 256, 64, 64),
        "high_res_feats_0": (1, 32, 256, 256),
        "high_res_feats_1": (1, 64, 128, 128),
        "point_coords": (1, 2, 2),
        "point_labels": (1, 2),
        "mask_input": (1, 1, 256, 256),
        "has_mask_input": (1,),
    }
    torch.onnx.export(
        Decoder().eval(),
        tuple(torch.ones(shape) for shape in shapes.values()),
        str(path),
        input_names=list(shapes),
        output_names=["masks", "iou_predictions"],
        opset_version=17,
        dynamo=False,
    )


_NEEDS = ("torch", "transformers")
_ORIGIN = "https://arxiv.org/abs/2408.00714"
NETWORKS = {
    "sam2-tiny-encoder": Network(_sam2_encoder, _NEEDS, "Apache-2.0", _ORIGIN),
    "sam2-tiny-decoder": Network(_sam2_decoder, _NEEDS, "Apache-2.0", _ORIGIN),
}
