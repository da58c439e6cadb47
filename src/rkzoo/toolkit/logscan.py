"""Toolkit log parser: warnings and costs that the return value does not show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rkzoo.toolkit.logs import strip_colors

FindingKind = Literal[
    "cpu", "no-lowering", "regtask", "native-error", "collapsed-scale", "low-ceiling", "no-table"
]


@dataclass(frozen=True)
class Finding:
    """A problem, or possible problem, of a build that succeeded.

    `message` is a sentence for the user, `evidence` a quotation of the log.
    """

    kind: FindingKind
    message: str
    evidence: str


Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCost:
    """A row of the compiler's layer table, after fusion: estimated cost of a layer.

    Attributes:
        id: Position in the order of execution.
        op: Type of the layer.
        dtype: Its data type.
        target: "NPU", "CPU" or "GPU".
        input_shape: Shapes of what it reads: activations, then weights and bias.
        output_shape: Shape of its output; () for an output of the model.
        cycles_ddr: NPU clock cycles of memory access.
        cycles_npu: NPU clock cycles of computation, which overlaps memory access. Only
            convolution-like layers have cycles, others show 0.
        cycles_total: NPU clock cycles in all.
        rw_kb: Memory traffic in units of 1024 bytes, for every layer.
        name: "type:name of the ONNX node".
        sparse: Percentage of multiplications skipped, on chips that can; else None.
    """

    id: int
    op: str
    dtype: str
    target: str
    input_shape: tuple[Shape, ...]
    output_shape: Shape
    cycles_ddr: int
    cycles_npu: int
    cycles_total: int
    rw_kb: float
    name: str
    sparse: float | None = None


@dataclass(frozen=True)
class LogScan:
    """Contents of a build log. `internal` and `weights`: bytes of working and of weight memory on
    the chip, None where the log does not say.
    """

    layers: tuple[LayerCost, ...]
    findings: tuple[Finding, ...]
    internal: int | None
    weights: int | None


_NATIVE = re.compile(r"^([A-Z]) RKNN: (?:\[[\d:.]+\] ?)?(.*)$")
_ROW = re.compile(
    r"^(\d+)\s+(\S+)\s+(\S+)\s+(NPU|CPU|GPU)\s+(\S+)\s+(\S+)\s+"
    r"(\d+)/(\d+)/(\d+)\s+(?:([\d.]+)%\s+)?([\d.]+)\s+(\S.*?)\s*$"
)
_TOTAL = re.compile(r"^Total (Internal|Weight) Memory Size: ([\d.]+)(B|KB|MB|GB)")
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_LOWERING = re.compile(r"No lowering found for: (.+?), node type = (\w+)")
_REGTASK = re.compile(r"REGTASK: .*")
# Printed for plain reshapes, which the runtime only relabels.
_HARMLESS = re.compile(r"Unkown op target: 0")
_ENDS = ("InputOperator", "OutputOperator")


_RULE = re.compile(r"disable_rules=\['(\w+)'\]")


def broken_rule(text: str) -> str | None:
    """The optimization rule that the toolkit itself proposes to disable, the last it names; None
    for none.
    """
    named = _RULE.findall(strip_colors(text))
    return named[-1] if named else None


def lines_of(text: str) -> list[str]:
    """The log as lines, without colors; updates of a progress bar are lines too."""
    return [line.strip() for line in strip_colors(text).replace("\r", "\n").splitlines()]


def scan(text: str) -> LogScan:
    """Parse the log of a successful build."""
    layers: list[LayerCost] = []
    sizes: dict[str, int] = {}
    refused: dict[str, str] = {}
    overflow: list[str] = []
    errors: dict[str, str] = {}
    for line in lines_of(text):
        native = _NATIVE.match(line)
        body = native[2] if native else line
        if row := _ROW.match(body):
            layers.append(_layer(row))
        elif total := _TOTAL.match(body):
            # With several input shapes there is one table per shape: the largest counts.
            size = round(float(total[2]) * _UNITS[total[3]])
            sizes[total[1]] = max(size, sizes.get(total[1], 0))
        elif lowering := _LOWERING.search(body):
            refused[lowering[1]] = lowering[2]
        elif _REGTASK.search(body):
            overflow.append(line)
        elif native and native[1] == "E" and not _HARMLESS.search(body):
            errors[body.strip()] = line
    findings = [*_on_cpu(layers, refused), *_unlowered(refused), *_overflows(overflow)]
    findings += [
        Finding("native-error", f"The compiler reported an error and went on: {body}", line)
        for body, line in errors.items()
    ]
    if not layers:
        findings.append(
            Finding(
                "no-table",
                "The compiler printed no table of layers, so it is not known whether any of them"
                " runs on the processor instead of the NPU.",
                "",
            )
        )
    return LogScan(tuple(layers), tuple(findings), sizes.get("Internal"), sizes.get("Weight"))


def complaint(text: str) -> str:
    """The last line of a failed job's log that names a problem; "" for none."""
    last_error = ""
    for line in lines_of(text):
        native = _NATIVE.match(line)
        if native:
            body = native[2].strip() if native[1] in "EFW" else ""
        elif re.match(r"^[DTI] ", line) or re.search(r"\d+%\|", line):
            body = ""
        else:
            body = re.sub(r"^[EW] (\w+: )?", "", line)
        if re.search(r"\w{3}", body) and not _CHATTER.search(body):
            last_error = body
    return last_error[:400]


# Lines that follow the message or are unrelated to it.
_CHATTER = re.compile(
    r"^compress=|=====|If you can't handle this error|^Traceback|^File \"|^During handling"
    r"|temperate env|default (?:in|out)put dtype|Please take care of this change"
    r"|UserWarning|import pkg_resources|(?:mean|std)_values for input \d+ is empty"
)


def _layer(row: re.Match[str]) -> LayerCost:
    number, op, dtype, target, inputs, output, ddr, npu, total, sparse, traffic, name = row.groups()
    return LayerCost(
        id=int(number),
        op=op,
        dtype=dtype,
        target=target,
        input_shape=_shapes(inputs),
        output_shape=next(iter(_shapes(output)), ()),
        cycles_ddr=int(ddr),
        cycles_npu=int(npu),
        cycles_total=int(total),
        rw_kb=float(traffic),
        name=name,
        sparse=float(sparse) if sparse else None,
    )


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(
        tuple(int(size) for size in re.findall(r"-?\d+", shape))
        for shape in re.findall(r"\(([^()]*)\)", text)
    )


def _written(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _on_cpu(layers: list[LayerCost], refused: dict[str, str]) -> list[Finding]:
    inner = [layer for layer in layers if layer.op not in _ENDS]
    # The last reshapes only relabel the output, at almost no cost.
    trailing = len(inner)
    while trailing and inner[trailing - 1].op == "Reshape":
        trailing -= 1
    reshapes_at_end = {id(layer) for layer in inner[trailing:]}
    by_op: dict[str, dict[str, LayerCost]] = {}
    for layer in inner:
        if layer.target == "CPU" and id(layer) not in reshapes_at_end:
            by_op.setdefault(layer.op, {})[layer.name] = layer
    return [
        _cpu_finding(op, list(layer_costs.values()))
        for op, layer_costs in by_op.items()
        if op not in refused.values()
    ]


def _cpu_finding(op: str, layers: list[LayerCost]) -> Finding:
    first = layers[0]
    single = len(layers) == 1
    return Finding(
        "cpu",
        f"{len(layers)} layer{'' if single else 's'} of type {op} run{'s' if single else ''} on the"
        f" processor instead of the NPU, which is slow ({'' if single else 'the first is '}"
        f"{first.name}, {_written(first.output_shape)}).",
        f"{first.id} {op} {first.dtype} {first.target} {first.input_shape} {first.output_shape}"
        f" {first.name}",
    )


def _unlowered(refused: dict[str, str]) -> list[Finding]:
    return [
        Finding(
            "no-lowering",
            f"The operator {op} at {where} is not supported by the NPU, so the model will not run"
            " on the board unless you supply that operator yourself; export it as others, or end"
            " the model before it with the `outputs` of a card (rkzoo card new).",
            f"No lowering found for: {where}, node type = {op}",
        )
        for where, op in refused.items()
    ]


def _overflows(lines: list[str]) -> list[Finding]:
    if not lines:
        return []
    return [
        Finding(
            "regtask",
            "A tensor is too large for the NPU's registers, and results on the board are known"
            " to be wrong then; cut the model's head or use a smaller input.",
            lines[0],
        )
    ]
