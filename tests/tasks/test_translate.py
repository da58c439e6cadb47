"""Translation, held to a plain calculation without caches, pads or masks, and to subword-nmt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from translate_graphs import Small, place_of, plain_scores

from rkzoo.contract.language import TranslateHead
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.translate.beam_search import beam_search
from rkzoo.tasks.translate.bpe_tokenizer import BpeTokenizer
from rkzoo.tasks.translate.fairseq import FairseqNetwork, KvCache, read_table, sinusoids
from rkzoo.tasks.translate.result import Translation
from rkzoo.tasks.translate.task import Translator
from rkzoo.tasks.translate.words import sentences, text_of, words_of

SMALL = Small()


def network(small: Small = SMALL) -> FairseqNetwork:
    parts = (
        OnnxSession(made.SerializeToString(), threads=1)
        for made in (small.encoder(), small.decoder())
    )
    return FairseqNetwork(*parts, small.weights["table"])


NETWORK = network()


def log_probabilities(pieces: list[int], said: list[int]) -> np.ndarray:
    scores = plain_scores(SMALL, pieces, said)
    scores[[0, 1, 3]] = -np.inf
    if not said:
        scores[2] = -np.inf
    powers = np.exp(scores - scores.max())
    with np.errstate(divide="ignore"):
        return np.log(powers / powers.sum())


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(4, 63), min_size=1, max_size=7))
def test_the_greedy_way_with_caches_is_that_without(pieces: list[int]) -> None:
    said: list[int] = []
    while len(said) < SMALL.steps and (not said or said[-1] != 2):
        said.append(int(np.argmax(log_probabilities(pieces, said))))
    ended = said[-1] == 2
    found = beam_search(NETWORK, NETWORK.encode(pieces), 1)
    assert found == (tuple(said[:-1] if ended else said), ended)


def test_scores_with_caches_are_those_without() -> None:
    pieces, said = [9, 33, 4, 60], [7, 7, 50, 12, 31, 8, 40]
    read, past = NETWORK.encode(pieces), NETWORK.empty_cache()
    for count, piece in enumerate([2, *said]):
        scores, past = NETWORK.step(read, piece, past)
        np.testing.assert_allclose(scores, plain_scores(SMALL, pieces, said[:count]), atol=2e-4)


def every_text(small: Small, pieces: list[int], most: int) -> list[tuple[float, tuple[int, ...]]]:
    """All that can be said in `most` pieces, the end among them, with its logarithm."""
    found: list[tuple[float, tuple[int, ...]]] = []
    open_ones: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(most):
        longer = []
        for log, said in open_ones:
            scores = plain_scores(small, pieces, list(said))
            scores[[0, 1, 3] if said else [0, 1, 2, 3]] = -np.inf
            logs = scores - scores.max()
            logs = logs - np.log(np.exp(logs).sum())
            longer += [(log + logs[piece], (*said, piece)) for piece in np.flatnonzero(logs > -99)]
        found += [one for one in longer if one[1][-1] == 2 or len(one[1]) == most]
        open_ones = [one for one in longer if one[1][-1] != 2]
    return found


def test_as_many_beams_as_texts_find_the_best_of_all() -> None:
    # Vocabulary and length so small that every text can be weighed.
    small = Small(slots=4, steps=4, width=8, pieces=8, seed=5)
    net = network(small)
    outcomes = set()
    for pieces in ([4], [6, 5], [7, 4, 5], [5, 5, 5], [7]):
        texts = every_text(small, pieces, 4)
        ended = [(log / len(said), said[:-1]) for log, said in texts if said[-1] == 2]
        going = [(log / len(said), said) for log, said in texts if said[-1] != 2]
        open_end = max(log for log, said in texts if said[-1] != 2)
        finished = open_end <= max(log for log, said in texts if said[-1] == 2)
        outcomes.add(finished)
        wanted = max(ended if finished else going)[1]
        assert beam_search(net, net.encode(pieces), 2000) == (wanted, finished)
    assert outcomes == {True, False}


def test_places_are_fairseqs() -> None:
    table = sinusoids(20, 32)
    assert not table[1].any()
    for place in (2, 3, 19):
        np.testing.assert_allclose(table[place], place_of(place, 32), atol=1e-6)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("subwords")
    merges, dictionary = folder / "bpe.txt", folder / "dict.txt"
    merges.write_text("#version: 0.2\nl o\nlo w\ne r</w>\nn e\nne w\ne s\nes t</w>\nlow er</w>\n")
    dictionary.write_text(
        "low@@ 9\nest\nlow\nnew@@\ner\nn@@\ne@@\nw@@\nw\nl@@\no@@\ns@@\nt\nr\n的@@\n,\n"
    )
    return merges, dictionary


# Recorded from subword-nmt 0.3.8 with these merges, and this dictionary as its vocabulary.
RECORDED = {
    "low": "l@@ o@@ w",
    "lowest": "low@@ est",
    "lower": "low@@ er",
    "newer": "new@@ er",
    "news": "new@@ s",
    "的low": "的@@ l@@ o@@ w",
    "w": "w",
    "slow": "s@@ l@@ o@@ w",
    "est": "est",
    "nest": "n@@ e@@ s@@ t",
}


def test_pieces_are_those_of_subword_nmt(files: tuple[Path, Path]) -> None:
    known = BpeTokenizer.from_files(*files)
    for word, pieces in RECORDED.items():
        assert " ".join(known.pieces(word)) == pieces
    assert known.numbers(["low@@", "est", "?"]) == [4, 5, 3]


@settings(max_examples=100, deadline=None)
@given(st.text("lowernst的é", min_size=1, max_size=12))
def test_pieces_spell_their_word(word: str) -> None:
    known = BpeTokenizer([("l", "o"), ("lo", "w</w>"), ("e", "r"), ("n", "e")], ["lo@@", "w", "的"])
    joined = "".join(piece.removesuffix("@@") for piece in known.pieces(word))
    assert joined == word
    assert [piece.endswith("@@") for piece in known.pieces(word)][-1] is False


# Recorded from sacremoses 0.2.0: normalised, then tokenised.
TOKENISED = {
    "Don't worry: it's the U.S. economy (again), isn't it?": (
        "Don &apos;t worry : it &apos;s the U.S. economy ( again ) , isn &apos;t it ?"
    ),
    '3.5% of $1,000.50 "real" money...': "3.5 % of $ 1,000.50 &quot; real &quot; money ...",
    "Mr. Smith's dog barked at Dr. No.": "Mr. Smith &apos;s dog barked at Dr. No .",
    "The 1990's were good, weren't they?": "The 1990 &apos;s were good , weren &apos;t they ?",
    "rock 'n' roll & [jazz] <b> a|b": (
        "rock &apos; n &apos; roll &amp; &#91; jazz &#93; &lt; b &gt; a &#124; b"
    ),
    "Well-known facts - and others; e.g. this one, i.e. that.": (
        "Well-known facts - and others ; e.g. this one , i.e. that ."
    ),
    "“Quoted” – he said — it’s fine…": ("&quot; Quoted &quot; - he said - it &apos;s fine ..."),
    "a,b and 1,000 and 3, 4": "a , b and 1,000 and 3 , 4",
    "The students' books. And more": "The students &apos; books . And more",
}


def test_words_are_those_of_moses() -> None:
    for text, words in TOKENISED.items():
        assert " ".join(words_of(text)) == words


@settings(max_examples=200, deadline=None)
@given(st.text("ab C.,!?'\"()[]&|1-…“—。", max_size=40))
def test_no_character_is_lost_on_the_way_to_words(line: str) -> None:
    whole = "".join(sentences(line))
    assert "".join(whole.split()) == "".join(line.split())
    for sentence in sentences(line):
        back = "".join(text_of(words_of(sentence), "zh").split())
        plain = sentence.replace("…", "...").replace("“", '"').replace("—", "-")
        assert back == "".join(plain.split())


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three?", 3),
        ("Mr. Smith met J. K. Rowling. They spoke.", 2),
        ("It costs 3.5 dollars. no end here", 1),
        ("第一。第二。", 2),
        ('He said "no." Then he left.', 2),
        ("...", 1),
        ("", 0),
    ],
)
def test_sentences(line: str, count: int) -> None:
    assert len(sentences(line)) == count


LETTERS = "abcdefghijklmnopqrstuvwxyz"
# 60 pieces: letters that end a word, letters that do not, and marks.
DICTIONARY = [*LETTERS, *(f"{letter}@@" for letter in LETTERS), *",.!?:;-", "A"]
SUBWORDS = BpeTokenizer([], DICTIONARY)


def translated(text: str, beams: int = 1, source: Translator | None = None) -> Translation:
    head = TranslateHead(source="en", target="en", beams=beams)
    return (source or Translator(head, NETWORK, SUBWORDS))(text)


def test_a_short_sentence_is_what_the_network_says() -> None:
    numbers = SUBWORDS.numbers(["h", "e@@", "y", "."])
    said, ended = beam_search(NETWORK, NETWORK.encode(numbers), 1)
    (sentence,) = translated("H ey.").sentences
    if ended:
        assert sentence.parts == 1
        assert sentence.translation == text_of(SUBWORDS.words(said), "en")


class Echo:
    """Says what it reads, piece by piece; comes to no end where it reads more than `most`."""

    max_tokens, max_steps = 7, 8

    def __init__(self, most: int = 7) -> None:
        self.most = most
        self.heard: list[list[int]] = []

    def encode(self, pieces: list[int]) -> list[int]:
        assert 1 <= len(pieces) <= self.max_tokens
        self.heard.append(pieces)
        return pieces

    def empty_cache(self) -> KvCache:
        return KvCache(())

    def step(self, read: list[int], piece: int, past: KvCache) -> tuple[np.ndarray, KvCache]:
        scores = np.zeros(len(SUBWORDS), np.float32)
        done = past.count == len(read) and len(read) <= self.most
        scores[2 if done else read[min(past.count, len(read) - 1)]] = 50
        return scores, KvCache((), past.count + 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abcxyz", min_size=1, max_size=11), min_size=1, max_size=12),
    st.sampled_from([1, 3]),
    st.integers(1, 7),
)
def test_nothing_of_a_long_text_is_lost(words: list[str], beams: int, most: int) -> None:
    text = " ".join(words)
    echo = Echo(most)
    head = TranslateHead(source="en", target="en", beams=beams)
    found = Translator(head, echo, SUBWORDS)(text)  # type: ignore[arg-type]
    assert found.text.replace(" ", "") == text.replace(" ", "")
    assert not any(sentence.unfinished or sentence.unknown for sentence in found.sentences)
    if sum(map(len, words)) <= most:
        assert found.text == text
        assert found.sentences[0].parts == 1


def test_long_sentences_part_at_marks_and_phrases() -> None:
    echo = Echo()
    head = TranslateHead(source="en", target="en", beams=1)
    found = Translator(head, echo, SUBWORDS)("a b c d, e f g h i! J k")  # type: ignore[arg-type]
    assert [SUBWORDS.words(part) for part in echo.heard] == [
        list("abcd,"),
        list("efghi!"),
        list("jk"),
    ]
    assert found.text == "a b c d, e f g h i! j k"
    assert [sentence.parts for sentence in found.sentences] == [2, 1]


def test_lines_stay_and_the_unknown_is_named(tmp_path: Path) -> None:
    head = TranslateHead(source="en", target="en", beams=1)
    found = Translator(head, Echo(), SUBWORDS)("a b\n\nc Ж d")  # type: ignore[arg-type]
    assert found.text.split("\n")[:2] == ["a b", ""]
    assert found.sentences[1].unknown == ("Ж",)
    assert any("Ж" in line for line in found.lines())
    found.save(tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_text("utf-8") == found.text + "\n"
    with pytest.raises(RkzooError, match="nothing to translate"):
        Translator(head, Echo(), SUBWORDS)(" \n ")  # type: ignore[arg-type]


def test_a_sentence_begins_in_its_commoner_case() -> None:
    echo = Echo()
    Translator(TranslateHead(), echo, SUBWORDS)("B b! A b!")  # type: ignore[arg-type]
    assert [SUBWORDS.words(part) for part in echo.heard] == [list("bb!"), list("ab!")]


@pytest.mark.parametrize(
    ("merges", "dictionary", "what"),
    [
        (b"l o\n", b"a\n", "does not belong"),
        (b"#version: 0.2\nl o w\n", b"a\n", "does not belong"),
        (b"", b"a\n", "does not belong"),
        (b"#version: 0.2\n\xff\n", b"a\n", "does not belong"),
        (b"#version: 0.2\nl o\n", b"a\n\nb\n", "does not belong"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, merges: bytes, dictionary: bytes, what: str
) -> None:
    (tmp_path / "m").write_bytes(merges)
    (tmp_path / "d").write_bytes(dictionary)
    with pytest.raises(RkzooError, match=what):
        BpeTokenizer.from_files(tmp_path / "m", tmp_path / "d")
    with pytest.raises(RkzooError, match="cannot be read"):
        BpeTokenizer.from_files(tmp_path / "gone", tmp_path / "d")


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(bytes(4 * 10 * 3 + 1))
    with pytest.raises(RkzooError, match="does not belong to this dictionary"):
        read_table(tmp_path / "t", 10)
    (tmp_path / "t").write_bytes(np.arange(30, dtype="<f4").tobytes())
    assert read_table(tmp_path / "t", 10)[2].tolist() == [6, 7, 8]
    parts = [OnnxSession(m.SerializeToString()) for m in (SMALL.encoder(), SMALL.decoder())]
    with pytest.raises(RkzooError, match="do not belong together"):
        FairseqNetwork(parts[0], parts[1], np.zeros((10, 3), np.float32))
