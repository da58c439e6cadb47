"""Heads bound to the layout that a .rknn names: as a session would read it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rknn_writer import Sample

from rkzoo.cli.main import main
from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ArrayInput, ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.rknn.reader import RknnFile, read
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import DTYPES, Format, Query
from rkzoo.runtime.npu_context import NpuTensor
from rkzoo.toolkit import builds
from rkzoo.toolkit.recipe import Calibration, Recipe, Source
from rkzoo.workflow.compile import convert, prepare
from rkzoo.workflow.compile.native_check import native_checks, native_specs

# What toolkit 2.5.0 wrote for a YOLOv8 of 33 classes and 32x48 pixels on RK3588.
MAPS = {
    "box_8": ((1, 64, 4, 6), (1, 4, 4, 6, 16)),
    "score_8": ((1, 33, 4, 6), (1, 4, 4, 6, 16)),
    "box_16": ((1, 64, 2, 3), (1, 4, 2, 3, 16)),
    "score_16": ((1, 33, 2, 3), (1, 4, 2, 3, 16)),
}


def yolo(classes: int = 33, **fields: Any) -> Contract:
    outputs = tuple(
        HeadOutput(name=name, role=name.partition("_")[0], level=number // 2)  # type: ignore[arg-type]
        for number, name in enumerate(MAPS)
    )
    head = DetectHead(outputs=outputs, classes=classes, strides=(8, 16))
    return Contract(family="yolov8", head=head, picture=ImageInput(size=(32, 48)), **fields)


def written(folder: Path, contract: Contract, container: int = 6, maps: Any = MAPS) -> Path:
    custom = json.dumps({"rkzoo": "1", "contract": msgspec.to_builtins(contract)})
    path = folder / "模型 n.rknn"
    path.write_bytes(Sample(container, custom=custom, maps=maps).write())
    return path


# ---- as a session would announce it ---------------------------------------------------


@dataclass
class Library:
    small: bool


class FileContext:
    """What a library answers of a file, told by the file alone. On a map with an odd number of
    cells the memory has spare ones, as librknnrt has them."""

    name = "model"

    def __init__(self, file: RknnFile) -> None:
        self._file = file
        self.library = Library(small=file.container != 6)

    def counts(self) -> tuple[int, int]:
        return len(self._file.inputs), len(self._file.outputs)

    def shapes(self, index: int) -> list[tuple[int, ...]]:
        return []

    def tensor(self, query: Query, index: int) -> NpuTensor:
        if query in (Query.INPUT_ATTR, Query.NATIVE_INPUT_ATTR):
            return self._told(index, self._file.native_inputs[index])
        spec = self._file.outputs[index]
        if query == Query.NATIVE_OUTPUT_ATTR:
            spec = self._file.native_outputs[index]
            if spec.layout == "NC1HWC2":
                batch, blocks, height, width, depth = spec.shape
                cells = (batch, blocks, 1, -(-height * width // 4) * 4, depth)
                spec = msgspec.structs.replace(spec, shape=cells)
        elif query == Query.NATIVE_NHWC_OUTPUT_ATTR:
            batch, channels, height, width = spec.shape
            spec = msgspec.structs.replace(
                spec, shape=(batch, height, width, channels), layout="NHWC"
            )
        return self._told(index, spec)

    def _told(self, index: int, spec: TensorSpec) -> NpuTensor:
        layout = Format.UNDEFINED if spec.layout == "plain" else Format[spec.layout]
        kind = next(number for number, name in DTYPES.items() if name == spec.dtype)
        size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
        return NpuTensor(
            index, spec.name, spec.shape, layout, kind, spec.scale, spec.zero_point, 0, size,
            raw=None,
        )  # fmt: skip

    def create_memory(self, size: int) -> Any:
        data = np.zeros(size, np.uint8)

        def array(shape: tuple[int, ...], dtype: str, row: int = 0) -> Any:
            return data[: int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

        return SimpleNamespace(array=array)

    def use(self, *_: Any, **__: Any) -> None:
        pass


CLASSIFIER = Contract(family="c", head=ClassifyHead(classes=5), picture=ImageInput(size=(32, 48)))
CASES = {
    "detector": (yolo(), 6),
    "detector on a small library": (yolo(), 0x1004),
    "another head": (CLASSIFIER, 6),
}


@pytest.mark.parametrize(("contract", "container"), CASES.values(), ids=CASES)
def test_a_session_announces_the_same(tmp_path: Path, contract: Contract, container: int) -> None:
    file = read(written(tmp_path, contract, container))
    layout = "native" if isinstance(contract.head, DetectHead) else "plain"
    session = NpuSession(FileContext(file), layout=layout)  # type: ignore[arg-type]
    assert session.outputs == native_specs(file, contract)


def test_beside_other_inputs_the_library_copies(tmp_path: Path) -> None:
    file = read(written(tmp_path, yolo()))
    texts = TensorSpec(name="texts", shape=(1, 8, 16), dtype="float16")
    two = replace(file, inputs=(*file.inputs, texts), native_inputs=(*file.native_inputs, texts))
    contract = yolo(others=(ArrayInput(name="texts", shape=(1, 8, 16), role="texts"),))
    session = NpuSession(FileContext(two), layout="native")  # type: ignore[arg-type]
    assert session.outputs == native_specs(two, contract) == file.outputs


# ---- what is refused ------------------------------------------------------------------


def test_a_head_that_fits_is_told_with_its_shapes(tmp_path: Path) -> None:
    (check,) = native_checks(read(written(tmp_path, yolo())), yolo())
    assert check.level == "ok"
    assert "score_8 [1, 4, 4, 6, 16]" in check.text
    assert native_checks(read(written(tmp_path, CLASSIFIER)), CLASSIFIER) == []


SCORE = MAPS["score_8"]
WRONG = {
    # Blocks have room for 64; the file says how many of them mean something.
    "channels": (yolo(65), MAPS, "33 channels where 65 are promised"),
    "padding": (yolo(34), MAPS, "33 channels where 34 are promised"),
    "fewer": (yolo(32), MAPS, "33 channels where 32 are promised"),
    "cells": (yolo(), {**MAPS, "score_8": (SCORE[0], (1, 4, 4, 5, 16))}, "20 cells where 24"),
    "outputs": (yolo(), {"box_8": MAPS["box_8"]}, "1 outputs where its contract names 4"),
    "flat": (yolo(), {**MAPS, "score_8": ((1, 33), (1, 33))}, r"the shape \[1, 33\]"),
}


@pytest.mark.parametrize(("contract", "maps", "said"), WRONG.values(), ids=WRONG)
def test_inspect_tells_what_a_board_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], contract: Contract, maps: Any, said: str
) -> None:
    path = written(tmp_path, contract, maps=maps)
    assert main(["inspect", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    (told,) = (c["text"] for c in document["checks"] if "refuse" in c["text"])
    assert said.replace("\\", "") in told
    assert main(["inspect", str(path)]) == 1
    assert "FAIL  A board would refuse the head" in capsys.readouterr().out


def test_inspect_shows_native_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, yolo())
    assert main(["inspect", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["native_outputs"][1]["shape"] == [1, 4, 4, 6, 16]
    assert main(["inspect", str(path)]) == 0
    assert "score_8 [1, 4, 4, 6, 16]" in capsys.readouterr().out


size = st.integers(1, 16384)


@settings(max_examples=150, deadline=None)
@given(
    strides=st.lists(size, max_size=4),
    picture=st.tuples(size, size),
    shapes=st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=6), min_size=4, max_size=4),
    container=st.sampled_from([6, 0x1004]),
    fields=st.sampled_from(
        [{}, {"coding": "anchor", "anchors": True}, {"rotated": True}, {"coefficients": 7}]
    ),
)
def test_no_stranger_makes_it_stumble(
    strides: list[int],
    picture: tuple[int, int],
    shapes: list[list[int]],
    container: int,
    fields: dict[str, Any],
) -> None:
    """Whatever a file promises and whatever its tensors are: one check."""
    if fields.get("anchors"):
        fields = {**fields, "anchors": tuple(((1.0, 1.0),) for _ in strides) or ()}
    contract = yolo()
    told = msgspec.to_builtins(contract.head) | {"strides": strides} | fields
    try:
        head = msgspec.convert(told, DetectHead)
    except msgspec.ValidationError:
        return
    contract = msgspec.structs.replace(contract, head=head, picture=ImageInput(size=picture))
    specs = tuple(
        TensorSpec(
            name=name, shape=tuple(shape), dtype="int8",
            layout="NC1HWC2" if len(shape) == 5 else "NCHW" if len(shape) == 4 else "plain",
        )
        for name, shape in zip(MAPS, shapes, strict=True)
    )  # fmt: skip
    file = RknnFile(
        container, (), "", "", "", (specs[0],), specs, (), specs, {}, (), "", None, None, None, 0
    )
    (check,) = native_checks(file, contract)
    assert check.level in ("ok", "fail")


# ---- convert --------------------------------------------------------------------------


class Compiler:
    """A toolkit that writes what it is told to."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def build(self, plan: builds.BuildInputs, out: Path, keep: bool = False) -> Any:
        out.write_bytes(self.data)
        return SimpleNamespace(rknn=out, findings=(), seconds=1.0)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> prepare.Prepared:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    recipe = Recipe(soc="rk3588", dtype="fp16", inputs=())
    ready = SimpleNamespace(
        contract=yolo(),
        name="yolov8n",
        source=Source(file="yolov8n.onnx", sha256="0" * 64),
        quantise=SimpleNamespace(head="sigmoid"),
    )
    key = builds.store(b"graph", [], recipe)
    return prepare.Prepared(ready, recipe, Calibration(), key, None)  # type: ignore[arg-type]


def test_convert_keeps_what_a_board_can_read(tmp_path: Path, prepared: prepare.Prepared) -> None:
    data = Sample(maps=MAPS).write()
    target = tmp_path / "out" / "n.rknn"
    made = convert._build(prepared, "rk3588", target, Compiler(data))  # type: ignore[arg-type]
    assert target.read_bytes() == data
    assert (made.rknn, made.size, made.sidecar.exists()) == (target, len(data), True)


def test_convert_leaves_nothing_of_what_a_board_would_refuse(
    tmp_path: Path, prepared: prepare.Prepared
) -> None:
    few = {**MAPS, "score_8": (SCORE[0], (1, 2, 4, 6, 16))}
    target = tmp_path / "out" / "n.rknn"
    target.parent.mkdir()
    target.write_bytes(b"of yesterday")
    compiler = Compiler(Sample(maps=few).write())
    with pytest.raises(RkzooError, match="32 channels where 33") as caught:
        convert._build(prepared, "rk3588", target, compiler)  # type: ignore[arg-type]
    assert (caught.value.code, "yolov8n" in caught.value.what) == (1, True)
    assert "rkzoo convert yolov8n.onnx --soc rk3588 --toolkit 2.3.2" in caught.value.fix
    assert [path.name for path in target.parent.iterdir()] == ["n.rknn"]
    assert target.read_bytes() == b"of yesterday"
