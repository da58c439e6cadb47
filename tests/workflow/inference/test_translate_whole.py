"""A text into another language by cards, from the command line: a small network with the
interface of Lite Transformer; on ONNX Runtime, converted and simulated."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from translate_graphs import Small, plain_scores

import rkzoo
from rkzoo.cli.main import main
from rkzoo.workflow.request.resolve import resolve
from rkzoo.zoo.catalogue import card

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DICTIONARY = [*LETTERS, *(f"{letter}@@" for letter in LETTERS), *",.!?:;-", "是"]
SMALL = Small(pieces=4 + len(DICTIONARY))

CARD = """
name: {name}
task: translate
title: A small translation
licence: {{name: MIT}}
"""
PART = (
    CARD
    + "sources: [{{url: 'file:{name}.onnx', sha256: null, unverified: made here}}]\n"
    + "head: {{kind: tensors}}\ndtypes: [fp16]\n"
)
FILES = "files:\n" + "".join(
    f"  {role}: [{{{{url: 'file:{file}', sha256: null, unverified: made here}}}}]\n"
    for role, file in (
        ("merges", "bpe.txt"),
        ("dictionary", "dict.txt"),
        ("embedding", "table.bin"),
    )
)
ENCODER = """arrays:
  - {{name: x, shape: [1, 8, 32]}}
  - {{name: encoder_padding_mask, shape: [1, 8, 8]}}
"""
DECODER = """arrays:
  - {{name: prev_output_tokens, shape: [1, 1, 32]}}
  - {{name: encoder_out, shape: [1, 8, 32]}}
  - {{name: encoder_padding_mask, shape: [1, 8]}}
  - {{name: decoder_pading_mask, shape: [1, 8]}}
  - {{name: prev_key0, shape: [1, 2, 7, 16]}}
  - {{name: prev_value0, shape: [1, 2, 7, 16]}}
  - {{name: prev_key1, shape: [1, 2, 7, 16]}}
  - {{name: prev_value1, shape: [1, 2, 7, 16]}}
"""
PIPELINE = CARD + (
    "pipeline: {{encoder: small-encoder, decoder: small-decoder}}\n"
    "head: {{kind: translate, target: fr, beams: 1}}\ndtypes: [fp16]\n"
)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    onnx.save(SMALL.encoder(), folder / "small-encoder.onnx")
    onnx.save(SMALL.decoder(), folder / "small-decoder.onnx")
    (folder / "bpe.txt").write_text("#version: 0.2\n是 是</w>\n")
    (folder / "dict.txt").write_text("".join(f"{piece}\n" for piece in DICTIONARY), "utf-8")
    SMALL.weights["table"].tofile(folder / "table.bin")
    parts = {
        "small-encoder": PART + FILES + ENCODER,
        "small-decoder": PART + DECODER,
        "small": PIPELINE,
    }
    for name, text in parts.items():
        (folder / f"{name}.yaml").write_text(text.format(name=name))
    return folder


@pytest.fixture(autouse=True)
def known(cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_CARDS", str(cards))


def greedy(text: str) -> list[str]:
    """The pieces that a plain calculation says, whether it comes to an end or not."""
    numbers = [4 + DICTIONARY.index(piece) for piece in text.split()]
    said: list[int] = []
    while len(said) < SMALL.steps and (not said or said[-1] != 2):
        scores = plain_scores(SMALL, numbers, said)
        scores[[0, 1, 3] if said else [0, 1, 2, 3]] = -float("inf")
        said.append(int(scores.argmax()))
    return [DICTIONARY[number - 4] for number in said if number != 2]


def spelled(found: str) -> str:
    return "".join(found.split())


# One piece, so that an answer without an end is taken as it is.
SHORT = ("a", "q", "是", "w", "m", "g")


def test_the_command_line_says_what_the_network_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", "small", *SHORT, "--json", "-o", str(tmp_path)]) == 0
    texts = json.loads(capsys.readouterr().out)["texts"]
    for text, document in zip(SHORT, texts, strict=True):
        (sentence,) = document["results"]
        wanted = "".join(piece.removesuffix("@@") for piece in greedy(text))
        assert spelled(sentence["translation"]) == wanted
        assert Path(document["output"]).read_text("utf-8") == sentence["translation"] + "\n"
    with rkzoo.load("small") as model:
        assert model("a b c. D e f!").to_json()["results"][1]["text"] == "D e f!"
    assert main(["run", "small", "a", "--language", "de"]) != 0
    assert "does not translate from the language de" in capsys.readouterr().err


@pytest.mark.toolkit
def test_converted_and_simulated_it_says_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["convert", "small", "--soc", "rk3588", "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    joined = str(tmp_path / "small-rk3588.json")
    assert main(["run", joined, *SHORT, "--runtime", "simulator", "--json"]) == 0
    texts = json.loads(capsys.readouterr().out)["texts"]
    found = [spelled(document["results"][0]["translation"]) for document in texts]
    wanted = ["".join(piece.removesuffix("@@") for piece in greedy(text)) for text in SHORT]
    # Half precision may decide a near tie another way.
    assert sum(a == b for a, b in zip(found, wanted, strict=True)) >= len(SHORT) - 1


@pytest.mark.parametrize("name", ["lite-transformer-encoder", "lite-transformer-decoder"])
def test_the_real_cards_fix_graphs_of_their_interface(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of the published sizes takes exactly what the card says."""
    real = Small(slots=16, steps=16, width=256, heads=4, layers=3, pieces=64)
    model = real.encoder() if name.endswith("encoder") else real.decoder()
    onnx.save(model, tmp_path / "m.onnx")
    files = {role: tmp_path / "m.onnx" for role in ("model", *card(name).files)}
    monkeypatch.setattr("rkzoo.workflow.request.resolve.weights", lambda *_, **__: files)
    graph = resolve(name).graph()
    shapes = {
        info.name: tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
        for info in graph.graph.input
    }
    assert shapes == {one.name: one.shape for one in card(name).arrays}
