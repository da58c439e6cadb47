"""A model told in words what to look for answers only with those words."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ArrayInput, ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Array, Label
from rkzoo.tasks.detect.task import DetectOptions, Detector
from rkzoo.tasks.prompt.encode import TextEncoder, l2_normalize
from rkzoo.tasks.prompt.prompted import PromptedSession, Prompts, fill_slots, prompted_contract
from rkzoo.tasks.prompt.tokenizer import END, START, ClipTokenizer

SIZE = (64, 96)
STRIDES = (8, 16, 32)


class Fake:
    """Answers every picture with the same tensors, and remembers what it was fed."""

    label: Label = "onnx"

    def __init__(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], answers: Sequence[Array]
    ) -> None:
        self.inputs, self.outputs, self.answers = tuple(inputs), tuple(outputs), list(answers)
        self.fed: list[list[Array]] = []
        self.closed = False

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        self.fed.append(list(arrays))
        return list(self.answers)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Fake:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def prompts(count: int, width: int = 16, seed: int = 0) -> Prompts:
    values = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return Prompts(tuple(f"thing {i}" for i in range(count)), l2_normalize(values, "x"))


def contract(slots: int, width: int = 16) -> Contract:
    outputs = [
        HeadOutput(name=f"{role}{level}", role=role, level=level)
        for level in range(len(STRIDES))
        for role in ("score", "box")
    ]
    head = DetectHead(
        outputs=tuple(outputs), classes=slots, reg_max=1, strides=STRIDES, coding="distance"
    )
    texts = ArrayInput(name="texts", shape=(1, slots, width), role="texts")
    return Contract(family="yolo-world", picture=ImageInput(size=SIZE), head=head, others=(texts,))


def laid_out(values: NDArray[np.float32], layout: str, block: int) -> Array:
    if layout == "NHWC":
        return np.ascontiguousarray(values.transpose(0, 2, 3, 1))
    if layout == "NCHW":
        return values
    _, channels, h, w = values.shape
    blocks = -(-channels // block)
    padded = np.zeros((1, blocks * block, h, w), np.float32)
    padded[:, :channels] = values
    return np.ascontiguousarray(padded.reshape(1, blocks, block, h, w).transpose(0, 1, 3, 4, 2))


def answers(
    slots: int, layout: str, integer: bool, seed: int, silent: int
) -> tuple[list[TensorSpec], list[Array]]:
    """Random tensors of every level; classes from `silent` on score nothing."""
    random = np.random.default_rng(seed)
    specs, arrays = [], []
    for level, stride in enumerate(STRIDES):
        h, w = SIZE[0] // stride, SIZE[1] // stride
        score = random.random((1, slots, h, w)).astype(np.float32) ** 6
        score[:, silent:] = 0
        box = random.uniform(0.5, 3, (1, 4, h, w)).astype(np.float32)
        for name, values, scale in (("score", score, 1 / 256), ("box", box, 1 / 64)):
            array = laid_out(values, layout, 8)
            spec = TensorSpec(
                name=f"{name}{level}", shape=array.shape, dtype="float32", layout=layout
            )
            if integer:
                array = np.clip(np.rint(array / scale) - 128, -128, 127).astype(np.int8)
                spec = msgspec.structs.replace(spec, dtype="int8", scale=scale, zero_point=-128)
            specs.append(spec)
            arrays.append(array)
    return specs, arrays


PICTURE = [TensorSpec(name="images", shape=(1, *SIZE, 3), dtype="uint8", layout="NHWC")]
TEXTS = TensorSpec(name="texts", shape=(1, 8, 16), dtype="float32")


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(1, 40),
    data=st.data(),
    layout=st.sampled_from(["NCHW", "NHWC", "NC1HWC2"]),
    integer=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_only_the_prompts_are_answered(
    slots: int, data: st.DataObject, layout: str, integer: bool, seed: int
) -> None:
    """The same as a model whose other slots are silent."""
    count = data.draw(st.integers(1, slots))
    image = np.zeros((*SIZE, 3), np.uint8)
    options = DetectOptions(confidence=0.3, limit=1000)
    asked, whole = prompts(count), contract(slots)

    specs, arrays = answers(slots, layout, integer, seed, slots)
    session = PromptedSession(Fake([*PICTURE, TEXTS], specs, arrays), whole, asked)
    found = Detector(prompted_contract(whole, asked), session, options)(image)

    specs, arrays = answers(slots, layout, integer, seed, count)
    silent = msgspec.structs.replace(whole, others=())
    expected = Detector(silent, Fake(PICTURE, specs, arrays), options)(image)

    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    np.testing.assert_array_equal(found.score, expected.score)
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    assert found.labels == asked.words
    assert (found.class_id < count).all()


def test_the_texts_go_in_with_every_picture() -> None:
    whole, asked = contract(8), prompts(3)
    specs, arrays = answers(8, "NCHW", False, 0, 8)
    fake = Fake([*PICTURE, TEXTS], specs, arrays)
    with PromptedSession(fake, whole, asked) as session:
        assert [one.name for one in session.inputs] == ["images"]
        assert [spec.shape[1] for spec in session.outputs] == [3, 4, 3, 4, 3, 4]
        session.run([np.zeros((1, *SIZE, 3), np.uint8)])
        session.run([np.ones((1, *SIZE, 3), np.uint8)])
    assert fake.closed
    for fed in fake.fed:
        np.testing.assert_array_equal(fed[1], fill_slots(asked, whole.texts))  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(slots=st.integers(1, 90), data=st.data())
def test_every_slot_is_filled_with_a_prompt(slots: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, slots))
    asked = prompts(count, 5)
    values = fill_slots(asked, ArrayInput(name="t", shape=(1, slots, 5), role="texts"))
    assert (values.shape, values.dtype) == ((1, slots, 5), np.float32)
    for slot in range(slots):
        np.testing.assert_array_equal(values[0, slot], asked.embeddings[slot % count])


def test_what_does_not_fit_is_refused() -> None:
    texts = ArrayInput(name="texts", shape=(1, 4, 16), role="texts")
    with pytest.raises(RkzooError, match="5 prompts were given, but the model takes 4"):
        fill_slots(prompts(5), texts)
    with pytest.raises(RkzooError, match="8 numbers each, but the model takes 16"):
        fill_slots(prompts(2, 8), texts)
    with pytest.raises(RkzooError, match="No prompt"):
        fill_slots(Prompts((), np.empty((0, 16), np.float32)), texts)
    with pytest.raises(ValueError, match="number of words"):
        Prompts(("one",), np.ones((2, 4), np.float32))
    labelled = msgspec.structs.replace(contract(4), labels=("only",))
    with pytest.raises(RkzooError, match="2 prompts were given, but 1 labels"):
        prompted_contract(labelled, prompts(2))


# ---- the text encoder ---------------------------------------------------------------

TOKENIZER = ClipTokenizer([("a", "b</w>")])
IDS = TensorSpec(name="input_ids", shape=(1, 6), dtype="int64")
MASK = TensorSpec(name="attention_mask", shape=(1, 6), dtype="int32")
EMBEDDING = TensorSpec(name="text_embeds", shape=(1, 4), dtype="float32")
HIDDEN = TensorSpec(name="last_hidden_state", shape=(1, 6, 4), dtype="float32")
ANSWER: Any = np.array([[3.0, 0.0, 4.0, 0.0]], np.float32)


def test_an_embedding_has_length_one_and_the_tokens_their_end() -> None:
    fake = Fake([IDS], [HIDDEN, EMBEDDING], [np.zeros((1, 6, 4), np.float32), ANSWER])
    encode = TextEncoder(fake, TOKENIZER)
    found = encode(["ab", "a b a b"])
    np.testing.assert_allclose(found, [[0.6, 0, 0.8, 0]] * 2, rtol=1e-6)
    short, long = (fed[0] for fed in fake.fed)
    assert short.dtype == np.int64
    assert short.tolist() == [[START, 512, END, END, END, END]]
    assert (long.shape, long[0, 0], long[0, -1]) == ((1, 6), START, END)
    with pytest.raises(RkzooError, match="are too long"):
        encode(["a b a b a"])


def test_a_mask_covers_the_words_and_their_end() -> None:
    fake = Fake([MASK, IDS], [EMBEDDING], [ANSWER])
    TextEncoder(fake, TOKENIZER)(["ab"])
    mask, ids = fake.fed[0]
    assert (mask.dtype, ids.dtype) == (np.int32, np.int64)
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0]]
    assert ids[0, 0] == START


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([TEXTS], [EMBEDDING]),
        ([], [EMBEDDING]),
        ([IDS, IDS], [EMBEDDING]),
        ([IDS, MASK, MASK], [EMBEDDING]),
        ([IDS], [HIDDEN]),
        ([IDS], [msgspec.structs.replace(EMBEDDING, name=n) for n in ("a", "b")]),
        ([msgspec.structs.replace(IDS, shape=(1, 2))], [EMBEDDING]),
    ],
)
def test_another_model_is_refused(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> None:
    with pytest.raises(RkzooError, match="not a CLIP text encoder"):
        TextEncoder(Fake(inputs, outputs, []), TOKENIZER)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_answer_without_direction_is_refused(value: float) -> None:
    fake = Fake([IDS], [EMBEDDING], [np.full((1, 4), value, np.float32)])
    with pytest.raises(RkzooError, match="is not an embedding"):
        TextEncoder(fake, TOKENIZER)(["ab"])
