"""A text into another language by Marian's cards, from the command line: a small network with the
interface of an opus-mt export; on ONNX Runtime, converted and simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from translate_graphs import SmallMarian, draw_prediction, write_pieces

from rkzoo.cli.main import main
from rkzoo.workflow.request.resolve import resolve
from rkzoo.zoo.catalogue import card

spm = pytest.importorskip("sentencepiece")

SMALL = SmallMarian(pieces=61)  # 57 of SentencePiece, the end, the unknown, the lead and the pad
CARD = """
name: {name}
task: translate
title: A small translation
licence: {{name: MIT}}
"""
SOURCE = "[{{url: 'file:{file}', sha256: null, unverified: made here}}]"
PART = CARD + f"sources: {SOURCE}\nhead: {{{{kind: tensors}}}}\ndtypes: [fp16]\n"
FILES = "files:\n" + "".join(
    f"  {role}: {SOURCE.format(file=file)}\n"
    for role, file in (
        ("vocabulary", "vocab.json"),
        ("source", "source.spm"),
        ("target", "target.spm"),
    )
)
ENCODER = """arrays:
  - {name: input_ids, shape: [1, 8], dtype: int64}
  - {name: attention_mask, shape: [1, 8], dtype: int64}
"""
DECODER = """arrays:
  - {name: input_ids, shape: [1, 8], dtype: int64}
  - {name: encoder_hidden_states, shape: [1, 8, 32]}
  - {name: encoder_attention_mask, shape: [1, 8], dtype: int64}
outputs: [logits]
"""
PIPELINE = """pipeline: {encoder: marian-encoder, decoder: marian-decoder}
head: {kind: marian, target: fr, lead: ">>x<<", beams: 1}
dtypes: [fp16]
"""


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    write_pieces(folder)
    onnx.save(SMALL.encoder(), folder / "encoder.onnx")
    onnx.save(SMALL.decoder(), folder / "decoder.onnx")
    parts = {
        "marian-encoder": PART.format(name="marian-encoder", file="encoder.onnx") + FILES + ENCODER,
        "marian-decoder": PART.format(name="marian-decoder", file="decoder.onnx") + DECODER,
        "marian": CARD.format(name="marian") + PIPELINE,
    }
    for name, text in parts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def known(cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_CARDS", str(cards))


@pytest.fixture(scope="module")
def wanted(cards: Path) -> dict[str, str]:
    """What a plain calculation without pads says, for texts of one piece, which are taken as they
    are also without an end."""
    table: dict[str, int] = json.loads((cards / "vocab.json").read_text("utf-8"))
    names = list(table)
    model = spm.SentencePieceProcessor(model_file=str(cards / "source.spm"))
    found = {}
    for text in ("the", "cat", "dog", "and", "sun", "hat", "ran", "on"):
        pieces = model.encode(text, out_type=str)
        if len(pieces) > 1:
            continue
        said: list[str] = []
        while len(said) < SMALL.steps and said[-1:] != ["</s>"]:
            memory = SMALL.rows([table[one] for one in (">>x<<", *pieces, "</s>")])
            scores = draw_prediction(
                SMALL, memory, SMALL.rows([table[one] for one in ("<pad>", *said)])
            )
            scores[[60] if said else [60, 0]] = -float("inf")
            said.append(names[int(scores.argmax())])
        found[text] = model.decode([one for one in said if one != "</s>"]).strip()
    assert len(found) >= 3
    return found


def said(out: str) -> list[str]:
    return [one["results"][0]["translation"] for one in json.loads(out)["texts"]]


def test_the_command_line_says_what_the_network_says(
    capsys: pytest.CaptureFixture[str], wanted: dict[str, str]
) -> None:
    assert main(["run", "marian", *wanted, "--json"]) == 0
    assert said(capsys.readouterr().out) == list(wanted.values())
    assert main(["run", "marian", "a", "--language", "de"]) != 0
    assert "does not translate from the language de" in capsys.readouterr().err


@pytest.mark.toolkit
def test_converted_and_simulated_it_says_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, wanted: dict[str, str]
) -> None:
    assert main(["convert", "marian", "--soc", "rk3588", "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    joined = str(tmp_path / "marian-rk3588.json")
    assert main(["run", joined, *wanted, "--runtime", "simulator", "--json"]) == 0
    found = said(capsys.readouterr().out)
    # Half precision may decide a near tie another way.
    assert sum(a == b for a, b in zip(found, wanted.values(), strict=True)) >= len(found) - 1


@pytest.mark.parametrize("name", ["opus-mt-en-zh-encoder", "opus-mt-en-zh-decoder"])
def test_the_real_cards_fix_graphs_of_their_interface(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network of the published width, the card keeps its inputs and one output."""
    real = SmallMarian(slots=64, steps=64, width=512, heads=8, layers=1)
    model = real.encoder() if name.endswith("encoder") else real.decoder()
    onnx.save(model, tmp_path / "m.onnx")
    files: dict[str, Any] = {role: tmp_path / "m.onnx" for role in ("model", *card(name).files)}
    monkeypatch.setattr("rkzoo.workflow.request.resolve.weights", lambda *_, **__: files)
    graph = resolve(name).graph().graph
    shapes = {
        info.name: tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
        for info in graph.input
    }
    assert shapes == {one.name: one.shape for one in card(name).arrays}
    assert tuple(one.name for one in graph.output) == card(name).outputs
