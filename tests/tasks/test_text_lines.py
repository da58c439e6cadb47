"""Reading and turning lines: CTC, buckets, splitting, batches, angles."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text_fakes import FakeSession, cls_contract, det_contract, rec_contract, spec

from rkzoo.contract.text import TextClsHead, TextRecHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.text import classify_angle, read_line
from rkzoo.tasks.text.classify_angle import AngleClassifier
from rkzoo.tasks.text.line_batches import WIDEST, bucket, split_columns, split_lines, width_at
from rkzoo.tasks.text.read_line import LineReader, RecognizedText, joined

LABELS = ("", "a", "b", "c", " ", "中")


def one_hot(classes: np.ndarray, top: np.ndarray) -> np.ndarray:
    scores = np.full((*classes.shape, len(LABELS)), 0.0, np.float32)
    np.put_along_axis(scores, classes[..., None], top[..., None].astype(np.float32), axis=2)
    return scores


@given(data=st.data())
def test_ctc_is_the_textbook_rule(data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 20))
    classes = np.array(data.draw(st.lists(st.integers(0, 5), min_size=steps, max_size=steps)))
    top = np.array(data.draw(st.lists(st.floats(0.2, 1), min_size=steps, max_size=steps)))
    scores = one_hot(classes[None], top[None])
    wanted = "".join(LABELS[c] for c, _ in itertools.groupby(classes) if c)
    kept = [t for t, c in enumerate(classes) if c != 0 and (t == 0 or classes[t - 1] != c)]
    reading = read_line.postprocess([scores], [spec()], TextRecHead(), LABELS)[0]
    assert reading.text == wanted
    assert reading.count == len(kept)
    assert reading.score == pytest.approx(float(np.mean(top[kept])) if kept else 0.0, abs=1e-6)


@given(seed=st.integers(0, 2**32 - 1))
def test_ctc_reads_integers_like_floats(seed: int) -> None:
    q = np.random.default_rng(seed).integers(-128, 128, (3, 9, len(LABELS))).astype(np.int8)
    values = (q.astype(np.float32) + 128) * np.float32(1 / 255)
    integers = read_line.postprocess([q], [spec(1 / 255, -128)], TextRecHead(), LABELS)
    floats = read_line.postprocess([values], [spec()], TextRecHead(), LABELS)
    for a, b in zip(integers, floats, strict=True):
        assert a.text == b.text
        assert a.score == pytest.approx(b.score, abs=1e-5)


@pytest.mark.parametrize("blank", [0, 5])
def test_the_blank_may_be_any_class(blank: int) -> None:
    classes = np.array([[blank, 1, blank, 1, 1, 2, blank]])
    scores = one_hot(classes, np.full(classes.shape, 0.9))
    labels = ("x", "a", "b", "c", " ", "y")
    assert (
        read_line.postprocess([scores], [spec()], TextRecHead(blank=blank), labels)[0].text == "aab"
    )


def test_a_foreign_dictionary_is_refused() -> None:
    with pytest.raises(RkzooError, match="list of characters"):
        read_line.postprocess([np.zeros((1, 4, 9), np.float32)], [spec()], TextRecHead(), LABELS)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_buckets_fit_and_are_few(a: int, b: int) -> None:
    low, high = sorted((bucket(a, 320, WIDEST), bucket(b, 320, WIDEST)))
    for width, size in ((a, bucket(a, 320, WIDEST)), (b, bucket(b, 320, WIDEST))):
        assert size >= min(width, WIDEST)
        assert size % 32 == 0
        assert 320 <= size <= WIDEST
        assert size <= max(320, width * 1.25 + 32)
    assert (a <= b) == (bucket(a, 320, WIDEST) <= bucket(b, 320, WIDEST)) or low == high


def test_there_are_few_buckets() -> None:
    assert len({bucket(width, 320, WIDEST) for width in range(1, WIDEST + 1)}) <= 12


def ruled_line(word_widths: list[int], gap: int, height: int = 48) -> tuple[np.ndarray, list[int]]:
    """Black words on white; returns the picture and the middles of the gaps."""
    width = sum(word_widths) + gap * (len(word_widths) + 1)
    line = np.full((height, width, 3), 255, np.uint8)
    x, gaps = gap, []
    for word in word_widths:
        # Letters: strokes with one white column between.
        for column in range(x, x + word):
            if column % 4:
                line[12:36, column] = 0
        x += word
        gaps.append(x + gap // 2)
        x += gap
    return line, gaps[:-1]


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.integers(30, 110), min_size=2, max_size=14),
    height=st.sampled_from([24, 48, 95]),
)
@example(words=[46, 110, 110, 30, 30, 50, 110], height=48)  # the gap goes on outside the window
def test_long_lines_are_cut_between_words(words: list[int], height: int) -> None:
    line, gaps = ruled_line(words, 16)
    line = cv2.resize(line, (line.shape[1] * height // 48, height), interpolation=cv2.INTER_AREA)
    cuts = split_columns(line, 48, 320)
    assert (len(cuts) > 0) == (width_at(line, 48) > 320)
    for column, gap in cuts:
        place = column * 48 / height
        assert min(abs(place - middle) for middle in gaps) <= 8
        assert gap


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(3, 120),
    width=st.integers(1, 3000),
    widest=st.sampled_from([160, 320, 640]),
    seed=st.integers(0, 99),
)
def test_pieces_cover_the_line_and_fit(height: int, width: int, widest: int, seed: int) -> None:
    line = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    found = split_lines([line], 48, widest)
    whole = np.hstack([piece.image for piece in found])
    assert whole.shape[1] == (width if height < 96 else max(1, round(width * 48 / height)))
    if height < 96:
        np.testing.assert_array_equal(whole, line)
    # A source column may already be wider than one pixel of the input.
    slack = 1 + 2 * 48 // whole.shape[0]
    assert all(width_at(piece.image, 48) <= widest + slack for piece in found)
    assert all(piece.image.shape[1] > 0 for piece in found)


def test_pieces_of_an_even_line_are_level() -> None:
    line = np.zeros((48, 700, 3), np.uint8)
    widths = [piece.image.shape[1] for piece in split_lines([line], 48, 320)]
    assert max(widths) - min(widths) < 120
    assert len(widths) == 3


def test_joining_puts_spaces_between_latin_words_only() -> None:
    line = np.zeros((48, 900, 3), np.uint8)
    parts = split_lines([line, line], 48, 320)
    count = len(parts) // 2
    said = [RecognizedText("ab", 0.5, 2)] + [RecognizedText("c", 0.8, 1)] * (count - 1)
    said += [RecognizedText("中", 1.0, 1)] * count
    read = joined(2, parts, said)
    assert read[0].text == " ".join(["ab"] + ["c"] * (count - 1))
    assert read[0].score == pytest.approx((2 * 0.5 + 0.8 * (count - 1)) / (count + 1))
    assert read[1].text == "中" * count


def test_an_empty_piece_does_not_lower_the_score() -> None:
    parts = split_lines([np.zeros((48, 600, 3), np.uint8)], 48, 320)
    read = joined(1, parts, [RecognizedText("", 0.0, 0), RecognizedText("b", 0.9, 1)])
    assert read == [RecognizedText("b", 0.9, 1)]


def shade_reader(batch: np.ndarray) -> np.ndarray:
    """A recogniser that says `a`, `b` or `c` for each picture by its brightness."""
    level = batch[:, 24, 4, 0].astype(int) // 60 % 3 + 1
    classes = np.zeros((len(batch), batch.shape[2] // 8), int)
    classes[:, 0] = level
    return one_hot(classes, np.full(classes.shape, 0.9))


def shades(widths: list[int], levels: list[int]) -> list[np.ndarray]:
    return [
        np.full((30, width, 3), level * 60 + 5, np.uint8)
        for width, level in zip(widths, levels, strict=True)
    ]


@settings(max_examples=30, deadline=None)
@given(data=st.data(), batch=st.sampled_from([-1, 1, 4]))
def test_every_line_gets_its_own_reading(data: st.DataObject, batch: int) -> None:
    widths = data.draw(st.lists(st.integers(5, 1200), max_size=12))
    levels = data.draw(st.lists(st.integers(0, 2), min_size=len(widths), max_size=len(widths)))
    session = FakeSession((batch, 48, -1, 3), shade_reader)
    read = LineReader(rec_contract(LABELS), session)(shades(widths, levels))
    assert [reading.text for reading in read] == ["abc"[level] for level in levels]
    assert all(shape[2] % 32 == 0 and shape[2] >= 320 for shape in session.seen)
    # Lines of one width go together where the batch is free.
    if batch == -1:
        assert len(session.seen) <= len(widths)
        assert all(shape[0] * shape[2] <= 320 * 6 or shape[0] == 1 for shape in session.seen)


def test_a_fixed_width_splits_and_joins() -> None:
    session = FakeSession((1, 48, 320, 3), shade_reader)
    read = LineReader(rec_contract(LABELS), session)(shades([570, 40], [1, 2]))
    assert read[1].text == "c"
    assert set(read[0].text.replace(" ", "")) == {"b"}
    assert len(session.seen) == 4  # 912 pixels are three pieces
    assert all(shape == (1, 48, 320, 3) for shape in session.seen)


def test_the_aspect_is_kept_and_the_pad_is_the_contracts() -> None:
    reader = LineReader(rec_contract(LABELS), FakeSession((-1, 48, -1, 3), shade_reader))
    batch = reader.preprocess([np.full((24, 50, 3), 200, np.uint8)], 320)
    assert np.all(batch[0, :, :100] == 200)
    assert np.all(batch[0, :, 100:] == 127)


@pytest.mark.parametrize("fixed", [-1, 1, 3])
def test_angles_of_many_lines(fixed: int) -> None:
    def answer(batch: np.ndarray) -> np.ndarray:
        upside = (batch[:, 24, 4, 0] > 128).astype(np.float32) * 0.95
        return np.stack([1 - upside, upside], axis=1)

    session = FakeSession((fixed, 48, 192, 3), answer)
    lines = shades([40, 300, 90, 700, 20], [0, 3, 3, 0, 3])
    angles = AngleClassifier(cls_contract(), session)(lines)
    assert angles.tolist() == [0, 180, 180, 0, 180]
    assert AngleClassifier(cls_contract(), session)([]).shape == (0,)


def test_an_unsure_angle_is_zero() -> None:
    scores = np.array([[0.2, 0.8], [0.05, 0.95], [0.9, 0.1]], np.float32)
    head = TextClsHead(threshold=0.9)
    assert classify_angle.postprocess([scores], [spec()], head).tolist() == [0, 180, 0]
    q = np.round(scores * 255 - 128).astype(np.int8)
    assert classify_angle.postprocess([q], [spec(1 / 255, -128)], head).tolist() == [0, 180, 0]


def test_another_count_of_angles_is_refused() -> None:
    with pytest.raises(RkzooError, match="4 scores"):
        classify_angle.postprocess([np.zeros((1, 4), np.float32)], [spec()], TextClsHead())


def test_other_heads_are_refused() -> None:
    session = FakeSession((1, 48, 192, 3), lambda batch: batch)
    with pytest.raises(RkzooError, match="not a text angle"):
        AngleClassifier(det_contract(), session)
    with pytest.raises(RkzooError, match="not a text recognition"):
        LineReader(det_contract(), session)
