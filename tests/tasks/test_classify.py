"""The best classes of a picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.contract.classify import ClassifyHead, ClassOutput
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.tasks.classify.result import Classes
from rkzoo.tasks.classify.task import Classifier, probabilities, softmax


def spec(shape: tuple[int, ...], scale: float | None = None, zero: int = 0) -> TensorSpec:
    kind = "int8" if scale else "float32"
    return TensorSpec(name="o", shape=shape, dtype=kind, scale=scale, zero_point=zero)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=40))
def test_softmax_is_a_distribution_in_the_order_of_the_logits(values: list[float]) -> None:
    logits = np.array(values, np.float32)
    found = softmax(logits)
    assert found.sum() == pytest.approx(1, abs=1e-4)
    assert (found >= 0).all()
    order = np.argsort(logits, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_logits_get_a_softmax_and_probabilities_none() -> None:
    logits = np.log(np.array([[0.2, 0.5, 0.3]], np.float32))
    head = ClassifyHead(classes=3)
    (found,) = probabilities([logits], [spec((1, 3))], head)
    assert found == pytest.approx([0.2, 0.5, 0.3], abs=1e-6)
    done = ClassifyHead(classes=3, activated=True)
    (found,) = probabilities([np.exp(logits)], [spec((1, 3))], done)
    assert found == pytest.approx([0.2, 0.5, 0.3])


def test_integers_count_by_their_scale() -> None:
    raw = np.array([[[[10]], [[20]], [[-5]]]], np.int8)
    (found,) = probabilities([raw], [spec((1, 3, 1, 1), 0.5, 4)], ClassifyHead(classes=3))
    assert found == pytest.approx(softmax(np.array([3, 8, -4.5], np.float32)))


class Fixed:
    label = "onnx"
    inputs = ()

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.outputs = array, (spec(array.shape),)
        self.fed: list[np.ndarray] = []

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        self.fed = [array.copy() for array in arrays]
        return [self.array]


def classifier(array: np.ndarray, classes: int, top: int = 5) -> Classifier:
    contract = Contract(
        family="classifier",
        picture=ImageInput(size=(8, 8), fit="crop", short=10),
        head=ClassifyHead(classes=classes),
        labels=("ant, Formicidae", "bee", "cow"),
    )
    return Classifier(contract, Fixed(array), top)  # type: ignore[arg-type]


def test_the_best_come_first_and_a_tie_goes_to_the_lower_class() -> None:
    found = classifier(np.array([[1.0, 4.0, 4.0]], np.float32), 3)(np.zeros((9, 9, 3), np.uint8))
    assert found.class_id.tolist() == [1, 2, 0]
    assert found.to_json()[0] == {"label": "bee", "class_id": 1, "score": 0.4879}
    assert found.lines()[2].endswith("ant, Formicidae")
    assert len(found[:1]) == 1


def test_the_model_sees_red_green_blue() -> None:
    task = classifier(np.zeros((1, 3), np.float32), 3)
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[..., 0] = 200  # blue, as OpenCV reads it
    task(picture)
    assert (task.session.fed[0] == [0, 0, 200]).all()  # type: ignore[attr-defined]
    assert task.session.fed[0].shape == (1, 8, 8, 3)  # type: ignore[attr-defined]


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(RkzooError, match="3 scores for 4 classes"):
        classifier(np.zeros((1, 3), np.float32), 4)(np.zeros((9, 9, 3), np.uint8))


def test_no_classes_cannot_be_asked_for() -> None:
    with pytest.raises(RkzooError, match="0 classes were asked for"):
        classifier(np.zeros((1, 3), np.float32), 3, top=0)


def test_names_are_drawn_where_there_is_room() -> None:
    found = Classes(np.array([2, 0], np.int32), np.array([0.9, 0.1], np.float32), ("ant", "b", "c"))
    picture = np.full((480, 640, 3), 90, np.uint8)
    drawn = found.draw(picture)
    assert drawn.shape == picture.shape
    assert (picture == 90).all()  # a copy
    changed = np.flatnonzero((drawn != 90).any(axis=(1, 2)))
    assert 20 < len(changed) < 120  # two lines at the top, nothing below
    assert changed.max() < 130


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3)])
def test_pictures_of_any_shape_can_be_drawn_on(shape: tuple[int, int]) -> None:
    found = Classes(np.array([0], np.int32), np.array([0.9], np.float32))
    assert found.draw(np.zeros((*shape, 3), np.uint8)).ndim == 3


def test_labels_by_themselves_are_scored_each_by_its_own_sigmoid() -> None:
    logits = np.array([[-2.0, 0.0, 3.0]], np.float32)
    wanted = 1 / (1 + np.exp(-logits.ravel().astype(np.float64)))
    head = ClassifyHead(classes=3, multi_label=True)
    (found,) = probabilities([logits], [spec((1, 3))], head)
    assert found == pytest.approx(wanted, abs=1e-6)
    (same,) = probabilities(
        [found[None]], [spec((1, 3))], ClassifyHead(classes=3, multi_label=True, activated=True)
    )
    assert same == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "ids", "scores"),
    [((), [0], [0.8]), (("ripe",), [0], [0.8]), (("raw", "ripe"), [1, 0], [0.8, 0.2])],
)
def test_one_class_may_have_two_names(labels, ids, scores) -> None:
    contract = Contract(
        family="classifier",
        picture=ImageInput(size=(8, 8), fit="stretch"),
        head=ClassifyHead(classes=1, activated=True, multi_label=True),
        labels=labels,
    )
    task = Classifier(contract, Fixed(np.array([[0.8]], np.float32)))  # type: ignore[arg-type]
    found = task(np.zeros((9, 9, 3), np.uint8))
    assert found.class_id.tolist() == ids
    assert found.score == pytest.approx(scores)


class Several(Fixed):
    def __init__(self, *arrays: np.ndarray) -> None:
        super().__init__(arrays[0])
        self.arrays = list(arrays)
        self.outputs = tuple(spec(array.shape) for array in arrays)

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        return self.arrays


def test_several_questions_are_answered_one_after_another() -> None:
    head = ClassifyHead(
        classes=5,
        outputs=(
            ClassOutput(name="sex", classes=2),
            ClassOutput(name="age", classes=3),
        ),
    )
    contract = Contract(
        family="classifier", picture=ImageInput(size=(8, 8), fit="stretch"), head=head
    )
    session = Several(np.array([[0.0, 1.0]], np.float32), np.array([[3.0, 1.0, 2.0]], np.float32))
    image = np.zeros((9, 9, 3), np.uint8)
    found = Classifier(contract, session, 2)(image)  # type: ignore[arg-type]
    assert found.outputs == ("sex", "sex", "age", "age")
    assert found.lines()[0] == f"{1 / (1 + np.exp(-1)):.3f}  sex: 1"
    assert [one["label"] for one in found.to_json()] == ["1", "0", "0", "2"]
    assert found.best().class_id.tolist() == [1, 2]
    with pytest.raises(RkzooError, match="1 outputs, and 2"):
        probabilities([session.arrays[0]], [session.outputs[0]], head)
