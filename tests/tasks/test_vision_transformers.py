"""SigLIP and DINOv2 held to transformers' own processors and models (scripts/embedding_answers.py):
pixels, tokens, embeddings and probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rkzoo
from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.tasks.prompt.siglip_tokenizer import SiglipTokenizer
from rkzoo.vision.image import write
from rkzoo.vision.letterbox import fit

ANSWERS = np.load(Path(__file__).parent / "embedding_answers.npz")
PICTURES = [ANSWERS[f"picture{i}"] for i in range(2)]
GREY = (127.5, 127.5, 127.5)
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
CARD = """
name: {name}
task: embed
title: A small SigLIP
licence: {{name: MIT}}
"""
PART = CARD + "sources: [{{url: 'file:{name}.onnx', sha256: null, unverified: made here}}]\n"
IMAGE = (
    PART
    + """
input: {{size: [64, 64], mean: [127.5, 127.5, 127.5], std: [127.5, 127.5, 127.5], fit: stretch,
  smooth: true}}
head: {{kind: tensors}}
outputs: [pooler_output]
dtypes: [fp16]
"""
)
TEXT = (
    PART
    + """
files: {{vocabulary: [{{url: 'file:spiece.model', sha256: null, unverified: made here}}]}}
arrays: [{{name: input_ids, shape: [1, 16], dtype: int64}}]
head: {{kind: tensors}}
outputs: [pooler_output]
dtypes: [fp16]
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    for name, file in (
        ("siglip_image", "small-image.onnx"),
        ("siglip_text", "small-text.onnx"),
        ("vocabulary", "spiece.model"),
        ("dinov2", "dinov2.onnx"),
    ):
        (folder / file).write_bytes(ANSWERS[name].tobytes())
    head = (
        f"head: {{{{kind: clip, activation: sigmoid, tokenizer: siglip, "
        f"scale: {float(ANSWERS['scale'])}, bias: {float(ANSWERS['bias'])}}}}}\n"
    )
    whole = CARD + "pipeline: {{image: small-image, text: small-text}}\ndtypes: [fp16]\n" + head
    for name, text in (("small-image", IMAGE), ("small-text", TEXT), ("small-siglip", whole)):
        (folder / f"{name}.yaml").write_text(text.format(name=name))
    for number, picture in enumerate(PICTURES):
        write(folder / f"{number}.png", np.ascontiguousarray(picture[..., ::-1]))
    return folder


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (ImageInput(size=(64, 64), mean=GREY, std=GREY, fit="stretch", smooth=True), "siglip"),
        (ImageInput(size=(56, 56), fit="crop", short=64, smooth=True, **IMAGENET), "dinov2"),
    ],
)
def test_pixels_are_those_of_the_processor(spec: ImageInput, key: str) -> None:
    for picture, wanted in zip(PICTURES, ANSWERS[f"{key}_pixels"], strict=True):
        pixels, _ = fit(np.ascontiguousarray(picture[..., ::-1]), spec)
        found = (pixels[0].astype(np.float64) - spec.mean) / spec.std
        np.testing.assert_allclose(found.transpose(2, 0, 1), wanted, atol=1e-5)


def test_tokens_are_those_of_the_tokenizer(folder: Path) -> None:
    tokenizer = SiglipTokenizer.from_file(folder / "spiece.model")
    rows = tokenizer.rows(map(str, ANSWERS["words"]), 16)
    np.testing.assert_array_equal(rows, ANSWERS["input_ids"])
    with pytest.raises(RkzooError, match="too long"):
        tokenizer.rows(["the sea and the sea and the sea"], 8)


def test_each_text_has_a_probability_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_CARDS", str(folder))
    words = [str(word) for word in ANSWERS["words"]]
    with rkzoo.load("small-siglip", prompts=words) as model:
        for number, wanted in enumerate(ANSWERS["probabilities"]):
            found = model(folder / f"{number}.png").prediction
            scores = dict(zip(found.names, found.scores.tolist(), strict=True))
            assert scores == pytest.approx(dict(zip(words, wanted.tolist(), strict=True)), abs=1e-4)
    with rkzoo.load("small-siglip", prompts=words[:1]) as model:
        found = model(folder / "0.png").prediction
        assert found.scores.tolist() == pytest.approx([ANSWERS["probabilities"][0, 0]], abs=1e-4)


@pytest.mark.parametrize(("file", "family"), [("dinov2.onnx", "dinov2"), ("small-image.onnx", "")])
def test_a_file_alone_gives_the_embedding_of_its_picture(
    folder: Path, tmp_path: Path, file: str, family: str
) -> None:
    """Without a card: the class token, pixels as published."""
    own = tmp_path / file
    own.write_bytes((folder / file).read_bytes())
    with rkzoo.load(own) as model:
        for number in range(2):
            found = model(folder / f"{number}.png").prediction.values
            if family:
                wanted = ANSWERS["class_tokens"][number]
                np.testing.assert_allclose(found, wanted, atol=2e-4)
            else:
                assert found.shape == (16,)
