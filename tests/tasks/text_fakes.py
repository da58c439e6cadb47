"""Sessions that answer without a model, for the tests of the text room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.text import TextClsHead, TextDetHead, TextRecHead


class FakeSession:
    """Answers with `answer(batch)`; remembers the shapes it was given."""

    label = "onnx"

    def __init__(
        self,
        shape: tuple[int, ...],
        answer: Callable[[NDArray[Any]], NDArray[Any]],
        *,
        scale: float | None = None,
        zero_point: int = 0,
    ) -> None:
        self.inputs = (TensorSpec(name="x", shape=shape, dtype="uint8", layout="NHWC"),)
        self.outputs = (
            TensorSpec(name="y", shape=(-1,), dtype="float32", scale=scale, zero_point=zero_point),
        )
        self.answer = answer
        self.seen: list[tuple[int, ...]] = []

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        self.seen.append(arrays[0].shape)
        for given, fixed in zip(arrays[0].shape, self.inputs[0].shape, strict=True):
            assert fixed in (-1, given)
        return [self.answer(arrays[0])]

    def close(self) -> None:
        pass

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def det_contract(height: int = 128, width: int = 128, **head: Any) -> Contract:
    image = ImageInput(size=(height, width), color="BGR", pad=0, place="top-left")
    return Contract(family="ppocr-det", picture=image, head=TextDetHead(**head))


def cls_contract() -> Contract:
    image = ImageInput(size=(48, 192), color="BGR", fit="line", pad=127)
    return Contract(family="ppocr-cls", picture=image, head=TextClsHead())


def rec_contract(labels: Sequence[str], width: int = 320) -> Contract:
    image = ImageInput(size=(48, width), color="BGR", fit="line", pad=127)
    return Contract(family="ppocr-rec", picture=image, head=TextRecHead(), labels=tuple(labels))


def spec(scale: float | None = None, zero_point: int = 0) -> TensorSpec:
    return TensorSpec(name="y", shape=(1,), dtype="float32", scale=scale, zero_point=zero_point)
