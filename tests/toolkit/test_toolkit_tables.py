"""The toolkit's tables, read without the toolkit. The samples are from real runs, shortened."""

from __future__ import annotations

import json

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.errors import RkzooError
from rkzoo.toolkit import worker
from rkzoo.toolkit.analysis import LayerError, read_errors, worst
from rkzoo.toolkit.recipe import Sidecar
from rkzoo.toolkit.tensors import Node, read_tensors

ERRORS = """\
# simulator_error: calculate the output error of each layer of the simulator.
#              entire: output error of each layer between 'golden' and 'simulator'.

layer_name                                 simulator_error
                                       entire              single
                                    cos      euc        cos      euc
---------------------------------------------------------------------------
[Input] x                         1.00000 | 0.00000   1.00000 | 0.00000
[exDataConvert] x_int8            1.00000 | 0.00001   1.00000 | 0.00001
[Conv] c1
[Relu] /b.0/a/Relu_output_0       0.99998 | 0.36469   0.99997 | 0.36468
\x1b[1;31m[Conv] 461                        0.99983 | 389.26410 0.99988 | 329.64935\x1b[0m
[Slice] y_int8                     q_zero |  q_zero    q_zero |  q_zero
[Exp] e                               nan | inf       -0.5 | 1e+20
"""


def test_the_error_table_is_read_in_order():
    assert read_errors(ERRORS) == (
        LayerError("Input", "x", 1.0, 0.0, 1.0, 0.0),
        LayerError("exDataConvert", "x_int8", 1.0, 0.00001, 1.0, 0.00001),
        LayerError("Conv", "c1", None, None, None, None),
        LayerError("Relu", "/b.0/a/Relu_output_0", 0.99998, 0.36469, 0.99997, 0.36468),
        LayerError("Conv", "461", 0.99983, 389.2641, 0.99988, 329.64935),
        LayerError("Slice", "y_int8", None, None, None, None, all_zero=True),
        LayerError("Exp", "e", None, float("inf"), -0.5, 1e20),
    )
    assert read_errors("") == ()


@given(st.text() | st.lists(st.sampled_from(ERRORS.split(" "))).map(" ".join))
def test_any_text_gives_rows_or_none(text):
    assert all(isinstance(row, LayerError) for row in read_errors(text))


def test_of_several_pictures_the_worst_counts():
    first = LayerError("Conv", "c", 0.9, 1.0, 0.99, 0.5)
    second = LayerError("Conv", "c", 0.8, 0.7, None, None, all_zero=True)
    assert worst([[first], [second]]) == (LayerError("Conv", "c", 0.8, 1.0, 0.99, 0.5),)
    assert worst([[second], [second]])[0].all_zero
    assert worst([]) == ()


CONFIG = """\
custom_quantize_layers: {}  # {'a': float16} cosine 0.9
    # a comment of the toolkit's proposal
quantize_parameters:
    x:
        qtype: asym
        dtype: float32
        min:
        -   0.0
        max:
        -   1.0
        scale: []
        zero_point: []
    460:
        qtype: asym
        dtype: int8
        min:
        -   -1.0
        max:
        -   1.55
        scale:
        -   0.01
        zero_point:
        -   -28
    on:
        qtype: asym
        dtype: int8
        min: [0.0, -2.0]
        max: [1.0, 2.0]
        scale: [0.004, 0.016]
        zero_point: [-128, 0]
    x_int8:
        qtype: asym
        dtype: int8
        min:
        -   0.0
        max:
        -   1.0
        scale:
        -   0.00392156862745098
        zero_point:
        -   -128
"""
NODES = [
    Node("exDataConvert", ("x",), ("x_int8",)),
    Node("Conv", ("x_int8", "w", "b"), ("460",)),
    Node("exSwish", ("460",), ("on",)),
]


def test_tensors_are_read_with_the_layer_they_are_made_in():
    source, conv, swish = read_tensors(CONFIG, NODES)
    assert (source.name, source.op, source.layer) == ("x_int8", "", ("x_int8",))
    assert (conv.name, conv.op, conv.scale, conv.zero_point) == ("460", "Conv", 0.01, -28)
    assert (conv.low, conv.high, conv.sources) == (-1.0, 1.55, ("x_int8",))
    assert (swish.name, swish.scale, swish.low, swish.high) == ("on", 0.016, -2.0, 2.0)
    assert conv.layer == swish.layer == ("460", "on")


def test_a_convolution_that_others_read_too_is_a_layer_of_its_own():
    more = [*NODES, Node("Add", ("460", "on"), ("sum",))]
    assert [tensor.layer for tensor in read_tensors(CONFIG, more)][1:] == [("460",), ("on",)]


@pytest.mark.parametrize(
    "text",
    ["", "a: [", "quantize_parameters: 3", "quantize_parameters:\n  a: {dtype: int8, scale: [x]}"],
)
def test_a_damaged_table_is_one_error(text):
    with pytest.raises(RkzooError, match="cannot be read"):
        read_tensors(text, NODES)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1)


@settings(deadline=None)
@given(st.lists(NAMES, unique=True, min_size=1))
def test_float_layers_are_written_as_yaml_whatever_their_names(names):
    text = worker.with_float_layers(CONFIG, names)
    again = worker.with_float_layers(text, names)
    assert again == text
    found = yaml.safe_load(text)
    assert found["custom_quantize_layers"] == dict.fromkeys(names, "float16")
    assert text.partition("quantize_parameters:")[2] == CONFIG.partition("quantize_parameters:")[2]


def test_an_older_choice_is_replaced_not_added_to():
    older = CONFIG.replace("custom_quantize_layers: {}", "custom_quantize_layers:\n    a: float16")
    text = worker.with_float_layers(older, ["b"])
    assert yaml.safe_load(text)["custom_quantize_layers"] == {"b": "float16"}
    with pytest.raises(worker.JobRefused):
        worker.with_float_layers("quantize_parameters: {}\n", ["b"])


def test_what_is_calibrated_once_is_known_by_its_content(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"model")
    (tmp_path / "calibration-0.npy").write_bytes(b"pictures")
    header = {
        "onnx": str(tmp_path / "m.onnx"),
        "calibration": str(tmp_path),
        "inputs": [],
        "config": {"quantized_algorithm": "normal", "custom_string": None},
        "custom": [],
    }
    before = worker.digest(header)
    other = {**header, "config": {**header["config"], "custom_string": "for the file alone"}}
    assert worker.digest({**other, "float_layers": ["a"]}) == before
    changed = {**header, "config": {**header["config"], "quantized_algorithm": "mmse"}}
    assert worker.digest(changed) != before
    assert worker.digest({**header, "custom": [{"type": "cstDet", "model": ""}]}) != before
    (tmp_path / "calibration-0.npy").write_bytes(b"others")
    assert worker.digest(header) != before


def test_a_sidecar_from_before_float_layers_is_read():
    older = {
        "source": {"file": "m.onnx", "sha256": "0"},
        "recipe": {
            "soc": "rk3588",
            "dtype": "int8",
            "inputs": [{"name": "x", "shape": [1, 3, 8, 8], "mean": [], "std": []}],
            "toolkit": "2.5.0",
            "algorithm": "normal",
            "method": "channel",
            "optimization_level": 3,
        },
        "contract": {
            "family": "f",
            "input": {"size": [8, 8]},
            "head": {"kind": "text-det"},
            "labels": [],
        },
        "calibration": {"files": [], "sha256": ""},
        "build": "0",
        "rkzoo": "0.1",
        "format": 1,
    }
    recipe = msgspec.json.decode(json.dumps(older).encode(), type=Sidecar).recipe
    assert (recipe.auto_hybrid, recipe.float_layers, recipe.quantised) == (False, (), False)


def test_ranges_that_are_given_replace_those_of_calibration_and_scores_reach_one():
    entries = {
        "inner": {"min": [-4.0], "max": [9.0], "ori_max": [9.0]},
        "per channel": {"min": [0.0, 0.0], "max": [1.0, 2.0], "ori_max": [1.0, 2.0]},
        "score": {"min": [0.0], "max": [0.5], "ori_max": [0.5]},
    }
    given = [["inner", -1.0, 3.0], ["per channel", 0.0, 1.0], ["unknown", 0.0, 1.0]]
    header = {"scores": ["score"], "ranges": given}
    ranges, seen = worker.chosen_ranges(entries, [], header)
    assert ranges == {"inner": (-1.0, 3.0), "score": (0.0, 1.0)}
    assert seen == {"score": 0.5}
    entries["score"]["max"] = [1.5]  # wider already
    assert "score" not in worker.chosen_ranges(entries, [], header)[0]
