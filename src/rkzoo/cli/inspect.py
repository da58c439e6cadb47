"""`rkzoo inspect`: show the content of a model file, and check it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.console import add_anchors
from rkzoo.cli.model_options import add_inputs
from rkzoo.cli.streams import one_line

if TYPE_CHECKING:
    from rkzoo.checks import Check
    from rkzoo.contract.inputs import ImageInput, TensorSpec
    from rkzoo.contract.model import Contract
    from rkzoo.graph.onnx.summary import GraphSummary
    from rkzoo.graph.rknn.reader import RknnFile
    from rkzoo.toolkit.recipe import Sidecar
    from rkzoo.workflow.comparison.inspect import Inspection, OnnxContent, RknnContent
    from rkzoo.workflow.request.pipeline_file import Pipeline as Pipeline

_MARK = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
_FORMS = {
    "stock": "stock export",
    "vendor-3": "Rockchip's form, one tensor a level",
    "vendor-6": "Rockchip's form, box and score a level",
    "vendor-7": "Rockchip's form, scores and mask coefficients a level, and prototypes",
    "vendor-9": "Rockchip's form, box, score and sum a level",
    "vendor": "Rockchip's form",
    "whole": "used whole",
}
_CONTAINERS = {6: "6 (RKNPU2)", 0x1004: "0x1004 (RV1103/RV1106 and mini builds)"}
_SHOWN_OPERATORS = 12


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "inspect",
        help="show what is in a model file, and whether it will work",
        description="Shows the content of a model file, and checks it. "
        "Exits with 1 where the verdict has a FAIL.",
        epilog="Example: rkzoo inspect yolov8n.onnx        rkzoo inspect yolov8n.rknn --json",
    )
    parser.add_argument(
        "file", metavar="FILE", help="an .onnx, .tflite, .pb, .torchscript, .rknn or .rknn.json"
    )
    parser.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    add_inputs(parser)
    add_anchors(parser)
    parser.add_argument(
        "--image",
        nargs="+",
        metavar="PICTURE",
        help="run the model on these with other colour orders and ranges, to find the best",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.vision.image import expand
    from rkzoo.workflow.comparison.inspect import inspect

    seen = inspect(
        args.file,
        request=request(args),
        pictures=expand(args.image) if args.image else (),
        report=ProgressBars(),
    )
    if args.json:
        print_json(seen.to_json())
    else:
        _print_summary(seen)
    return 0 if seen.ok else 1


def _print_summary(seen: Inspection) -> None:
    from rkzoo.toolkit.recipe import Sidecar
    from rkzoo.workflow.comparison.inspect import OnnxContent, RknnContent

    content = seen.content
    if isinstance(content, OnnxContent):
        _print(seen.file, _graph(content))
        if content.recognition:
            _lines("Seen in the graph", content.recognition.evidence)
    elif isinstance(content, RknnContent):
        _print(seen.file, _built(content))
    elif isinstance(content, Sidecar):
        return _print(seen.file, _sidecar(content))
    else:
        _print(seen.file, _pipeline(content))
        return print(f"\nNext: {seen.next}")
    _verdict(seen.checks, seen.next)


# ---- ONNX ---------------------------------------------------------------------------


def _graph(content: OnnxContent) -> list[tuple[str, str]]:
    summary, card, recognition = content.summary, content.card, content.recognition
    rows = [("file", f"{_size(content.bytes)}, {_producer(summary)}")]
    rows += [("input", _tensor(t.name, t.dtype, t.shape)) for t in summary.inputs]
    rows += [("output", _tensor(t.name, t.dtype, t.shape)) for t in summary.outputs]
    if summary.dynamic:
        rows.append(("free sizes", ", ".join(summary.dynamic)))
    rows.append(("weights", f"{summary.parameters:,} numbers, {_size(summary.parameter_bytes)}"))
    rows.append(("operators", _counted(summary.operators)))
    if card:
        rows.append(("card", f"{card.name}: {card.title}"))
    if recognition:
        rows.append(("family", f"{recognition.family}, {_FORMS[recognition.form]}"))
        rows += _contract(recognition.contract)
    elif content.plain:
        rows.append(("family", "plain tensors"))
    return rows


def _producer(summary: GraphSummary) -> str:
    text = f"ONNX opset {summary.opset}, IR {summary.ir_version}"
    return f"{text}, by {summary.producer}" if summary.producer else text


def _contract(contract: Contract) -> list[tuple[str, str]]:
    from rkzoo.tasks.registry import spec_of

    rows = (
        [("takes", _picture(contract.picture))]
        if contract.picture
        else [("takes", _tensor(other.name, other.dtype, other.shape)) for other in contract.others]
    )
    rows += spec_of(contract.head).describe(contract.head)
    if contract.labels:
        more = ", ..." if len(contract.labels) > 6 else ""
        rows.append(("labels", ", ".join(contract.labels[:6]) + more))
    return rows


def _picture(image: ImageInput) -> str:
    height, width = image.size
    pad = f" padded with {image.pad}" if image.fit in ("letterbox", "line") else ""
    if image.fit == "crop":
        pad = f" of the middle, the short side scaled to {image.short or max(image.size)}"
    return (
        f"{image.color} picture, {height} high and {width} wide, {image.fit}{pad}, "
        f"mean {_numbers(image.mean)}, std {_numbers(image.std)}"
    )


# ---- RKNN ---------------------------------------------------------------------------


def _built(content: RknnContent) -> list[tuple[str, str]]:
    file = content.model
    rows = [
        ("file", f"{_size(file.file_bytes)}, container {_CONTAINERS[file.container]}"),
        ("chip", ", ".join(file.platforms) or "not stored"),
        ("toolkit", file.compiler or file.toolkit),
        ("made from", file.framework),
    ]
    rows += [("input", _quantised(spec, file)) for spec in file.inputs]
    rows += [("output", _quantised(spec, file)) for spec in file.outputs]
    if known := file.shapes.get(file.inputs[0].name if file.inputs else ""):
        rows.append(("several", ", ".join("x".join(map(str, shape)) for shape in known)))
    if file.batch > 1:
        rows.append(("batch", f"{file.batch} at once; the shapes are those of one"))
    targets = Counter(operator.target for operator in file.steps)
    rows.append(("placement", ", ".join(f"{n} on {t}" for t, n in targets.most_common())))
    rows.append(("operators", _counted(Counter(o.type for o in file.steps).most_common())))
    if file.cpu_operators:
        rows.append(("on the CPU", ", ".join(o.name or o.type for o in file.cpu_operators)))
    if file.weight_bytes:
        rows.append(("weights", _size(file.weight_bytes)))
    if file.memory_bytes:
        rows.append(("work memory", _size(file.memory_bytes)))
    rows.append(("custom", file.custom or "none"))
    if content.sidecar:
        rows.append(("sidecar", str(content.sidecar)))
    return rows


def _quantised(spec: TensorSpec, file: RknnFile) -> str:
    text = _tensor(spec.name, spec.dtype, spec.shape)
    if spec.scale is not None:
        text += f"  scale {spec.scale:.6g} zero point {spec.zero_point}"
    normalisation = file.normalisation.get(spec.name)
    if normalisation:
        text += f"  mean {_numbers(normalisation.mean)} std {_numbers(normalisation.std)}"
    return text


# ---- sidecars -----------------------------------------------------------------------


def _pipeline(content: Pipeline) -> list[tuple[str, str]]:
    parts = [(role, str(part)) for role, part in content.parts.items()]
    parts += [(role, f"{part} (on the processor)") for role, (part, _) in content.cpu.items()]
    parts += [(role, str(file)) for role, file in content.files.items()]
    return [("pipeline", content.name), *parts]


def _sidecar(sidecar: Sidecar) -> list[tuple[str, str]]:
    recipe = sidecar.recipe
    return [
        ("source", f"{sidecar.source.file} (sha256 {sidecar.source.sha256[:12]}...)"),
        ("card", sidecar.source.card or "none"),
        ("built for", f"{recipe.soc}, {recipe.dtype}, by toolkit {recipe.toolkit}"),
        ("calibration", f"{len(sidecar.calibration.files)} files, {recipe.algorithm}"),
        ("rkzoo", sidecar.rkzoo),
        *_contract(sidecar.contract),
        *(("warning", text) for text in sidecar.warnings),
    ]


# ---- text ---------------------------------------------------------------------------


def _print(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    print(one_line(str(path)))
    width = max([12, *(len(key) + 2 for key, _ in rows)])
    for key, value in rows:
        print(f"  {key:<{width}}{one_line(value)}")


def _lines(title: str, sentences: Iterable[str]) -> None:
    print(f"\n{title}")
    for sentence in sentences:
        print(f"  {one_line(sentence)}")


def _verdict(checks: Sequence[Check], following: str | None) -> None:
    print("\nVerdict")
    for check in checks:
        print(f"  {_MARK[check.level]}  {one_line(check.text)}")
    if following:
        print(f"\nNext: {following}")


def _tensor(name: str, dtype: str, shape: Sequence[int | str]) -> str:
    if any(isinstance(size, str) for size in shape):
        return f"{name}  {dtype} [{', '.join(str(size) for size in shape)}]"
    return f"{name}  {dtype} {'x'.join(str(size) for size in shape) or 'scalar'}"


def _counted(operators: Iterable[tuple[str, int]]) -> str:
    counted = [entry for entry in operators if entry[0] != "Constant"]
    shown = ", ".join(f"{name} {count}" for name, count in counted[:_SHOWN_OPERATORS])
    left = len(counted) - _SHOWN_OPERATORS
    return f"{shown} and {left} more kinds" if left > 0 else shown


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
