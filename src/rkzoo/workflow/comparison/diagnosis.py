"""Diagnosis of accuracy loss: a table of rules from measured facts to an explanation and a command.

Rules depend on facts only, so each can be tested on recorded or synthetic facts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.tasks.registry import spec_of
from rkzoo.toolkit.analysis import LayerError
from rkzoo.toolkit.scales import check_scales
from rkzoo.workflow.comparison.input_probe import options
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures

if TYPE_CHECKING:
    import onnx

Runtime = Literal["onnx", "fp16", "int8", "w4a16", "board_fp16", "board_int8", "board_w4a16"]
"""What is run: float, a number format on the simulator, or one on a board."""
ON_BOARD: dict[Runtime, Runtime] = {
    "fp16": "board_fp16",
    "int8": "board_int8",
    "w4a16": "board_w4a16",
}

GOOD = 0.99
"""Cosine similarity of a layer below which it counts as bad."""
ALIKE = 0.98
"""Cosine similarity of an output, in the worst image, below which a backend deviates from float."""
LARGEST_HALF = 65504.0
"""Largest float16 value."""
ZERO_HALF = 2.0**-25
"""Largest value that float16 rounds to 0."""
_FEW_LAYERS = 3
_FEW_PICTURES = 10
_CLIPPED = 0.005  # share of an output's values
_COARSE_LOGIT = 0.2  # a step that moves a score of 0.5 by 0.05
_SMALL_SCORE = 0.1
_SCALED_DOWN = 0.2  # an input gain below this means that the graph normalizes pixels itself


Extreme = tuple[str, float]
"""A tensor, and a value of it."""


@dataclass(frozen=True)
class Facts:
    """What is known of one model (a part of a pipeline, or the only one).

    Attributes:
        name: name or role.
        contract: its contract.
        outputs: output statistics by backend, other than float.
        hurt: backends whose results or outputs deviate from float.
        layers: INT8 error by layer.
        warnings: suspicions about the float model itself.
        better: a preprocessing with clearly better results.
        gain: factor that the graph applies to its image input before the first layer; None without
            one.
        largest: tensor whose numbers, other than constants, pass float16, and its largest absolute
            value in float.
        smallest: tensor that is divided by and becomes 0 in float16, and its value in float.
        calibrated: number of calibration images; None where unknown.
        algorithm: calibration algorithm.
        commands: suggested commands by verb.
    """

    name: str
    contract: Contract
    outputs: Mapping[str, Sequence[OutputFigures]]
    degraded: frozenset[str]
    layers: Sequence[LayerError] = ()
    warnings: Sequence[str] = ()
    better: ImageInput | None = None
    gain: float | None = None
    largest: Extreme | None = None
    smallest: Extreme | None = None
    calibrated: int | None = None
    algorithm: str = "normal"
    commands: Mapping[str, str] = field(default_factory=dict)

    @property
    def int8(self) -> Sequence[OutputFigures]:
        """Output statistics of INT8."""
        return self.outputs.get("int8", ())

    @property
    def fp16(self) -> Sequence[OutputFigures]:
        """Output statistics of float16."""
        return self.outputs.get("fp16", ())

    def command(self, kind: str) -> str:
        """The suggested command of a verb."""
        return self.commands.get(kind, f"rkzoo {kind} {shlex.quote(self.name)}")


@dataclass(frozen=True)
class Cause:
    """A likely cause: `kind` names the rule, `text` explains, `fix` is the remedy."""

    kind: str
    model: str
    text: str
    fix: str


Look = Callable[[Facts], str]


@dataclass(frozen=True)
class Rule:
    """A diagnosis rule: `text` and `fix` by the facts; an empty text where it does not apply.
    `last` rules are tried only where no other applied.
    """

    kind: str
    text: Look
    fix: Look
    last: bool = False


def causes(facts: Facts) -> tuple[Cause, ...]:
    """The likely causes, most certain first; empty where nothing is wrong."""
    causes: list[Cause] = []
    for rule in RULES:
        if rule.last and causes:
            continue
        text = rule.text(facts)
        if text:
            causes.append(Cause(rule.kind, facts.name, text, rule.fix(facts)))
    return tuple(causes)


# ---- the rules ------------------------------------------------------------------------------


def _feed(facts: Facts) -> str:
    if facts.better is None:
        return ""
    return (
        "The float model itself finds clearly more when its pictures come in another form: "
        f"{_form(facts.better)} instead of {_form(facts.contract.input)}. The colour order or the "
        "range is not the one of its training, and no number format can fix that."
    )


def _form(image: ImageInput) -> str:
    mean, std = (",".join(f"{value:g}" for value in part) for part in (image.mean, image.std))
    return f"{image.color}, mean {mean}, std {std}"


def _feed_fix(facts: Facts) -> str:
    image = facts.better
    if image is None:
        return ""
    return f"{_unfed(facts)} {options(image)}"


def _unfed(facts: Facts) -> str:
    """The compare command without preprocessing options."""
    return re.sub(r" --(color|mean|std) \S+", "", facts.command("compare"))


def _twice(facts: Facts) -> str:
    if facts.contract.picture is None:
        return ""
    smallest = min(map(abs, facts.contract.picture.std))
    if facts.gain is None or abs(facts.gain) > _SCALED_DOWN or smallest * _SCALED_DOWN < 1:
        return ""
    return (
        f"The pictures are normalised twice: the graph itself multiplies them by {facts.gain:.3g} "
        f"before its first layer, and std {smallest:g} divides them once more."
    )


def _suspect(facts: Facts) -> str:
    # Input probe and graph are more specific.
    if facts.better is not None or _twice(facts) or not facts.warnings:
        return ""
    return f"The float model already gives a doubtful answer: {facts.warnings[0]}"


def _layout(facts: Facts) -> str:
    for runtime, rows in facts.outputs.items():
        for row in rows:
            if (row.cosine or 0) < 0.9 and (row.transposed or 0) > GOOD:
                return (
                    f"The numbers of the output {row.name} are right in {_TITLES[runtime]}, but "
                    "in another order: channels first (NCHW) and channels last (NHWC) are mixed "
                    f"up (cosine {_format_value(row.cosine)} as they come, "
                    f"{_format_value(row.transposed)} "
                    "transposed)."
                )
    return ""


def _overflow(facts: Facts) -> str:
    if "fp16" not in facts.degraded:
        return ""
    broken = [row for row in facts.fp16 if not row.finite]
    if facts.largest is not None:
        tensor, value = facts.largest
        return (
            f"Numbers overflow in float16: {tensor} reaches {value:.3g} in float, and float16 ends "
            f"at {LARGEST_HALF:.0f}."
        )
    if broken and facts.smallest is None:
        return (
            f"Numbers overflow in float16: the output {broken[0].name} is not finite there, "
            "though it is in float."
        )
    return ""


def _underflow(facts: Facts) -> str:
    if "fp16" not in facts.degraded or facts.smallest is None:
        return ""
    tensor, value = facts.smallest
    return (
        f"Numbers underflow in float16: {tensor} is divided by (or its logarithm is taken) and is "
        f"{value:.3g} in float, which float16 rounds to 0."
    )


def _half(facts: Facts) -> str:
    if "fp16" not in facts.degraded:
        return ""
    worst = min((row.cosine or 0 for row in facts.fp16), default=0.0)
    return (
        f"Float16 is off already (cosine {worst:.4f}), so it is not INT8 that hurts: the toolkit "
        "feeds or computes the graph in another way than ONNX Runtime does."
    )


def _collapsed(facts: Facts) -> str:
    specs = [_spec(row) for row in facts.int8 if row.scale is not None]
    roles = [_score_role(facts.contract, row) for row in facts.int8 if row.scale is not None]
    findings = [scale for scale in check_scales(specs, roles) if scale.kind == "collapsed-scale"]
    if not findings:
        return ""
    row = next(row for row in facts.int8 if row.name in findings[0].message)
    shared = row.role in ("decoded", "fused")
    why = " Boxes and scores share this tensor, and with it one scale." if shared else ""
    steps = round(1 / (row.scale or 1))
    left = f"only {steps + 1} different scores are left" if steps else "every score becomes 0"
    return (
        f"The scale of the output {row.name} has collapsed: it moves in steps of {row.scale:.3g}, "
        f"so of scores between 0 and 1 {left}.{why}"
    )


def _score_role(contract: Contract, row: OutputFigures) -> str:
    """Role under which `check_scales` examines an output; "" for one without scores."""
    head = contract.head
    if isinstance(head, DetectHead):
        if row.role == "fused":
            return "score" if head.activated else ""
        return row.role if head.activated else ""
    # Logits may have a large scale; boxes and landmarks of faces are not scores.
    return "score" if spec_of(head).has_bounded_scores(head) else ""


def _collapsed_fix(facts: Facts) -> str:
    if _is_uncut(facts):
        return f"{facts.command('compare')}   (without --no-cut: rkzoo cuts the head itself)"
    return facts.command("tune")


def _is_uncut(facts: Facts) -> bool:
    return any(row.role in ("decoded", "fused") for row in facts.int8)


def _clipped(facts: Facts) -> str:
    if "int8" not in facts.degraded:
        return ""
    rows = [row for row in facts.int8 if (row.clipped or 0) > _CLIPPED or _lost_top(row)]
    if not rows:
        return ""
    row = max(rows, key=lambda output_figures: output_figures.clipped or 0)
    ends = (row.at_low or 0) + (row.at_high or 0)
    return (
        f"The output {row.name} is saturated: float goes from {row.float_low:.3g} to "
        f"{row.float_high:.3g}, its INT8 codes only from {row.low:.3g} to {row.high:.3g}, so "
        f"{row.clipped or 0:.2%} of the numbers are cut off ({ends:.1%} stand at an end). The "
        "calibration pictures do not show the full range, or the algorithm "
        f"({facts.algorithm}) cuts it."
    )


def _lost_top(row: OutputFigures) -> bool:
    """Whether the highest scores are clipped."""
    if row.scale is None or row.role not in ("score", "objectness"):
        return False
    return row.float_high > row.high + max(2 * row.scale, 0.1 * abs(row.float_high))


def _logits(facts: Facts) -> str:
    head = facts.contract.head
    if "int8" not in facts.degraded or not isinstance(head, DetectHead) or head.activated:
        return ""
    rows = [
        row
        for row in facts.int8
        if row.role in ("score", "objectness") and (row.scale or 0) > _COARSE_LOGIT
    ]
    if not rows:
        return ""
    row = max(rows, key=lambda output_figures: output_figures.scale or 0)
    return (
        f"The scores leave the network before their sigmoid, and {row.name} runs from "
        f"{row.float_low:.3g} to {row.float_high:.3g}: those deep negative numbers all mean a "
        f"score of 0, yet they take most of the INT8 codes. One step is {row.scale:.2g}, which "
        f"moves a score near 0.5 by {(row.scale or 0) / 4:.2g}."
    )


def _zeroed(facts: Facts) -> str:
    rows = [row for row in facts.layers if row.all_zero]
    if "int8" not in facts.degraded or not rows:
        return ""
    more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"Every number of the layer {rows[0].tensor} ({rows[0].op}) is rounded to 0{more}."


def bad_layers(layers: Sequence[LayerError]) -> list[LayerError]:
    """Layers that are bad when quantized alone, worst first."""
    return [row for row in alone(layers) if (row.cosine_single or 0) < GOOD]


def alone(layers: Sequence[LayerError]) -> list[LayerError]:
    """Layers that were compared alone, worst first, without conversions between INT8 and float,
    which repeat the preceding layer.
    """
    rows = [row for row in layers if row.cosine_single is not None and row.op != "exDataConvert"]
    return sorted(rows, key=lambda row: row.cosine_single or 0)


def _one_layer(facts: Facts) -> str:
    bad = bad_layers(facts.layers)
    if "int8" not in facts.degraded or not 0 < len(bad) <= _FEW_LAYERS:
        return ""
    names = ", ".join(f"{row.tensor} ({row.op}, cosine {row.cosine_single:.4f})" for row in bad)
    several = len(bad) > 1
    return (
        f"{'A few layers' if several else 'One layer'} alone "
        f"{'do' if several else 'does'} the harm, {'each' if several else ''} computed in INT8 "
        f"with all else in float: {names}."
    ).replace("  ", " ")


def _many_layers(facts: Facts) -> str:
    if "int8" not in facts.degraded:
        return ""
    bad = bad_layers(facts.layers)
    known = alone(facts.layers)
    if len(bad) > _FEW_LAYERS:
        return (
            f"INT8 hurts in {len(bad)} of {len(known)} layers, the worst of them {bad[0].tensor} "
            f"({bad[0].op}, cosine {bad[0].cosine_single:.4f})."
        )
    if known:
        return (
            f"No layer is bad by itself; small errors add up over {len(known)} layers until the "
            "answer changes."
        )
    return (
        "INT8 changes the answer, and the outputs alone do not tell why (the layers were not "
        "compared)."
    )


def _four_bits(facts: Facts) -> str:
    if "w4a16" not in facts.degraded or "fp16" in facts.degraded:
        return ""
    worst = min((row.cosine or 0 for row in facts.outputs.get("w4a16", ())), default=0.0)
    return (
        f"The weights do not survive 4 bits (cosine {worst:.4f}), while float16, which is the same "
        "between the layers, is right. Small convolutional networks rarely do."
    )


def _other_weights(facts: Facts) -> str:
    convert = facts.command("convert")
    calib = "" if "--calib " in convert else " --calib FOLDER"
    if facts.algorithm != "normal":
        return f"{convert} --dtype int8{calib}"
    return (
        f"{convert} --dtype w4a16 --algorithm gdq{calib}   (finds better weights with calibration "
        "pictures, in minutes; or use --dtype int8)"
    )


def _few_pictures(facts: Facts) -> str:
    count = facts.calibrated
    if "int8" not in facts.degraded or count is None or count >= _FEW_PICTURES:
        return ""
    return (
        f"INT8 was calibrated with {count} picture{'s' * (count != 1)} only, so ranges are guessed "
        "from little."
    )


def _tune(facts: Facts) -> str:
    return facts.command("tune")


def _inspect(facts: Facts) -> str:
    return facts.command("inspect")


def _twice_fix(facts: Facts) -> str:
    return f"{_unfed(facts)} --mean 0,0,0 --std 1,1,1"


_TITLES = {"onnx": "float", "fp16": "float16", "int8": "INT8", "w4a16": "W4A16"}

RULES: tuple[Rule, ...] = (
    Rule("feed", _feed, _feed_fix),
    Rule("normalised-twice", _twice, _twice_fix),
    Rule("float-suspect", _suspect, _inspect),
    Rule("layout", _layout, _inspect),
    Rule(
        "overflow",
        _overflow,
        lambda f: (
            f"{f.command('compare')} --dtype int8   (INT8 has its own range for each tensor; "
            "or train with smaller weights)"
        ),
    ),
    Rule(
        "underflow",
        _underflow,
        lambda f: (
            "Export the model with a larger epsilon there (1e-6), and compare again with "
            f"{f.command('compare')}"
        ),
    ),
    Rule("collapsed-scale", _collapsed, _collapsed_fix),
    Rule("zeroed", _zeroed, _tune),
    Rule(
        "saturated",
        _clipped,
        lambda f: (
            f"Give more pictures like those of the camera with --calib, or {f.command('tune')}"
        ),
    ),
    Rule(
        "sigmoid-range",
        _logits,
        lambda f: f"Export the model with its sigmoid, or {f.command('tune')}",
    ),
    Rule("one-layer", _one_layer, _tune),
    Rule(
        "four-bit-weights",
        _four_bits,
        _other_weights,
    ),
    Rule("float16-off", _half, _inspect, last=True),
    Rule("few-pictures", _few_pictures, lambda f: "Give 20 to 100 pictures with --calib."),
    Rule("spread", _many_layers, _tune, last=True),
)


def _spec(row: OutputFigures) -> TensorSpec:
    return TensorSpec(
        name=row.name, shape=(), dtype="int8", scale=row.scale, zero_point=row.zero_point
    )


def _format_value(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def like_float(rows: Sequence[OutputFigures]) -> bool:
    """Whether outputs match those of float."""
    return all(row.cosine is not None and (row.cosine >= ALIKE or _faint(row)) for row in rows)


def _faint(row: OutputFigures) -> bool:
    """Scores in 0..1 with a small difference: mostly 0, so their cosine drops by rounding."""
    scores = row.role in ("score", "score_sum", "objectness")
    return scores and row.float_low >= 0 and row.float_high <= 1 and row.difference < _SMALL_SCORE


# ---- facts that only the graph can tell -----------------------------------------------------


def input_scale(model: onnx.ModelProto) -> float | None:
    """What a graph multiplies its picture with before its first layer; None where it does no
    such thing."""
    from rkzoo.graph.onnx.input_preprocessing import input_preprocessing

    preprocessing = input_preprocessing(model)
    if preprocessing is None or all(gain == 1 for gain in preprocessing.gain):
        return None
    return float(np.mean(preprocessing.gain))
