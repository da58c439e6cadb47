"""Networks whose answer is an embedding: of a picture, of words, of a person.

Sizes are the published ones; SigLIP's image encoder has 3 of its 12 equal layers, so that its
weights fit into a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from upstream import Network


def _export(
    path: Path, network: Any, shape: Sequence[int], name: str, outputs: dict[str, str | int]
) -> None:
    """Writes the network with the named outputs, each an attribute or an index of its answer."""
    import torch

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.eval()

        def forward(self, x):  # type: ignore[no-untyped-def]
            answer = self.network(x)
            if isinstance(answer, torch.Tensor):
                return answer
            return tuple(answer[key] for key in outputs.values())

    example = torch.randn(*shape) if len(shape) == 4 else torch.randint(2, 100, tuple(shape))
    torch.onnx.export(
        Outputs(),
        (example,),
        str(path),
        input_names=[name],
        output_names=list(outputs),
        opset_version=17,
        dynamo=False,
    )


def _dinov2(path: Path) -> None:
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    # facebook/dinov2-small: 224 pixels are 16x16 patches, its table of positions is of 518.
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518)
    network = Dinov2Model(config)
    outputs: dict[str, str | int] = {"last_hidden_state": "last_hidden_state"}
    _export(path, network, (1, 3, 224, 224), "pixel_values", outputs)


def _siglip(path: Path) -> None:
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    network = SiglipVisionModel(
        SiglipVisionConfig(num_hidden_layers=3, _attn_implementation="eager")
    )
    outputs: dict[str, str | int] = {
        "last_hidden_state": "last_hidden_state",
        "pooler_output": "pooler_output",
    }
    _export(path, network, (1, 3, 224, 224), "pixel_values", outputs)


def _mobileclip(path: Path) -> None:
    import timm
    import torch
    from timm.utils import reparameterize_model

    torch.manual_seed(0)
    network = timm.create_model("fastvit_mci0", num_classes=512)
    _spread(network, (2, 3, 256, 256))
    network = reparameterize_model(network.eval())
    _export(path, network, (1, 3, 256, 256), "pixel_values", {"image_embeds": 0})


def _osnet(path: Path) -> None:
    import torch
    from torchreid.reid.models import osnet

    torch.manual_seed(0)
    network = osnet.osnet_x0_25(num_classes=1, pretrained=False)
    _spread(network, (4, 3, 256, 128))
    _export(path, network, (1, 3, 256, 128), "images", {"embedding": 0})
    _shorten(path)


def _shorten(path: Path) -> None:
    """Takes half of the digits off the weights, so that its many small ones weigh half as much."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            short = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(short, tensor.name))
    onnx.save(model, path)


def _spread(network: Any, shape: Sequence[int]) -> None:
    """Sets the statistics of the batch norms to those of noise, so that pictures differ."""
    import torch

    network.train()
    with torch.no_grad():
        for _ in range(30):
            network(torch.randn(*shape))
    network.eval()


NETWORKS = {
    "dinov2-small": Network(
        _dinov2, ("torch", "transformers"), "Apache-2.0", "https://arxiv.org/abs/2304.07193"
    ),
    "siglip-base-image": Network(
        _siglip, ("torch", "transformers"), "Apache-2.0", "https://arxiv.org/abs/2303.15343"
    ),
    "mobileclip-s0-image": Network(
        _mobileclip, ("torch", "timm"), "Apache-2.0", "https://arxiv.org/abs/2311.17049"
    ),
    "osnet-x0-25": Network(
        _osnet, ("torch", "torchreid"), "MIT", "https://arxiv.org/abs/1905.00953"
    ),
}
