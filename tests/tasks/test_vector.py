"""Numbers that answer a picture: against numpy, compared with other pictures, written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import rkzoo
from rkzoo.cli.main import main
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.vector.result import Vector
from rkzoo.tasks.vector.task import Measurer, unit


class Fixed:
    label = "onnx"
    inputs = ()

    def __init__(self, array: np.ndarray, scale: float | None = None) -> None:
        self.array = array
        self.outputs = (
            TensorSpec(name="o", shape=array.shape, dtype=str(array.dtype), scale=scale),
        )

    def run(self, fed: list[np.ndarray]) -> list[np.ndarray]:
        return [self.array]


def measurer(array: np.ndarray, size: int, scale: float | None = None) -> Measurer:
    contract = Contract(
        family="embedding",
        picture=ImageInput(size=(8, 8), fit="stretch"),
        head=VectorHead(size=size),
    )
    return Measurer(contract, Fixed(array, scale))  # type: ignore[arg-type]


finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, 7, elements=finite), arrays(np.float32, 7, elements=finite))
def test_cosines_are_those_of_numpy(a: np.ndarray, b: np.ndarray) -> None:
    found = float(unit(a) @ unit(b))
    wide = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(wide[0]) * np.linalg.norm(wide[1])
    assert found == pytest.approx(wide[0] @ wide[1] / lengths if lengths else 0, abs=1e-9)


def test_integers_count_by_their_scale_and_any_shape_is_flat() -> None:
    found = measurer(np.array([[[[3]], [[-4]]]], np.int8), 2, 0.5)(np.zeros((9, 9, 3), np.uint8))
    assert found.values.tolist() == [1.5, -2]
    assert found.norm == pytest.approx(2.5)


def test_another_count_than_promised_is_refused() -> None:
    with pytest.raises(RkzooError, match="gave 2 numbers, and 3"):
        measurer(np.zeros((1, 2), np.float32), 3)(np.zeros((9, 9, 3), np.uint8))


def test_a_vector_is_written_and_told(tmp_path: Path) -> None:
    found = Vector(np.array([3, 4], np.float32))
    found.save(tmp_path / "v.npy")
    assert np.load(tmp_path / "v.npy").tolist() == [3, 4]
    assert found.lines() == ["2 numbers of length 5: 3 4"]
    assert found.to_json() == [{"values": [3, 4], "norm": 5}]
    assert Vector(np.array([37.25], np.float32), embedding=False).lines() == ["37.25"]
    with pytest.raises(RkzooError, match="npy"):
        found.save(tmp_path / "v.jpg")


def by_hand(model: Path, picture: Path) -> np.ndarray:
    """ONNX Runtime on the file as it is, the picture stretched and taken from -1 to 1."""
    image = cv2.resize(cv2.imread(str(picture)), (112, 112), interpolation=cv2.INTER_LINEAR)
    fed = ((image[..., ::-1].astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(model)
    (values,) = session.run(None, {session.get_inputs()[0].name: fed})
    return np.asarray(values.ravel(), np.float64)


@pytest.mark.parametrize("name", ["face_embedding_512_bias", "face_embedding_no_bias"])
def test_faces_are_compared(assets: Path, tmp_path: Path, capsys, name: str) -> None:
    model = assets / f"cases/models/{name}.onnx"
    a, b = (assets / f"data/images/{one}.jpg" for one in ("face", "zidane"))
    wanted = [by_hand(model, one) for one in (a, b)]
    with rkzoo.load(model, against=[a, b]) as loaded:
        found = loaded(a).prediction
    assert isinstance(found, Vector)
    assert found.against is not None
    # The resampling of a large picture is another one here.
    cosine = wanted[0] @ wanted[1] / np.prod([np.linalg.norm(one) for one in wanted])
    assert found.against.names == (str(a), str(b))
    assert found.against.cosine.tolist() == pytest.approx([1, cosine], abs=0.02)
    assert np.corrcoef(found.values, wanted[0])[0, 1] > 0.999
    target = tmp_path / "a.npy"
    assert main(["run", str(model), str(a), "--against", str(b), "-o", str(target)]) == 0
    assert np.allclose(np.load(target), found.values)
    told = capsys.readouterr()
    assert f"{len(found)} numbers of length" in told.out
    assert "if these are classes, give --labels FILE" in told.err


def test_only_embeddings_are_compared(assets: Path) -> None:
    picture = str(assets / "data/images/face.jpg")
    with pytest.raises(RkzooError, match="--against does not go"):
        rkzoo.load(assets / "models/mobilenetv2.onnx", against=[picture])
