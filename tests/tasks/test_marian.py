"""Marian's translation, held to a plain calculation without pads, and SentencePiece."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from translate_graphs import SENTENCES, SmallMarian, draw_prediction, only, write_pieces

from rkzoo.contract.language import MarianHead
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.translate.beam_search import beam_search
from rkzoo.tasks.translate.bpe_tokenizer import SpecialTokens
from rkzoo.tasks.translate.marian import MarianNetwork, SentencePieceTokenizer
from rkzoo.tasks.translate.task import Translator

SMALL = SmallMarian()
END, UNKNOWN, LEAD, PAD = 0, 1, 5, 63
MARKS = SpecialTokens(start=PAD, end=END, unknown=UNKNOWN, pad=PAD, never=(PAD,))


def sessions(small: SmallMarian) -> list[OnnxSession]:
    models = small.encoder(), only(small.decoder(), "logits")
    return [OnnxSession(model.SerializeToString(), threads=1) for model in models]


NETWORK = MarianNetwork(*sessions(SMALL), MARKS, 64, (LEAD,))


def plain_scores(pieces: list[int], said: list[int]) -> np.ndarray:
    """No pad but the start, no mask, nothing behind."""
    return draw_prediction(SMALL, SMALL.rows([LEAD, *pieces, END]), SMALL.rows([PAD, *said]))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 62), min_size=1, max_size=6))
def test_the_greedy_way_with_pads_is_that_without(pieces: list[int]) -> None:
    said: list[int] = []
    while len(said) < SMALL.steps and (not said or said[-1] != END):
        scores = plain_scores(pieces, said)
        scores[[PAD] if said else [PAD, END]] = -np.inf
        said.append(int(scores.argmax()))
    ended = said[-1] == END
    found = beam_search(NETWORK, NETWORK.encode(pieces), 1, MARKS)
    assert found == (tuple(said[:-1] if ended else said), ended)


def test_scores_with_pads_are_those_without() -> None:
    assert (NETWORK.max_tokens, NETWORK.max_steps) == (6, 8)
    for pieces in ([9, 33, 4, 60, 2, 7], [12]):
        said, past, read = [7, 1, 50, 12, 31, 8, 40], NETWORK.empty_cache(), NETWORK.encode(pieces)
        for count, piece in enumerate([PAD, *said]):
            scores, past = NETWORK.step(read, piece, past)
            np.testing.assert_allclose(scores, plain_scores(pieces, said[:count]), atol=2e-4)


def test_parts_of_other_models_are_refused() -> None:
    encoder, decoder = sessions(SMALL)
    with pytest.raises(RkzooError, match="do not belong together"):
        MarianNetwork(encoder, decoder, MARKS, 65)
    with pytest.raises(RkzooError, match="do not belong together"):
        MarianNetwork(decoder, encoder, MARKS, 64)
    for small in (SmallMarian(slots=9), SmallMarian(width=16)):
        with pytest.raises(RkzooError, match="do not belong together"):
            MarianNetwork(sessions(small)[0], decoder, MARKS, 64)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    pytest.importorskip("sentencepiece")
    return write_pieces(tmp_path_factory.mktemp("pieces"))


class Echo:
    """Says what it reads, piece by piece."""

    max_tokens, max_steps = 9, 10

    def __init__(self, end: int, size: int) -> None:
        self._end, self._size = end, size

    def encode(self, pieces: list[int]) -> list[int]:
        assert 1 <= len(pieces) <= self.max_tokens
        return pieces

    def empty_cache(self) -> int:
        return 0

    def step(self, read: list[int], piece: int, past: int) -> tuple[np.ndarray, int]:
        scores = np.zeros(self._size, np.float32)
        scores[read[past] if past < len(read) else self._end] = 50
        return scores, past + 1


def test_long_texts_go_through_in_parts_and_nothing_is_lost(
    files: tuple[Path, Path, Path],
) -> None:
    pieces = SentencePieceTokenizer.from_files(*files)
    for target, text in (("de", " ".join(SENTENCES)), ("zh", SENTENCES[0])):
        echo = Echo(pieces.special_tokens.end, len(pieces))
        head = MarianHead(target=target, beams=2)
        found = Translator(head, echo, pieces)(text)
        assert found.text.replace(" ", "") == text.replace(" ", "")
        assert not any(one.unknown or one.unfinished for one in found.sentences)
        assert max(one.parts for one in found.sentences) > 1
        if target == "de":
            assert found.text == text


def test_pieces_have_the_networks_numbers(files: tuple[Path, Path, Path]) -> None:
    import sentencepiece as spm

    pieces = SentencePieceTokenizer.from_files(*files)
    table: dict[str, int] = json.loads(files[0].read_text("utf-8"))
    said = spm.SentencePieceProcessor(model_file=str(files[1])).encode(SENTENCES[1], out_type=str)
    words = pieces.encode(SENTENCES[1])
    assert [n for word in words for n in word.numbers] == [table[piece] for piece in said]
    assert [word.text for word in words][2:6] == ["day", ";", "the", "sun"]
    assert pieces.number(">>x<<") == table["<pad>"] - 1 == len(pieces) - 2
    assert pieces.special_tokens == SpecialTokens(
        len(table) - 1, 0, 1, len(table) - 1, (len(table) - 1,)
    )
    with pytest.raises(RkzooError, match="no piece >>y<<"):
        pieces.number(">>y<<")
    found = Translator(MarianHead(beams=1), Echo(0, len(pieces)), pieces)("the Жcat")
    assert found.sentences[0].unknown == ("Жcat",)
    # What the network itself has no piece for stays to be seen.
    assert "⁇" in found.text


@pytest.mark.parametrize(
    "table", ["[1]", "{", '{"</s>": 0, "<unk>": 1}', '{"</s>": 0, "<unk>": -1, "<pad>": "x"}', "3"]
)
def test_another_vocabulary_is_refused(tmp_path: Path, table: str) -> None:
    (tmp_path / "v").write_text(table)
    with pytest.raises(RkzooError, match="does not belong to a model that translates"):
        SentencePieceTokenizer.from_files(tmp_path / "v", tmp_path / "s", tmp_path / "t")


def test_another_model_is_refused_and_the_missing_library_named(
    files: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (b"", b"no model", files[1].read_bytes()[:100]):
        (tmp_path / "s").write_bytes(data)
        with pytest.raises(RkzooError, match="does not belong to a model that translates"):
            SentencePieceTokenizer.from_files(files[0], tmp_path / "s", files[2])
    with pytest.raises(RkzooError, match="cannot be read"):
        SentencePieceTokenizer.from_files(files[0], tmp_path / "gone", files[2])
    missing: Any = None
    monkeypatch.setitem(sys.modules, "sentencepiece", missing)
    with pytest.raises(RkzooError, match="cannot be tokenized") as caught:
        SentencePieceTokenizer.from_files(*files)
    assert "rkzoo[translate]" in caught.value.fix
