"""The best path of a plate, against every path there is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.text import PlateHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.ctc import collapse_repeats
from rkzoo.tasks.plate.ctc import allowed, best_path
from rkzoo.tasks.plate.task import PlateReader, postprocess

LABELS = ("皖", "A", "7", "-")
BLANK = 3


def text_of(path: np.ndarray) -> str:
    return "".join(LABELS[i] for i in path[collapse_repeats(path, BLANK)])


def by_definition(path: tuple[int, ...]) -> str:
    """CTC as it is defined: merge repeats, then drop blanks."""
    kept = [c for i, c in enumerate(path) if i == 0 or c != path[i - 1]]
    return "".join(LABELS[c] for c in kept if c != BLANK)


def logs_of(path: list[int]) -> np.ndarray:
    logs = np.full((4, len(path)), -9.0)
    logs[path, np.arange(len(path))] = 0
    return logs


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        # The original's Python loses the first of these, its C++ merges the true double.
        ([1, 1, 3, 2, 2], "A7"),
        ([3, 1, 3, 1, 2], "AA7"),
        ([3, 3, 3], ""),
        ([0, 1, 2, 2], "皖A7"),
        ([2], "7"),
    ],
)
def test_repeats_merge_and_blanks_part(steps: list[int], text: str) -> None:
    assert text_of(best_path(logs_of(steps), BLANK)) == text == by_definition(tuple(steps))


scores = st.lists(
    st.lists(st.integers(-1000, 0), min_size=4, max_size=4), min_size=1, max_size=5
).map(lambda rows: np.array(rows, np.float64).T / 100)
layouts = st.lists(st.text("PLDA", min_size=1, max_size=3), min_size=0, max_size=2)


@settings(max_examples=150, deadline=None)
@given(scores, layouts)
def test_the_likeliest_path_that_spells_a_layout_is_found(
    logs: np.ndarray, kinds: list[str]
) -> None:
    fits = {"P": "皖", "L": "A", "D": "7", "A": "A7"}
    wanted = [{"".join(t) for t in product(*(fits[k] for k in kind))} for kind in kinds]
    paths = list(product(range(4), repeat=logs.shape[1]))
    value = {p: float(sum(logs[c, t] for t, c in enumerate(p))) for p in paths}
    good = [p for p in paths if any(by_definition(p) in texts for texts in wanted)]
    path = best_path(logs, BLANK, [allowed(kind, LABELS, BLANK) for kind in kinds])
    found = tuple(int(c) for c in path)
    assert text_of(path) == by_definition(found)
    # Where nothing fits into so few steps, the plain best path.
    assert value[found] == pytest.approx(max(value[p] for p in (good or paths)))
    assert not good or found in set(good)


def test_layouts_leave_out_the_letters_that_plates_avoid() -> None:
    labels = ("京", "0", "A", "I", "O", "Z", "K", "-")
    table = allowed("PLDAE", labels, 7)
    assert [[labels[i] for i in np.flatnonzero(row)] for row in table] == [
        ["京"],
        ["A", "Z", "K"],
        ["0"],
        ["0", "A", "Z", "K"],
        ["A", "K"],
    ]


def test_the_score_is_the_mean_probability_of_the_characters() -> None:
    logits = np.log(np.array([[0.7, 0.1], [0.1, 0.1], [0.1, 0.6], [0.1, 0.2]]))[None]
    specs = [TensorSpec(name="o", shape=(1, 4, 2), dtype="float32")]
    text, score = postprocess([logits.astype(np.float32)], specs, BLANK, LABELS)
    assert text == "皖7"
    assert score == pytest.approx(0.65, abs=1e-5)


def test_integers_read_as_their_floats_do() -> None:
    quantised = np.random.default_rng(0).integers(-128, 128, (1, 4, 6)).astype(np.int8)
    whole = TensorSpec(name="o", shape=(1, 4, 6), dtype="int8", scale=0.1, zero_point=-3)
    plain = TensorSpec(name="o", shape=(1, 4, 6), dtype="float32")
    floats = ((quantised.astype(np.float32) + 3) * np.float32(0.1)).astype(np.float32)
    assert postprocess([quantised], [whole], BLANK, LABELS) == postprocess(
        [floats], [plain], BLANK, LABELS
    )


def test_a_list_of_characters_of_another_model_is_refused() -> None:
    specs = [TensorSpec(name="o", shape=(1, 5, 6), dtype="float32")]
    with pytest.raises(RkzooError, match="1x5x6 scores for 4 characters"):
        postprocess([np.zeros((1, 5, 6), np.float32)], specs, BLANK, LABELS)


class Fixed:
    """A session that always gives the same tensor."""

    label = "onnx"
    inputs = ()

    def __init__(self, *arrays: np.ndarray) -> None:
        self.arrays = list(arrays)
        self.outputs = tuple(
            TensorSpec(name=str(i), shape=a.shape, dtype="float32") for i, a in enumerate(arrays)
        )

    def run(self, arrays: object) -> list[np.ndarray]:
        return self.arrays


def test_a_plate_is_one_line_as_large_as_the_picture() -> None:
    contract = Contract(
        family="lprnet",
        picture=ImageInput(size=(24, 94), fit="stretch"),
        head=PlateHead(blank=BLANK, layouts=("PL",)),
        labels=LABELS,
    )
    logits = logs_of([0, 3, 2, 3]).astype(np.float32)[None]
    picture = np.zeros((30, 100, 3), np.uint8)
    found = PlateReader(contract, Fixed(logits))(picture)  # type: ignore[arg-type]
    # 7 is no letter: the layout makes an A of it.
    assert found.texts == ("皖A",)
    assert found.quads.tolist() == [[[0, 0], [100, 0], [100, 30], [0, 30]]]
    blank = PlateReader(contract, Fixed(np.zeros((1, 4, 1), np.float32)))  # type: ignore[arg-type]
    assert blank(picture).texts != ("皖A",)  # two characters do not fit into one step
