"""What transformers itself answers with a small SigLIP and DINOv2, for the tests
(tests/tasks/embedding_answers.npz).

    python scripts/embedding_answers.py

Run it where torch, transformers and sentencepiece are. The networks are small and random, made and
exported by transformers' own code; kept are they, the pictures, and what transformers' processors
and models make of them.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model, SiglipConfig, SiglipModel, SiglipTokenizer
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

OUT = Path(__file__).parents[1] / "tests/tasks/embedding_answers.npz"
WORDS = ("a photo of a dog", "The sea, at night!", "two red: buses", "don't stop")
SIDE, LENGTH = 64, 16


def onnx_of(
    model: torch.nn.Module, example: torch.Tensor, name: str, outputs: tuple[str, ...]
) -> Any:
    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x):  # type: ignore[no-untyped-def]
            answer = self.model(x)
            return tuple(answer[output] for output in outputs)

    file = io.BytesIO()
    torch.onnx.export(
        Outputs().eval(),
        (example,),
        file,
        input_names=[name],
        output_names=list(outputs),
        opset_version=17,
        dynamo=False,
    )
    return np.frombuffer(file.getvalue(), np.uint8)


def pieces(folder: Path) -> Path:
    """A small vocabulary with the special tokens of SigLIP's: padding 0, end 1, unknown 2."""
    text = " ".join(word.lower() for word in WORDS) + " cats and birds over the green hills "
    (folder / "text.txt").write_text("\n".join([text] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=36,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return folder / "spiece.model"


def main() -> None:
    torch.manual_seed(0)
    chance = np.random.default_rng(0)
    pictures = [
        np.kron(chance.integers(0, 256, (h // 4, w // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        for h, w in ((120, 200), (96, 72))
    ]
    images = [Image.fromarray(picture) for picture in pictures]
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    config = SiglipConfig(
        text_config=small | {"vocab_size": 36, "max_position_embeddings": LENGTH},
        vision_config=small | {"image_size": SIDE, "patch_size": 16},
    )
    siglip = SiglipModel(config).eval()
    siglip.logit_scale.data.fill_(2.0)
    siglip.logit_bias.data.fill_(-1.5)
    for parameter in siglip.parameters():  # so that answers differ
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    with tempfile.TemporaryDirectory() as folder:
        file = pieces(Path(folder))
        vocabulary = np.frombuffer(file.read_bytes(), np.uint8)
        tokenizer = SiglipTokenizer(str(file), model_max_length=LENGTH)
        ids = tokenizer(list(WORDS), padding="max_length", max_length=LENGTH, return_tensors="pt")
    size = {"height": SIDE, "width": SIDE}
    pixels = SiglipImageProcessorPil(size=size)(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        answer = siglip(input_ids=ids["input_ids"], pixel_values=pixels)
    dino = Dinov2Model(Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                                    patch_size=14, image_size=56)).eval()  # fmt: skip
    for parameter in dino.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    processor = BitImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 56, "width": 56},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    dino_pixels = processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        tokens = dino(dino_pixels)
    np.savez_compressed(
        OUT,
        words=np.array(WORDS),
        **{f"picture{i}": picture for i, picture in enumerate(pictures)},
        siglip_image=onnx_of(siglip.vision_model, torch.randn(1, 3, SIDE, SIDE), "pixel_values",
                             ("last_hidden_state", "pooler_output")),
        siglip_text=onnx_of(siglip.text_model, ids["input_ids"][:1], "input_ids",
                            ("last_hidden_state", "pooler_output")),
        vocabulary=vocabulary,
        input_ids=ids["input_ids"].numpy(),
        siglip_pixels=pixels.numpy(),
        scale=float(siglip.logit_scale.exp()),
        bias=float(siglip.logit_bias),
        probabilities=torch.sigmoid(answer.logits_per_image).numpy(),
        dinov2=onnx_of(dino, torch.randn(1, 3, 56, 56), "pixel_values", ("last_hidden_state",)),
        dinov2_pixels=dino_pixels.numpy(),
        class_tokens=tokens.pooler_output.numpy(),
    )  # fmt: skip
    print(OUT, OUT.stat().st_size, torch.sigmoid(answer.logits_per_image), ids["input_ids"])


if __name__ == "__main__":
    main()
