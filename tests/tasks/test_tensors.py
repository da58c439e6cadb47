"""Plain tensors: samples to arrays, outputs by name, and how they are kept and scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rkzoo.accuracy import answers
from rkzoo.accuracy.agreement import agreement
from rkzoo.accuracy.tensors import Measured, interval
from rkzoo.contract.inputs import ArrayInput, ImageInput, TensorSpec
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.tensors.feed import arrays_of, as_given, input_specs, made
from rkzoo.tasks.tensors.result import Tensors
from rkzoo.tasks.tensors.task import TensorTask

IMAGE = ImageInput(size=(4, 6), fit="stretch", mean=(10, 20, 30), std=(2, 4, 8))
IDS = ArrayInput(name="ids", shape=(1, 5), dtype="int64")
BOTH = Contract(
    family="plain tensors", head=TensorsHead(picture="shot"), picture=IMAGE, others=(IDS,)
)
RANDOM = np.random.default_rng(0)
SHOT = RANDOM.integers(0, 256, (4, 6, 3), np.uint8)


def test_a_sample_becomes_arrays_in_the_order_of_the_session() -> None:
    shot, ids = arrays_of({"ids": np.arange(5), "shot": SHOT}, BOTH)
    np.testing.assert_array_equal(shot, SHOT[None, ..., ::-1])  # the model's RGB
    assert (ids.shape, ids.dtype) == ((1, 5), np.int64)


def test_normalised_floats_are_taken_back_to_their_pixels() -> None:
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (IMAGE.mean, IMAGE.std))
    floats = (SHOT[..., ::-1].transpose(2, 0, 1) - mean) / std
    (shot, _) = arrays_of({"ids": np.arange(5), "shot": floats}, BOTH)
    np.testing.assert_array_equal(shot, SHOT[None, ..., ::-1])
    with pytest.raises(RkzooError, match="no picture becomes"):
        arrays_of({"ids": np.arange(5), "shot": floats + 0.2}, BOTH)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"shot": SHOT}, "lacks ids"),
        ({"shot": SHOT, "ids": np.arange(5), "more": SHOT}, "names more"),
        ({"shot": SHOT, "ids": np.arange(6)}, "array of 6"),
        ({"shot": SHOT, "ids": np.arange(5) + 0.5}, "fractions"),
        ({"shot": SHOT[..., :2], "ids": np.arange(5)}, "no picture"),
        (SHOT, "lacks shot"),
    ],
)
def test_what_does_not_fit_is_refused(sample, words: str) -> None:
    with pytest.raises(RkzooError, match=words):
        arrays_of(sample, BOTH)


@pytest.mark.parametrize("color", ["RGB", "BGR", "GRAY", "RGBA", "BGRA"])
def test_what_a_session_takes_goes_back_and_comes_again(color: str) -> None:
    count = {"GRAY": 1, "RGBA": 4, "BGRA": 4}.get(color, 3)
    image = ImageInput(size=(4, 6), color=color, mean=(0,) * count, std=(1,) * count)  # type: ignore[arg-type]
    contract = Contract(family="x", head=TensorsHead(picture="a"), picture=image)
    fed = RANDOM.integers(0, 256, (4, 6, count), np.uint8)
    (again,) = arrays_of({"a": as_given(fed, image)}, contract)
    np.testing.assert_array_equal(again[0], fed)


def test_a_made_sample_fits_its_model_and_is_the_same_each_time() -> None:
    sample = made(BOTH)
    assert list(sample) == list(input_specs(BOTH)) == ["shot", "ids"]
    for a, b in zip(arrays_of(sample, BOTH), arrays_of(made(BOTH), BOTH), strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(np.unique(sample["ids"])) <= {0, 1}


class Fixed:
    """A session that answers the same always: codes, half floats and whole numbers."""

    label = "simulator"
    inputs = ()
    outputs = (
        TensorSpec(name="codes", shape=(1, 2, 2), dtype="int8", scale=0.5, zero_point=-3),
        TensorSpec(name="half", shape=(3,), dtype="float16"),
        TensorSpec(name="best", shape=(), dtype="int64"),
    )

    def run(self, arrays: object) -> list[np.ndarray]:
        codes = np.array([[[-3, -1], [0, 127]]], np.int8)
        return [codes, np.array([1, 2, np.inf], np.float16), np.array(7)]


def outputs() -> Tensors:
    return TensorTask(BOTH, Fixed())({"shot": SHOT, "ids": np.arange(5)})  # type: ignore[arg-type]


def test_outputs_are_dequantised_and_whole_numbers_stay() -> None:
    found = outputs()
    np.testing.assert_array_equal(found["codes"], [[[0, 1], [1.5, 65]]])
    assert [array.dtype for array in found.arrays.values()] == [np.float32, np.float32, np.int64]
    assert len(found) == 3
    rows = found.to_json()
    assert rows[0] == {
        "name": "codes",
        "shape": [1, 2, 2],
        "dtype": "float32",
        "min": 0.0,
        "max": 65.0,
        "mean": 16.875,
    }
    assert rows[1]["not_finite"] == 1
    assert found.lines()[2].startswith("best  scalar  int64  7 to 7")


def test_outputs_are_saved_by_name(tmp_path: Path) -> None:
    found = outputs()
    found.save(tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as archive:
        assert set(archive.files) == {"codes", "half", "best"}
        np.testing.assert_array_equal(archive["codes"], found["codes"])
    Tensors({"a/b": SHOT}).save(tmp_path / "one.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), SHOT)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    """Twelve outputs, whose order is not that of their names."""
    shapes = [(2, 3), (), (4,), (1, 2, 3, 4, 5, 6)] * 3
    two = [
        Tensors({f"{9 - i}:x/{i}": RANDOM.normal(size=shape) for i, shape in enumerate(shapes)})
        for _ in range(2)
    ]
    answers.save(tmp_path / "r.npz", [answers.pack(one, (0, 0)) for one in two])
    loaded = answers.load(tmp_path / "r.npz")
    assert loaded is not None
    for record, one in zip(loaded, two, strict=True):
        found = Tensors.of_record(record)
        assert list(found.arrays) == list(one.arrays)
        for a, b in zip(found.arrays.values(), one.arrays.values(), strict=True):
            np.testing.assert_array_equal(a, b)


def packed(*arrays: np.ndarray) -> answers.Record:
    return answers.pack(Tensors({f"o{i}": array for i, array in enumerate(arrays)}), (0, 0))


def test_agreement_is_the_mean_cosine_over_samples_and_outputs() -> None:
    x, y = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    truth = [packed(x, y), packed(x, x)]
    data = agreement("few", [Path("a"), Path("b")], truth, "tensors", ())
    assert data.source == "float model"
    mean, lowest = data.score([packed(x, x), packed(x, -x)])
    assert mean.value == pytest.approx((1 + 0.5**0.5 + 1 - 1) / 4)
    assert (mean.main, lowest.value) == (True, -1)
    (same, _) = data.score(truth)
    assert same.value == pytest.approx(1)
    (broken, _) = data.score([packed(x * np.nan, y), packed(x, x)])
    assert broken.value == pytest.approx(3 / 4), "what is not finite agrees with nothing"


def test_a_users_metric_is_the_mean_over_samples_with_its_interval() -> None:
    items = tuple(Path(f"{i}.npz") for i in range(4))
    heard = []

    def metric(found, path):
        heard.append((list(found), path))
        return found["o0"].sum()

    truth = Measured("sum", metric, items)
    values = [1.0, 2.0, 3.0, 6.0]
    main, low, high = truth.score([packed(np.array([v])) for v in values], (), ())
    assert (main.name, main.value, main.main) == ("sum", 3.0, True)
    assert 1 <= low.value < 3 < high.value <= 6
    assert heard[1] == (["o0"], "1.npz")
    assert interval([2.0] * 5) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("metric", "words"),
    [(lambda found, path: found["none"], "KeyError"), (lambda found, path: np.nan, "nan")],
)
def test_a_metric_that_fails_is_told_with_the_sample(metric, words: str) -> None:
    truth = Measured("mine", metric, (Path("a.npz"),))
    with pytest.raises(RkzooError, match=r"a\.npz") as raised:
        truth.score([packed(np.ones(2))], (), ())
    assert words in str(raised.value)
