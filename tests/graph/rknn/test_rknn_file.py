from __future__ import annotations

import random
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rknn_writer import Sample

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.graph.rknn import reader
from rkzoo.graph.rknn.checks import rknn_checks
from rkzoo.graph.rknn.reader import Normalisation, RknnFile, read


def put(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "模型 1.rknn"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("container", [6, 0x1004])
def test_both_containers_tell_the_same(tmp_path: Path, container: int) -> None:
    data = Sample(container).write()
    file = read(put(tmp_path, data))
    assert file.container == container
    assert file.platforms == ("rk3588",)
    assert file.toolkit == "2.5.0"
    assert file.compiler.startswith("2.5.0(compiler version")
    assert file.framework == "ONNX"
    (image,), (box, half) = file.inputs, file.outputs
    assert (image.name, image.shape, image.dtype) == ("images", (1, 3, 32, 48), "int8")
    assert (image.scale, image.zero_point, image.layout) == (0.00390625, -128, "NCHW")
    assert (box.name, box.scale, box.zero_point) == ("box_8", 0.0625, -7)
    assert (half.dtype, half.scale, half.layout) == ("float16", None, "plain")
    assert file.normalisation == {"images": Normalisation((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))}
    assert [(o.type, o.target) for o in file.steps] == [("ConvRelu", "NPU"), ("Softmax", "CPU")]
    assert [o.name for o in file.cpu_operators] == ["Softmax:b"]
    assert file.custom_json == {"rkzoo": 1, "name": "猫"}
    assert file.weight_bytes == 1728 + 256
    assert file.memory_bytes == (66048 if container == 0x1004 else None)
    assert file.file_bytes == len(data)
    assert file.quantised


@pytest.mark.parametrize("container", [6, 0x1004])
def test_native_shapes(tmp_path: Path, container: int) -> None:
    """As the NPU keeps them: a picture by pixels, maps in blocks with any padding, all else as
    the graph has it."""
    file = read(put(tmp_path, Sample(container).write()))
    (image,), (box, half) = file.native_inputs, file.native_outputs
    assert (image.name, image.shape, image.layout) == ("images", (1, 32, 48, 3), "NHWC")
    assert (box.name, box.shape, box.layout) == ("box_8", (1, 6, 4, 4, 16), "NC1HWC2")
    assert (box.dtype, box.scale, box.zero_point) == ("int8", 0.0625, -7)
    assert half == file.outputs[1]


def test_without_a_native_layout_it_is_the_graphs(tmp_path: Path) -> None:
    file = read(put(tmp_path, Sample(output_shape=(1, 84, 8400), native_shape=()).write()))
    assert file.native_outputs == file.outputs


@pytest.mark.parametrize(
    "attributes", ["", "not python", "[1]", "{'attrs': 3}", "{'attrs': {'images': {'mean': 'x'}}}"]
)
def test_without_readable_attributes_the_rest_is_read(tmp_path: Path, attributes: str) -> None:
    file = read(put(tmp_path, Sample(attributes=attributes).write()))
    assert file.normalisation == {}
    assert file.inputs[0].name == "images"


@pytest.mark.parametrize("custom", ["", "plain words", "[" * 5000, "NaN is not json"])
def test_custom_strings_of_any_kind(tmp_path: Path, custom: str) -> None:
    file = read(put(tmp_path, Sample(custom=custom).write()))
    assert file.custom == custom
    assert file.custom_json is None


def test_checks_name_the_cpu_and_a_collapsed_scale(tmp_path: Path) -> None:
    good = rknn_checks(read(put(tmp_path, Sample(cpu=False).write())))
    assert [check.level for check in good] == ["ok", "ok"]
    uncut = Sample(output_shape=(1, 84, 8400), output_scale=2.494)
    levels = {c.level: c.text for c in rknn_checks(read(put(tmp_path, uncut.write())))}
    assert "Softmax" in levels["warn"]
    assert "2.49" in levels["fail"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"RKNN", "short"),
        (b"\x08\x00\x00\x00ONNX" + bytes(100), "not a .rknn"),
        (b"RKCE" + bytes(100), "encrypted"),
        (b"RKNN" + bytes(100), "number 0"),
        (b"RKNN" + bytes(4) + struct.pack("<QQ", 0x103, 8) + bytes(100), "number 259"),
        (b"RKNN" + bytes(4) + struct.pack("<QQ", 2, 8) + bytes(100), "format 2"),
        (b"RKNN" + bytes(4) + struct.pack("<QQ", 4, 8) + bytes(100), "librknnrt 1.5.0,"),
        (b"RKNN" + bytes(4) + struct.pack("<QQ", 6, 2**64 - 1) + bytes(100), "cut short"),
    ],
)
def test_foreign_files(tmp_path: Path, data: bytes, word: str) -> None:
    with pytest.raises(RkzooError) as caught:
        read(put(tmp_path, data))
    assert word in str(caught.value)
    assert caught.value.fix


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.rknn", tmp_path):
        with pytest.raises(RkzooError):
            read(path)


@pytest.mark.parametrize("container", [6, 0x1004])
def test_truncations_are_noticed(tmp_path: Path, container: int) -> None:
    data = Sample(container).write()
    for length in range(0, len(data), 3):
        path = put(tmp_path, data[:length])
        with pytest.raises(RkzooError):
            read(path)


def read_or_refuse(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(RkzooError):
        assert isinstance(read(path), RknnFile)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), container=st.sampled_from([6, 0x1004]), many=st.booleans())
def test_no_damage_makes_it_stumble(
    tmp_path_factory: pytest.TempPathFactory, seed: int, container: int, many: bool
) -> None:
    chance = random.Random(seed)
    data = bytearray(Sample(container).write())
    for _ in range(40 if many else 2):
        at = chance.randrange(len(data))
        data[at] = chance.choice((0, 1, 4, 127, 128, 255, chance.randrange(256)))
    read_or_refuse(tmp_path_factory.getbasetemp() / "damaged.rknn", bytes(data))


@settings(max_examples=200, deadline=None)
@given(
    at=st.integers(0, 400),
    word=st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 50_000, 65_535]),
    container=st.sampled_from([6, 0x1004]),
)
def test_no_wild_number_makes_it_stumble(
    tmp_path_factory: pytest.TempPathFactory, at: int, word: int, container: int
) -> None:
    data = bytearray(Sample(container).write())
    struct.pack_into("<I", data, 64 + 4 * at % (len(data) - 72), word)
    read_or_refuse(tmp_path_factory.getbasetemp() / "wild.rknn", bytes(data))


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"x": [[1, 3, 8, 8], [1, 3, 4, 4]], "y": [[1, 2], [1, 1]]}, True),
        ({"x": [[1, 3, 8, 8], [1, 3, 4, 4]]}, False),
        ({"x": [[1, 3, 8, 8], [1, 3, 4, 4]], "y": [[1, 2]]}, False),
        ({"x": [[1, 3, 8, 8], [1, 3, 4]], "y": [[1, 2], [1, 1]]}, False),
        ({"x": [[1, 3, 8, 8], [1, 3, 0, 4]], "y": [[1, 2], [1, 1]]}, False),
        ({"x": [[1, 3, 8, 8], [1, 3, True, 4]], "y": [[1, 2], [1, 1]]}, False),
        ({"x": [[1, 3, 8, 8]] * 300, "y": [[1, 2]] * 300}, False),
        ({"x": [7, [1, 3, 4, 4]], "y": [[1, 2], [1, 1]]}, False),
        ("no dict", False),
    ],
)
def test_several_shapes_are_taken_only_where_all_ends_have_as_many(told: Any, known: bool) -> None:
    shapes = {"x": (1, 3, 8, 8), "y": (1, 2)}
    ends = tuple(TensorSpec(name=n, shape=shape, dtype="int8") for n, shape in shapes.items())
    found = reader._shapes({"dynamic_shapes": told}, ends)
    assert bool(found) == known
    if known:
        assert found["x"] == ((1, 3, 8, 8), (1, 3, 4, 4))


@pytest.mark.parametrize(
    ("text", "batch"), [("3", 3), ("0", 1), ("", 1), ("x", 1), ("-4", 1), ("²", 1), ("9" * 4000, 1)]
)
def test_a_batch_is_a_small_number_or_one(text: str, batch: int) -> None:
    assert reader._batch(text) == batch
