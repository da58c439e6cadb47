from __future__ import annotations

import ast
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx.external_data_helper import convert_model_to_external_data
from tiny_yolo import Spec, stock, vendor

from rkzoo.errors import RkzooError
from rkzoo.graph import literal
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head
from rkzoo.graph.onnx.read import MAX_BYTES, load, metadata
from rkzoo.graph.onnx.summary import summarise
from rkzoo.graph.onnx.view import graph_view, prepared, run


def test_a_model_with_chinese_path_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "我的 模型.onnx"
    onnx.save(stock(author="me"), path)
    assert metadata(load(path)) == {"author": "me"}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"hello, this is no model at all", "ONNX"),
        (b"PK\x03\x04" + bytes(100), "ONNX"),
        (b"RKNN" + bytes(100), ".rknn"),
        (stock().SerializeToString()[:-1000], "cut short"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "No graph"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(RkzooError) as caught:
        load(path)
    assert word in str(caught.value)
    assert caught.value.fix


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300))
def test_foreign_bytes_never_pass(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "foreign.onnx"
    path.write_bytes(content)
    with pytest.raises(RkzooError):
        load(path)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="cannot be read"):
        load(tmp_path / "none.onnx")
    with pytest.raises(RkzooError, match="folder"):
        load(tmp_path)


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no room
    with pytest.raises(RkzooError, match="too large"):
        load(path)


def external(tmp_path: Path) -> Path:
    model, path = stock(), tmp_path / "m.onnx"
    convert_model_to_external_data(model, location="m.weights", size_threshold=64)
    onnx.save(model, path)
    return path


def test_weights_beside_the_model(tmp_path: Path) -> None:
    path = external(tmp_path)
    loaded, original = load(path), stock()
    feed = {"images": np.zeros((1, 3, 64, 96), np.float32)}
    np.testing.assert_array_equal(run(loaded, feed)[0], run(original, feed)[0])


@pytest.mark.parametrize("fault", ["missing", "short", "large"])
def test_weights_that_are_not_there(tmp_path: Path, fault: str) -> None:
    path = external(tmp_path)
    weights = tmp_path / "m.weights"
    if fault == "missing":
        weights.unlink()
    elif fault == "short":
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        with weights.open("r+b") as file:
            file.truncate(MAX_BYTES + 1)
    with pytest.raises(RkzooError) as caught:
        load(path)
    assert "m.weights" in str(caught.value) or fault == "large"


def test_summary() -> None:
    found = summarise(stock(Spec(dynamic=True, classes=3), author="me"))
    assert found.opset == 13
    assert found.dynamic == ("batch", "height", "width")
    assert found.inputs[0].shape == ("batch", 3, "height", "width")
    assert found.inputs[0].dtype == "float32"
    assert found.outputs[0].shape == ("?",)
    assert dict(found.operators)["Conv"] == 10
    assert found.metadata == (("author", "me"),)
    weights = [t for t in stock(Spec(dynamic=True)).graph.initializer]
    assert found.parameters == sum(int(np.prod(t.dims)) for t in weights)


def test_constants_inside_nodes_count_as_parameters() -> None:
    assert summarise(stock(Spec(inline=True))).parameters == summarise(stock()).parameters


def test_declared_shapes_are_not_believed() -> None:
    model = stock()
    wrong = onnx.helper.make_tensor_value_info(model.graph.node[0].output[0], 1, [9, 9])
    model.graph.value_info.append(wrong)
    assert graph_view(model).shape(model.graph.node[0].output[0]) == (1, 8, 8, 12)


def test_free_sizes_are_folded_away() -> None:
    model = stock(Spec(dynamic=True, tail="separate"))
    assert "Shape" in {node.op_type for node in model.graph.node}
    view = prepared(model, {"images": (1, 3, 64, 96)})
    assert "Shape" not in {node.op_type for node in view.model.graph.node}
    feed = {"images": np.random.default_rng(0).random((1, 3, 64, 96), np.float32)}
    np.testing.assert_array_equal(run(view.model, feed)[0], run(model, feed)[0])


def test_nodes_in_any_order() -> None:
    model = stock()
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(model)
    nodes = list(model.graph.node)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(reversed(nodes))
    assert graph_view(prepared(shuffled, {}).model).shape(model.graph.output[0].name) == (1, 7, 126)


# ---- Python literals from strangers -------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # repr() of other characters may hold what only eval understands the same way.
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abc ", max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(value=plain)
def test_literals_come_back(value: object) -> None:
    assert literal.parse(repr(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a",
        "1+1",
        "1 -1",
        "()()",
        "[1](2)",
        "'a' 'b'",
        "[" * 50 + "]" * 50,
        "-" * 50_000 + "1",
        "(" * 200_000,
        "1-" * 200_000 + "1",
        "[]" * 200_000,
        "{[]: 1}",
        "{1: 2",
        "'open",
        "f'{x}'",
        "[" + "1," * 3_000_000 + "]",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert literal.parse(text) is None


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="[](){}:,'\"\\-+1.eE0xTrueNon \n_a"))
@example("-1_")
@example("1__0")
@example("08")
@example("'\\x'")
@example("{*1}")
def test_no_text_makes_it_stumble(text: str) -> None:
    value = literal.parse(text)
    if value is not None:
        assert value == ast.literal_eval(text.strip())


# ---- damage -------------------------------------------------------------------------


SOUND = [
    model.SerializeToString()
    for model in (stock(), stock(Spec(dynamic=True, tail="separate")), vendor())
]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_graph_is_refused_in_words_or_read(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    chance = random.Random(seed)
    sound = (stock(), stock(Spec(dynamic=True, tail="separate")), vendor())
    data = bytearray(chance.choice(sound).SerializeToString())
    for _ in range(chance.choice((1, 3, 10))):
        data[chance.randrange(len(data))] = chance.choice(
            (0, 1, 8, 127, 255, chance.randrange(256))
        )
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(data)
    with suppress(RkzooError):
        model = load(path)
        assert summarise(model).opset >= 0
        cut_head(model, recognise(model, (64, 96)))


@pytest.mark.parametrize("fault", ["short", "type", "size", "output", "text"])
def test_graphs_whose_parts_do_not_fit(tmp_path: Path, fault: str) -> None:
    model = stock()
    tensor = model.graph.initializer[0]
    if fault == "short":
        tensor.raw_data = tensor.raw_data[:-4]
    elif fault == "type":
        tensor.data_type = 127
    elif fault == "size":
        tensor.dims[0] = -8
    elif fault == "output":
        del model.graph.node[0].output[:]
    data = model.SerializeToString()
    if fault == "text":
        data = data.replace(b"Softmax", b"Soft\xffax")
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(RkzooError, match=r"can be read"):
        load(path)
