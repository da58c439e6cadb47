"""Texts compared by meaning: BERT's pieces, its graph against plain loops, and the published
weights."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.graph.from_weights import minilm
from rkzoo.progress import SILENT
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.session import Session
from rkzoo.tasks.embed.result import Passage
from rkzoo.tasks.embed.sentence import SentenceEmbedder
from rkzoo.tasks.embed.wordpiece import WordPiece

LENGTH, WIDTH, HEADS, LAYERS = 10, 12, 3, 2
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abc.", "##a", "##b", "ab", "abc", "##bc", "红"]
VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}
SMALL = WordPiece(VOCABULARY)


def pieces(text: str) -> list[str]:
    return [PIECES[number] for number in SMALL.encode(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("abca", ["abc", "##a"]),
        ("ABBC", ["ab", "##bc"]),
        ("ab.c", ["ab", ".", "c"]),
        ("cb", ["c", "##b"]),
        ("bcx a", ["[UNK]", "a"]),
        ("á\u0301b", ["ab"]),
        ("a\u200bb a\0b", ["ab", "ab"]),
        ("a红b", ["a", "红", "b"]),
        (" \t\n", []),
        ("a" * 101, ["[UNK]"]),
        ("a" * 100, ["a", *["##a"] * 99]),
        ("[CLS]", ["[UNK]", "[UNK]", "[UNK]"]),  # what a user writes is no command
    ],
)
def test_pieces(text: str, found: list[str]) -> None:
    assert pieces(text) == found


@settings(max_examples=100, deadline=None)
@given(st.text("abc. ", max_size=12))
def test_pieces_spell_the_text(text: str) -> None:
    # "##c" alone is no piece, so some words are unknown; what is known spells itself.
    for word in text.replace(".", " . ").split():
        joined = "".join(piece.removeprefix("##") for piece in pieces(word))
        assert joined in (word, "[UNK]")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b'{"model": {"type": "BPE", "vocab": {}}}', b"\xff", b"PK\x03\x04"],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(RkzooError, match="cannot be read"):
        WordPiece.from_file(tmp_path / "x")
    with pytest.raises(RkzooError, match="no weights that can be read"):
        minilm.make_encoder({"model": tmp_path / "x"}, tmp_path / "y", SILENT)


def weights() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)

    def some(*shape: int) -> NDArray[np.float32]:
        return (random.normal(size=shape) / shape[-1] ** 0.5).astype(np.float32)

    found = {
        "embeddings.word_embeddings.weight": some(len(PIECES), WIDTH),
        "embeddings.position_embeddings.weight": some(16, WIDTH),
        "embeddings.token_type_embeddings.weight": some(2, WIDTH),
    }
    inner = {
        "attention.self.query": (WIDTH, WIDTH),
        "attention.self.key": (WIDTH, WIDTH),
        "attention.self.value": (WIDTH, WIDTH),
        "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (4 * WIDTH, WIDTH),
        "output.dense": (WIDTH, 4 * WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        for name, shape in inner.items():
            found[f"encoder.layer.{layer}.{name}.weight"] = some(*shape)
            found[f"encoder.layer.{layer}.{name}.bias"] = some(shape[0])
        norms += [f"encoder.layer.{layer}.{n}.LayerNorm" for n in ("attention.output", "output")]
    for name in norms:
        found[f"{name}.weight"], found[f"{name}.bias"] = 1 + some(WIDTH), some(WIDTH)
    return found


def plain(held: dict[str, NDArray[np.float32]], tokens: list[int]) -> NDArray[np.float64]:
    """(W,): the sum over the tokens of what BERT says of them, without any padding."""
    from math import erf

    def norm(x: NDArray[np.float64], place: str) -> NDArray[np.float64]:
        rows = [(row - row.mean()) / np.sqrt(row.var() + 1e-12) for row in x]
        return np.array(rows) * held[f"{place}.weight"] + held[f"{place}.bias"]

    def dense(x: NDArray[np.float64], place: str) -> NDArray[np.float64]:
        return x @ held[f"{place}.weight"].T.astype(np.float64) + held[f"{place}.bias"]

    places = held["embeddings.position_embeddings.weight"][: len(tokens)]
    x = held["embeddings.word_embeddings.weight"][tokens].astype(np.float64) + places
    x = norm(x + held["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    size = WIDTH // HEADS
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (dense(x, f"{at}.attention.self.{n}") for n in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for i in range(len(tokens)):
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                powers = np.exp([q[i, part] @ k[j, part] / size**0.5 for j in range(len(tokens))])
                mixed[i, part] = (powers / powers.sum()) @ v[:, part]
        x = norm(
            x + dense(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
        )
        inner = dense(x, f"{at}.intermediate.dense")
        inner = np.vectorize(lambda n: n * (1 + erf(n / 2**0.5)) / 2)(inner)
        x = norm(x + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return np.asarray(x.sum(axis=0))


def part(model: bytes) -> tuple[Contract, Session]:
    return Contract(family="x", head=TensorsHead()), OnnxSession(model, threads=1)


def test_an_embedding_is_the_mean_over_all_tokens_of_any_length() -> None:
    held = weights()
    parts = {
        "embedding": part(minilm.embedding(held, LENGTH).SerializeToString()),
        "encoder": part(minilm.encoder(held, LENGTH, HEADS).SerializeToString()),
    }
    task = SentenceEmbedder(parts, SMALL, ("ab", "c c c"))
    long = "abca. cb " * 4  # 20 pieces, of which 8 go in at once
    for text in ("a", "ab c", long):
        tokens = SMALL.encode(text)
        read = [tokens[at : at + 8] for at in range(0, len(tokens), 8)]
        assert task.count_tokens(text) == sum(len(piece) + 2 for piece in read)
        whole = sum(plain(held, [2, *piece, 3]) for piece in read)
        np.testing.assert_allclose(
            task.embed_text([text])[0], whole / np.linalg.norm(whole), atol=1e-5
        )
    found = task("c c c")
    assert found.names == ("c c c", "ab")
    assert found.cosine[0] == pytest.approx(1, abs=1e-6)
    # Lines as editors count them: a form feed or U+2028 begins none.
    assert task.passages(" a\r\n\r\n b\x0cc \u2028d\re") == (
        Passage("a", 1),
        Passage("b\x0cc \u2028d", 3),
        Passage("e", 4),
    )
    with pytest.raises(RkzooError, match="nothing to compare"):
        SentenceEmbedder(parts, SMALL)("a")


def test_weights_come_out_of_a_zip(tmp_path: Path) -> None:
    held = weights()
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in held.items():
        offsets = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        body += array.tobytes()
    text = json.dumps(header).encode()
    found = minilm.tensors(struct.pack("<Q", len(text)) + text + body)
    assert found.keys() == held.keys()
    assert all(np.array_equal(found[name], held[name]) for name in held)
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("model.safetensors", struct.pack("<Q", len(text)) + text + body[:-4])
        archive.writestr(
            "tokenizer.json",
            json.dumps(
                {
                    "model": {
                        "type": "WordPiece",
                        "continuing_subword_prefix": "##",
                        "vocab": VOCABULARY,
                    }
                }
            ),
        )
    assert WordPiece.from_file(tmp_path / "z").encode("abca") == SMALL.encode("abca")
    with pytest.raises(RkzooError, match="no weights that can be read"):
        minilm.make_embedding({"model": tmp_path / "z"}, tmp_path / "y", SILENT)


# Recorded from Hugging Face tokenizers 0.23.3 with the published tokenizer.json.
RECORDED = [
    ("Hello, World!", [7592, 1010, 2088, 999]),
    ("don't stop", [2123, 1005, 1056, 2644]),
    ("naïve café RÉSUMÉ", [15743, 7668, 13746]),
    ("Ünïcödé İstanbul ß", [27260, 9960, 1096]),
    ("红色的公交车 bus", [100, 100, 1916, 1772, 100, 100, 3902]),
    ("a\u200bb\xadc", [5925]),
    (
        "$5.00+tax=^`~|<>",
        [1002, 1019, 1012, 4002, 1009, 4171, 1027, 1034, 1036, 1066, 1064, 1026, 1028],
    ),
    ("ΣΟΦΟΣ", [1173, 29730, 29736, 29730, 29733]),
    ("x² Ⅷ ½", [1060, 10701, 100, 1092]),
    ("हिन्दी में", [1339, 29877, 29863, 29861, 29878, 1331]),
    ("ａｂｃ１２３", [100]),
    ("antidisestablishmentarianism", [3424, 10521, 4355, 7875, 13602, 3672, 12199, 2964]),
    (
        "l'été, “quoted” — dash…",
        [1048, 1005, 3802, 2063, 1010, 1523, 9339, 1524, 1517, 11454, 1529],
    ),
    (
        "한국어 텍스트",
        [
            1469,
            30006,
            30021,
            29991,
            30014,
            30020,
            29999,
            30008,
            1467,
            30009,
            30020,
            29997,
            30017,
            30003,
            30017,
        ],
    ),
]


@pytest.mark.network
def test_the_published_model_tells_dogs_from_stocks() -> None:
    import rkzoo
    from rkzoo.zoo.catalogue import card
    from rkzoo.zoo.fetch import fetch

    tokenizer = WordPiece.from_file(fetch(card("minilm-embedding").files["vocabulary"]))
    for text, numbers in RECORDED:
        assert tokenizer.encode(text) == numbers, text
    prompts = ["A puppy runs on the grass", "The stock market fell today", "Aktien fielen"]
    with rkzoo.load("minilm", prompts=prompts) as model:
        found = model("A dog is playing in the park").to_json()["results"]
    # What the published model gives (calculated apart, by hand-written numpy).
    assert [one["cosine"] for one in found] == pytest.approx([0.367, 0.026, -0.113], abs=1e-3)
    assert [one["name"] for one in found] == prompts
