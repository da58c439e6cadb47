"""Reading the toolkit's log. The samples are lines of real logs, shortened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.contract.inputs import TensorSpec
from rkzoo.toolkit.logs import last_line
from rkzoo.toolkit.logscan import LayerCost, broken_rule, complaint, scan
from rkzoo.toolkit.scales import check_scales, unseen_scores

T = "D RKNN: [18:02:44.191] "
HEAD = (
    T + "ID  OpType  DataType Target InputShape  OutputShape  Cycles(DDR/NPU/Total) RW(KB) FullName"
)
INPUT = T + r"0  InputOperator  INT8  CPU  \  (1,3,32,32)  0/0/0  0  InputOperator:x "
CONV = (
    T
    + "1  ConvRelu  INT8  NPU  (1,3,32,32),(8,3,3,3),(8)  (1,8,32,32)  1575/9216/9216  4  Conv:c  "
)
SPARSE = (
    T
    + "2  ConvExSwish  INT8  NPU  (1,16,320,320),(32,16,3,3),(32)  (1,32,160,160)  329868/230400/329868  0.00%  1604  Conv:/model.1/conv/Conv"  # noqa: E501
)
SOFTMAX = (
    T
    + "3  exSoftmax13  INT8  CPU  (2,400,1,400)  (2,400,1,400)  0/0/0  312  Softmax:/model.10/attn/Softmax"  # noqa: E501
)
RESHAPE = T + "4  Reshape  INT8  CPU  (1,84,1,8400),(3)  (1,84,8400)  0/0/0  689  Reshape:last"
OUTPUT = T + r"5  OutputOperator  INT8  CPU  (1,8,32,32)  \  0/0/0  32  OutputOperator:y"
TOTALS = T + "Total Internal Memory Size: 35KB\n" + T + "Total Weight Memory Size: 3.375KB"
BAR = "\rI Quantizating :  0%|  | 0/2 [00:00<?, ?it/s]\rI Quantizating : 100%|████| 2/2 [00:00<00:00, 405.76it/s]"  # noqa: E501


def log(*lines: str) -> str:
    return "\n".join(lines)


def test_a_clean_build_has_layers_and_totals_and_no_finding():
    found = scan(log(BAR, HEAD, INPUT, CONV, SPARSE, RESHAPE, OUTPUT, TOTALS))
    assert found.findings == ()
    assert [layer.op for layer in found.layers] == [
        "InputOperator",
        "ConvRelu",
        "ConvExSwish",
        "Reshape",
        "OutputOperator",
    ]
    conv, sparse = found.layers[1:3]
    assert conv == LayerCost(
        id=1,
        op="ConvRelu",
        dtype="INT8",
        target="NPU",
        input_shape=((1, 3, 32, 32), (8, 3, 3, 3), (8,)),
        output_shape=(1, 8, 32, 32),
        cycles_ddr=1575,
        cycles_npu=9216,
        cycles_total=9216,
        rw_kb=4.0,
        name="Conv:c",
    )
    assert (sparse.cycles_ddr, sparse.cycles_npu, sparse.cycles_total) == (329868, 230400, 329868)
    assert (sparse.rw_kb, sparse.sparse) == (1604.0, 0.0)
    assert (found.layers[0].input_shape, found.layers[-1].output_shape) == ((), ())
    assert found.internal == 35 * 1024
    assert found.weights == 3456


def test_cpu_layers_are_named_once_a_type():
    again = SOFTMAX.replace("3    ex", "6    ex").replace("model.10", "model.22")
    found = scan(log(HEAD, INPUT, CONV, SOFTMAX, CONV, again, OUTPUT)).findings
    assert [(one.kind, one.message.split()[0]) for one in found] == [("cpu", "2")]
    assert "Softmax:/model.10/attn/Softmax" in found[0].message


def test_a_reshape_on_the_cpu_counts_unless_it_is_the_last():
    assert scan(log(INPUT, CONV, RESHAPE, OUTPUT)).findings == ()
    assert [one.kind for one in scan(log(INPUT, RESHAPE, CONV, OUTPUT)).findings] == ["cpu"]


def test_what_the_compiler_only_prints_is_found():
    lowering = "No lowering found for: y, node type = Det, use CustomOperatorLower instead."
    regtask = (
        "E RKNN: [10:00:00.000] REGTASK: The bit width of field value exceeds the limit,"
        " target: v2, offset: 0x5048, shift = 16, limit: 0x1fff, value: 0x20cf"
    )
    other = "E RKNN: [10:00:00.000] Lut fuse dtype not support yet!"
    harmless = "E RKNN: [10:00:00.000] Unkown op target: 0"
    det = T + "2    Det   INT8   CPU   (1,8,32,32)   (1,8)   0/0/0   1   Det:y"
    found = scan(log(lowering, regtask, regtask, other, harmless, CONV, det)).findings
    assert {one.kind for one in found} == {"no-lowering", "regtask", "native-error"}
    assert len(found) == 3
    by_kind = {one.kind: one for one in found}
    assert "Det" in by_kind["no-lowering"].message
    assert "0x1fff" in by_kind["regtask"].evidence
    assert "Lut fuse" in by_kind["native-error"].evidence
    assert "Lut fuse dtype not support yet!" in by_kind["native-error"].message


def test_a_log_without_a_table_is_no_clean_bill():
    assert [one.kind for one in scan("I rknn building done.").findings] == ["no-table"]


def test_colours_and_bars_do_not_hide_anything():
    assert scan(f"\x1b[1;33m{SOFTMAX}\x1b[0m\n{BAR}\r{CONV}").findings[0].kind == "cpu"


@given(st.text())
def test_any_text_is_read_without_an_exception(text):
    scan(text)
    complaint(text)
    last_line(text)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (
            [
                "\x1b[31mE build: Current target_platform(rv1106) not support do_quantization ="
                " False!\x1b[0m",
                "W If you can't handle this error, please try updating to the latest version",
                BAR,
            ],
            "Current target_platform(rv1106) not support do_quantization = False!",
        ),
        (
            ["I rknn building ...", "Meet unsupported conv, input tensor name: x", CONV],
            "Meet unsupported conv, input tensor name: x",
        ),
        ([CONV, BAR, "I rknn building done."], ""),
        ([], ""),
    ],
)
def test_the_complaint_is_the_toolkits_last_word(lines, wanted):
    assert complaint(log(*lines)) == wanted


def test_last_line_skips_frames_and_bars():
    assert last_line("Traceback\nValueError: The 'nope' is invalid!\n\n=====\n" + BAR) == (
        "ValueError: The 'nope' is invalid!"
    )


def spec(name: str, scale: float | None) -> TensorSpec:
    return TensorSpec(name=name, shape=(1, 84, 8400), dtype="int8", scale=scale, zero_point=-128)


def test_scales_too_coarse_for_scores_are_found():
    outputs = [spec("all", 2.494), spec("s", 1 / 255), spec("b", 2.4), spec("f", None)]
    found = check_scales(outputs, ["decoded", "score", "box", "score"])
    assert [(one.kind, "all" in one.message) for one in found] == [("collapsed-scale", True)]
    assert "every score becomes 0" in found[0].message
    assert "only 6 different scores" in check_scales([spec("s", 0.2)], ["score"])[0].message
    assert check_scales([spec("logits", 0.2)], [""]) == ()


def test_the_optimisation_that_the_log_blames() -> None:
    line = "You can add disable_rules=['fuse_a_to_b'] in rknn.config() to disable the error rule!"
    assert broken_rule(f"x\n\x1b[1;33mW\x1b[0m {line}\n") == "fuse_a_to_b"
    assert broken_rule("disable_rules=[__import__('os')]") is None
    assert broken_rule("") is None


def test_scores_that_end_far_below_1_are_found():
    """The scale that foreign calibration pictures leave a sigmoid: 0.5 / 255."""
    low, whole = spec("low", 0.5 / 255), spec("whole", 1 / 255)
    (found,) = check_scales([low, whole, low], ["score", "score", "box"])
    assert found.kind == "low-ceiling"
    assert "0.50" in found.message
    assert "--calib" in found.message


def test_pictures_without_the_object_are_told():
    assert unseen_scores({}) == ()
    assert unseen_scores({"near": 0.3, "far": 0.9}) == ()
    (found,) = unseen_scores({"near": 0.18, "far": 0.03})
    assert "above 0.18" in found.message
