"""Each rule of the table speaks on the facts that it is for, and on no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.toolkit.analysis import LayerError
from rkzoo.workflow.comparison.diagnosis import RULES, Facts, causes, input_scale, like_float
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures

INPUT = ImageInput(size=(64, 64))
HEAD = DetectHead(
    outputs=(HeadOutput(name="box", role="box"), HeadOutput(name="score", role="score")),
    classes=3,
    strides=(8,),
)
CONTRACT = Contract(family="tiny", picture=INPUT, head=HEAD)


def row(name: str, role: str, cosine: float | None = 0.999, **more: object) -> OutputFigures:
    usual = {"difference": 0.1, "low": 0.0, "high": 1.0, "float_low": 0.0, "float_high": 1.0}
    return OutputFigures(name, role, "model", cosine, **(usual | more))  # type: ignore[arg-type]


def coded(name: str, role: str, cosine: float = 0.999, **more: object) -> OutputFigures:
    usual = {"scale": 0.004, "zero_point": -128, "at_low": 0.0, "at_high": 0.0, "clipped": 0.0}
    return row(name, role, cosine, **(usual | more))


def layer(name: str, entire: float, alone: float, op: str = "Conv", zero: bool = False):
    return LayerError(op, name, entire, 0.1, alone, 0.1, zero)


FINE = Facts(
    name="m.onnx",
    contract=CONTRACT,
    outputs={
        "fp16": [row("box", "box"), row("score", "score")],
        "int8": [coded("box", "box", scale=0.1), coded("score", "score")],
    },
    degraded=frozenset(),
    layers=[layer(f"c{i}", 0.999, 0.9999) for i in range(20)],
    calibrated=50,
    commands={"tune": "rkzoo tune m.onnx", "compare": "rkzoo compare m.onnx"},
)
HURT = replace(FINE, degraded=frozenset({"int8"}))
HALF = replace(FINE, degraded=frozenset({"fp16", "int8"}))
RAW = Contract(
    family="tiny",
    picture=INPUT,
    head=DetectHead(outputs=HEAD.outputs, classes=3, strides=(8,), activated=False),
)


def with_int8(facts: Facts, *rows: OutputFigures) -> Facts:
    return replace(facts, outputs=facts.outputs | {"int8": rows})


def with_half(facts: Facts, *rows: OutputFigures) -> Facts:
    return replace(facts, outputs=facts.outputs | {"fp16": rows})


BGR = ImageInput(size=(64, 64), color="BGR", std=(1.0, 1.0, 1.0))
ONE_BAD = [*FINE.layers, layer("bad", 0.7, 0.7)]
MANY_BAD = [layer(f"c{i}", 0.9, 0.95) for i in range(20)]

# kind of rule -> facts that provoke it, words that it must say.
CASES: dict[str, tuple[Facts, tuple[str, ...]]] = {
    "feed": (replace(FINE, better=BGR), ("BGR", "std 1,1,1", "colour order")),
    "normalised-twice": (replace(FINE, gain=1 / 255), ("twice", "0.00392", "255")),
    "float-suspect": (replace(FINE, warnings=["a flood of boxes"]), ("a flood of boxes",)),
    "layout": (
        with_half(HALF, row("box", "box", 0.3, transposed=0.9999)),
        ("NCHW", "NHWC", "box", "0.3000"),
    ),
    "overflow": (
        replace(with_half(HALF, row("box", "box", 0.5)), largest=("wide", 3e5)),
        ("overflow", "wide", "65504"),
    ),
    "underflow": (
        replace(with_half(HALF, row("box", "box", None)), smallest=("thin", 1e-9)),
        ("underflow", "thin", "1e-09"),
    ),
    "collapsed-scale": (
        with_int8(HURT, coded("out", "decoded", 0.999, scale=2.5)),
        ("collapsed", "every score becomes 0", "share"),
    ),
    "zeroed": (
        replace(HURT, layers=[*FINE.layers, layer("dead", 0, 0, zero=True)]),
        ("dead", "rounded to 0"),
    ),
    "saturated": (
        with_int8(
            HURT, coded("box", "box", 0.9, clipped=0.03, at_high=0.03, float_high=9.0, high=2.0)
        ),
        ("saturated", "3.00%", "9", "normal"),
    ),
    "sigmoid-range": (
        replace(
            with_int8(HURT, coded("score", "score", 0.97, scale=0.5, float_low=-120.0)),
            contract=RAW,
        ),
        ("sigmoid", "-120", "0.12"),
    ),
    "one-layer": (replace(HURT, layers=ONE_BAD), ("One layer", "bad (Conv, cosine 0.7000)")),
    "four-bit-weights": (
        replace(
            HURT,
            outputs={"fp16": [row("box", "box", 0.9999)], "w4a16": [row("box", "box", 0.4)]},
            degraded=frozenset({"w4a16"}),
        ),
        ("do not survive 4 bits", "0.4000"),
    ),
    "float16-off": (with_half(HALF, row("box", "box", 0.6)), ("Float16", "0.6000", "not INT8")),
    "few-pictures": (replace(HURT, calibrated=2), ("2 pictures",)),
    "spread": (replace(HURT, layers=MANY_BAD), ("20 of 20 layers",)),
}


def test_every_rule_has_a_case() -> None:
    assert list(CASES) == [rule.kind for rule in RULES]


@pytest.mark.parametrize("kind", CASES)
def test_a_rule_speaks_on_its_facts(kind: str) -> None:
    facts, words = CASES[kind]
    found = {cause.kind: cause for cause in causes(facts)}
    assert kind in found, found
    for word in words:
        assert word in found[kind].text, found[kind].text
    assert found[kind].fix


@pytest.mark.parametrize("kind", CASES)
def test_no_rule_speaks_where_all_is_well(kind: str) -> None:
    assert causes(FINE) == ()
    alone = {"feed", "normalised-twice", "float-suspect", "layout", "collapsed-scale"}
    if kind not in alone:
        facts, _ = CASES[kind]
        assert causes(replace(facts, degraded=frozenset())) == (), "small faults that hurt nothing"


def test_what_to_type() -> None:
    fixes = {
        kind: {c.kind: c.fix for c in causes(facts)}[kind] for kind, (facts, _) in CASES.items()
    }
    assert fixes["feed"] == "rkzoo compare m.onnx --color BGR --mean 0,0,0 --std 1,1,1"
    told = FINE.commands | {"compare": "rkzoo compare m.onnx --std 1,1,1 --calib a"}
    (cause,) = causes(replace(FINE, better=BGR, commands=told))
    assert cause.fix == "rkzoo compare m.onnx --calib a --color BGR --mean 0,0,0 --std 1,1,1"
    weights = fixes["four-bit-weights"]
    assert weights.startswith("rkzoo convert m.onnx --dtype w4a16 --algorithm gdq --calib FOLDER ")
    assert fixes["one-layer"] == "rkzoo tune m.onnx"
    assert "--no-cut" in fixes["collapsed-scale"]


def test_an_overflow_is_told_from_the_outputs_alone() -> None:
    facts = with_half(HALF, row("box", "box", None))
    (first, *_) = causes(facts)
    assert first.kind == "overflow"
    assert "not finite" in first.text


def test_small_errors_that_add_up() -> None:
    (cause,) = causes(HURT)
    assert cause.kind == "spread"
    assert "add up over 20 layers" in cause.text
    (cause,) = causes(replace(HURT, layers=()))
    assert "not compared" in cause.text


def test_conversions_are_no_layers_of_their_own() -> None:
    twice = [layer("bad", 0.7, 0.7), layer("out", 0.7, 0.7, op="exDataConvert")]
    (cause,) = causes(replace(HURT, layers=twice))
    assert "out" not in cause.text.split("bad")[1]


def graph(*steps: tuple[str, float]) -> onnx.ModelProto:
    nodes, stored, at = [], [], "x"
    for number, (op, value) in enumerate(steps):
        name = f"t{number}"
        stored.append(numpy_helper.from_array(np.array(value, np.float32), f"k{number}"))
        nodes.append(helper.make_node(op, [at, f"k{number}"], [name]))
        at = name
    stored.append(numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "w"))
    nodes.append(helper.make_node("Conv", [at, "w"], ["c"]))
    nodes.append(helper.make_node("Div", ["c", "w"], ["y"]))
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [info("y", TensorProto.FLOAT, None)],
        stored,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_what_a_graph_does_to_its_picture_itself() -> None:
    assert input_scale(graph()) is None
    assert input_scale(graph(("Div", 255.0))) == pytest.approx(1 / 255)
    assert input_scale(graph(("Sub", 128.0), ("Mul", 0.01))) == pytest.approx(0.01)
    assert input_scale(graph(("Sub", 128.0))) is None, "a shift alone does not scale"
    assert input_scale(graph(("Mul", 2.0), ("Div", 510.0))) == pytest.approx(1 / 255)


def test_faint_scores_are_no_alarm() -> None:
    assert like_float([row("score", "score", 0.7, difference=0.05)])
    assert not like_float([row("score", "score", 0.7, difference=0.4)])
    assert not like_float([row("box", "box", 0.7, difference=0.05)])
    assert not like_float([row("score", "score", 0.7, difference=0.05, float_low=-9.0)])
    assert not like_float([row("box", "box", None)])
    assert like_float([])
