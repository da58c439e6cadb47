"""Pre-build checks: known failures and crashes of the toolkit, reported all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rkzoo.errors import RkzooError
from rkzoo.soc.chips import chips, resolve
from rkzoo.soc.versions import judge, parse
from rkzoo.toolkit.recipe import DEFAULT_VERSION, Dtype, InputPlan, Recipe
from rkzoo.toolkit.versions import release

NEWEST_OPSET = 19
SMALL = 0x1004
"""Container of the chips whose library is the small one."""
FEW_SAMPLES = 10
"""Below this many calibration samples the INT8 ranges are unreliable."""

_BEFORE_2_3_2 = ("2.2.0", "2.3.0")
_BEFORE_2_5_0 = (*_BEFORE_2_3_2, "2.3.2")


@dataclass(frozen=True)
class Problem:
    """An obstacle to a build, one sentence each. A `warning` does not stop the build. `typo` is
    that of RkzooError."""

    what: str
    why: str
    fix: str
    severity: Literal["error", "warning"] = "error"
    typo: tuple[str, str] | None = None


# Why some combinations of chip and data type do not build, as measured.
_REASONS: Mapping[Dtype, str] = {
    "int8": "the toolkit's compiler crashes on INT8 for this chip",
    "fp16": "its NPU computes in integers only",
    "w4a16": "the toolkit takes 4-bit weights for {able} only",
}


def check(
    *,
    recipe: Recipe,
    opset: int,
    shapes: Mapping[str, Sequence[int]],
    samples: int,
    integer_operators: Sequence[str] = (),
    outputs_read_inside: Sequence[str] = (),
) -> tuple[Problem, ...]:
    """All problems of a planned build, errors first.

    Args:
        recipe: The build settings.
        opset: Opset of the graph.
        shapes: Declared shapes of the graph's inputs, -1 for a dynamic dimension that the recipe
            has to fix.
        samples: Number of calibration samples.
        integer_operators: Of a quantized graph (`recipe.quantised`), its integer operators
            (QLinearConv, ...).
        outputs_read_inside: Of a quantized graph, the outputs that other nodes read too.
    """
    problems = [
        *_chip(recipe),
        *_version(recipe),
        *_batch(recipe),
        *_opset(opset),
        *_inputs(recipe.inputs, shapes),
        *(problem for plan in recipe.inputs for problem in _normalisation(plan)),
        *_calibration(recipe, samples),
        *_hybrid(recipe),
        *_quantised(recipe, integer_operators, outputs_read_inside),
    ]
    return tuple(sorted(problems, key=lambda problem: problem.severity != "error"))


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one RkzooError that lists all errors among `problems`; warnings are ignored."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return
    if len(errors) == 1:
        raise RkzooError(errors[0].what, errors[0].why, errors[0].fix, typo=errors[0].typo)
    raise RkzooError(
        f"The model cannot be built: there are {len(errors)} problems.",
        " ".join(f"({n}) {p.what} {p.why}".rstrip() for n, p in enumerate(errors, 1)),
        " ".join(f"({n}) {p.fix}" for n, p in enumerate(errors, 1)),
    )


def _chip(recipe: Recipe) -> list[Problem]:
    try:
        soc = resolve(recipe.soc)
    except RkzooError as error:
        return [Problem(error.what, error.why, error.fix, typo=error.typo)]
    able = chips()[soc].dtypes
    if recipe.dtype in able:
        return []
    reason = _REASONS[recipe.dtype].format(able=_able(recipe.dtype))
    return [
        Problem(
            f"{soc} cannot be built for in {recipe.dtype}.",
            f"Measured with the real toolkit: {reason}.",
            f"Use --dtype {able[0]}.",
        )
    ]


def _batch(recipe: Recipe) -> list[Problem]:
    chip = chips().get(recipe.soc)
    if chip is None or chip.container != SMALL:
        return []
    if recipe.sizes:
        return [
            Problem(
                f"{recipe.soc} takes pictures of one size.",
                "Its library is the small one, which cannot choose among several.",
                "Leave --sizes out, and convert once for each.",
            )
        ]
    if recipe.batch == 1:
        return []
    return [
        Problem(
            f"{recipe.soc} takes one picture at a time.",
            "Its kind of .rknn has no place for a batch: the toolkit builds it without a word.",
            "Leave --batch out.",
        )
    ]


def _able(dtype: Dtype) -> str:
    """The chips that a data type builds for."""
    return " and ".join(soc for soc, chip in chips().items() if dtype in chip.dtypes)


def _version(recipe: Recipe) -> list[Problem]:
    try:
        release(recipe.toolkit)
    except RkzooError as error:
        return [Problem(error.what, error.why, error.fix, typo=error.typo)]
    other = (recipe.memory_plan, recipe.compute_order) != ("BestFit", "WidthFirst")
    if other and recipe.toolkit in _BEFORE_2_5_0:
        return [
            Problem(
                f"RKNN-Toolkit2 {recipe.toolkit} has one plan of the memory.",
                "The others came with 2.5.0.",
                f"Use --toolkit {DEFAULT_VERSION}, or leave --memory-plan and --compute-order out.",
            )
        ]
    if recipe.dtype == "w4a16" and recipe.toolkit in _BEFORE_2_3_2:
        return [
            Problem(
                f"RKNN-Toolkit2 {recipe.toolkit} has no 4-bit weights.",
                "They came with 2.3.2.",
                f"Use --toolkit {DEFAULT_VERSION}.",
            )
        ]
    broken = judge({"toolkit": parse(recipe.toolkit)}, chip=recipe.soc)
    return [
        Problem(
            f"RKNN-Toolkit2 {recipe.toolkit} cannot build for {recipe.soc}.",
            rule.why,
            f"Use --toolkit {DEFAULT_VERSION}.",
        )
        for rule in broken
        if rule.level == "fail"
    ]


def _opset(opset: int) -> list[Problem]:
    if opset <= NEWEST_OPSET:
        return []
    return [
        Problem(
            f"The model uses ONNX opset {opset}.",
            f"The toolkit reads opset {NEWEST_OPSET} and older.",
            "Export it again with a lower opset, for example opset_version=12.",
        )
    ]


def _inputs(plans: Sequence[InputPlan], shapes: Mapping[str, Sequence[int]]) -> list[Problem]:
    problems = []
    planned = {plan.name: plan.shape for plan in plans}
    for name in [name for name in shapes if name not in planned]:
        problems.append(
            Problem(
                f"The input {name} is not part of the build plan.",
                f"The build plan covers: {', '.join(planned) or 'nothing'}.",
                "Describe every input of the model.",
            )
        )
    for name, shape in planned.items():
        if name not in shapes:
            problems.append(
                Problem(
                    f"The model has no input called {name}.",
                    f"Its inputs are: {', '.join(shapes)}.",
                    "Use one of those names.",
                )
            )
            continue
        problems += _shape(name, shape, tuple(shapes[name]))
    return problems


def _shape(name: str, planned: tuple[int, ...], declared: tuple[int, ...]) -> list[Problem]:
    if not all(size > 0 for size in planned):
        return [
            Problem(
                f"The input {name} has dynamic dimensions: {_text(declared)}.",
                "The NPU needs every dimension to be a fixed number.",
                "Give the input size, or export the model with fixed shapes.",
            )
        ]
    fits = len(planned) == len(declared) and all(
        want in (have, -1) for have, want in zip(planned, declared, strict=False)
    )
    if fits:
        return []
    return [
        Problem(
            f"The input {name} cannot have the shape {_text(planned)}.",
            f"The model declares {_text(declared)}.",
            "Use a size that the model was exported for.",
        )
    ]


def _text(shape: Sequence[int]) -> str:
    return "x".join("?" if size < 0 else str(size) for size in shape)


def _normalisation(plan: InputPlan) -> list[Problem]:
    problems = []
    if not plan.mean and not plan.std:
        return []
    if len(plan.shape) != 4:
        problems.append(
            Problem(
                f"The input {plan.name} has mean and std but is not a picture.",
                f"Its shape is {_text(plan.shape)}; a picture has four dimensions.",
                "Leave mean and std empty for it.",
            )
        )
        return problems
    channels = plan.shape[1]
    for word, values in (("mean", plan.mean), ("std", plan.std)):
        if len(values) != channels:
            problems.append(
                Problem(
                    f"The input {plan.name} has {channels} channels, and {word} has"
                    f" {len(values)} numbers.",
                    "There must be one for each channel.",
                    f"Give {channels} numbers for {word}"
                    + (
                        "; the model seems to take NHWC pictures, so export it as NCHW."
                        if plan.shape[3] in (1, 3)
                        else "."
                    ),
                )
            )
    if 0.0 in plan.std:
        problems.append(
            Problem(
                f"The std of the input {plan.name} contains 0.",
                "Pixels would be divided by zero.",
                "Use the std the model was trained with, 255 when pixels were scaled to 0..1.",
            )
        )
    if plan.shape[0] != 1:
        problems.append(
            Problem(
                f"The input {plan.name} takes {plan.shape[0]} pictures at once.",
                "Calibration and the simulator feed one picture at a time.",
                "Export the model with batch size 1.",
            )
        )
    return problems


def _calibration(recipe: Recipe, samples: int) -> list[Problem]:
    if recipe.algorithm == "gdq" and recipe.dtype != "w4a16":
        return [
            Problem(
                f"The algorithm gdq does not go with {recipe.dtype}.",
                "The toolkit has it for 4-bit weights alone.",
                "Use another --algorithm, or --dtype w4a16.",
            )
        ]
    if recipe.dtype == "w4a16" and recipe.algorithm not in ("normal", "gdq"):
        return [
            Problem(
                f"The algorithm {recipe.algorithm} does not go with w4a16.",
                "Between the layers it is float16, so there are no ranges to find.",
                "Use --algorithm gdq, which finds better weights, or normal.",
            )
        ]
    gdq = recipe.dtype == "w4a16" and recipe.algorithm == "gdq"
    if not gdq and (recipe.dtype != "int8" or recipe.quantised):
        return []
    if samples <= 0:
        chip = chips().get(recipe.soc)
        other = ", or use --dtype fp16" if chip is None or "fp16" in chip.dtypes else ""
        return [
            Problem(
                "There are no calibration pictures.",
                "gdq finds 4-bit weights by what the layers answer to them."
                if gdq
                else "INT8 needs some to determine the range of every tensor.",
                f"Give a folder of typical pictures with --calib{other}.",
            )
        ]
    if samples >= FEW_SAMPLES:
        return []
    return [
        Problem(
            f"There {'is' if samples == 1 else 'are'} only {samples} calibration"
            f" picture{'' if samples == 1 else 's'}.",
            "The INT8 ranges are then unreliable, and accuracy may suffer.",
            "Give 20 to 100 typical pictures with --calib.",
            "warning",
        )
    ]


def _hybrid(recipe: Recipe) -> list[Problem]:
    if not recipe.float_layers and not recipe.auto_hybrid:
        return []
    if recipe.quantised or recipe.dtype != "int8":
        why = "It is quantised already." if recipe.quantised else f"It is built in {recipe.dtype}."
        return [
            Problem(
                "Layers of this model cannot be chosen to stay in float16.",
                why,
                "Leave the float layers out.",
            )
        ]
    problems = []
    if recipe.float_layers and recipe.auto_hybrid:
        problems.append(
            Problem(
                "Float layers are named, and auto_hybrid is set too.",
                "The toolkit supports only one of the two.",
                "Give names, or auto_hybrid.",
            )
        )
    soc = chips().get(recipe.soc)
    if soc is not None and "fp16" not in soc.dtypes:
        problems.append(
            Problem(
                f"{recipe.soc} cannot keep layers in float16.",
                "Its NPU computes in integers only.",
                "Leave the float layers out.",
            )
        )
    if recipe.auto_hybrid and recipe.toolkit in _BEFORE_2_3_2:
        problems.append(
            Problem(
                f"RKNN-Toolkit2 {recipe.toolkit} has no auto_hybrid.",
                "That came with 2.3.2.",
                "Use a newer toolkit, or name the layers.",
            )
        )
    return problems


def _quantised(
    recipe: Recipe, integer_operators: Sequence[str], outputs_read_inside: Sequence[str]
) -> list[Problem]:
    problems = []
    if recipe.quantised and recipe.dtype != "int8":
        problems.append(
            Problem(
                f"The model is quantised already, so it cannot be built in {recipe.dtype}.",
                "Its weights are INT8 already; the toolkit takes them as they are.",
                "Use --dtype int8, or the float model.",
            )
        )
    if integer_operators:
        problems.append(
            Problem(
                f"The model is quantised with integer operators ({integer_operators[0]}).",
                "The toolkit reads quantised models only as float operators between"
                " QuantizeLinear and DequantizeLinear nodes.",
                "Export it again in that form (QDQ), or give the float model.",
            )
        )
    if outputs_read_inside:
        problems.append(
            Problem(
                f"The output {outputs_read_inside[0]} of this quantised model is also read inside"
                " it.",
                "The toolkit fails on that: it looks for the scale of a copy that has none.",
                "Export the model without the nodes behind that output.",
            )
        )
    return problems
