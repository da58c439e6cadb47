"""rkzoo inspect: what is in a file, and whether it will work."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.cli.console import add_anchors

if TYPE_CHECKING:
    from rkzoo.checks import Check
    from rkzoo.contract.inputs import TensorSpec
    from rkzoo.contract.model import Contract
    from rkzoo.graph.onnx.summary import GraphSummary
    from rkzoo.graph.rknn.reader import RknnFile
    from rkzoo.zoo.schema import Card

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
        help="what is in a model's file, and whether it will work",
        description="Shows what a model's file holds, and what to know of it.",
        epilog="Example: rkzoo inspect yolov8n.onnx        rkzoo inspect yolov8n.rknn --json",
    )
    parser.add_argument(
        "file", metavar="FILE", help="an .onnx, .tflite, .pb, .torchscript, .rknn or .rknn.json"
    )
    parser.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    add_anchors(parser)
    parser.add_argument(
        "--image",
        nargs="+",
        metavar="PICTURE",
        help="run the model on these in other colour orders and ranges: which does it like best?",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    path = Path(args.file)
    if path.suffix.lower() == ".json":
        # What lies beside a .rknn has its name.
        beside = path.stem.lower().endswith(".rknn")
        return (_sidecar if beside else _pipeline)(path, as_json=args.json)
    if not path.exists():
        _refuse_name(args.file)
    if _begins_with(path, (b"RKNN", b"RKCE")) or path.suffix.lower() == ".rknn":
        return _rknn(path, as_json=args.json)
    from rkzoo.cli.console import parse_size
    from rkzoo.vision.image import expand

    pictures = expand(args.image) if args.image else []
    size = parse_size(args.size)
    return _onnx(path, size, args.anchors, pictures, as_json=args.json)


def _refuse_name(name: str) -> None:
    """Raises RkzooError for a name of the zoo, which is no file."""
    from rkzoo.errors import RkzooError
    from rkzoo.zoo.catalogue import names

    if name in names():
        raise RkzooError(
            f"{name} is a name of the zoo, and no file.",
            "rkzoo inspect looks into files.",
            f"See rkzoo info {name}, which also tells where its file lies.",
        )


def _begins_with(path: Path, magics: Iterable[bytes]) -> bool:
    from rkzoo.files import explained

    with explained(f"{path} cannot be read."), path.open("rb") as file:
        return file.read(4) in magics


# ---- ONNX ---------------------------------------------------------------------------


def _onnx(
    path: Path,
    size: tuple[int, int] | None,
    anchors: str | None,
    pictures: Sequence[Path],
    *,
    as_json: bool,
) -> int:
    from rkzoo.cli.console import Bars, print_json
    from rkzoo.errors import RkzooError
    from rkzoo.graph.families.registry import file_labels, recognise
    from rkzoo.graph.lowering.checks import graph_checks
    from rkzoo.graph.onnx.read import load
    from rkzoo.graph.onnx.summary import summarise
    from rkzoo.workflow.request.importers.registry import as_onnx

    model = load(as_onnx(path, Bars(), size=size))
    summary = summarise(model)
    card = _card(path)
    recognition, unknown = None, None
    try:
        recognition = recognise(model, size)
    except RkzooError as error:
        unknown = error
    if recognition is not None and anchors is not None:
        from rkzoo.graph.families.anchors import parse_anchors
        from rkzoo.workflow.request.resolve import with_given

        recognition = with_given(recognition, parse_anchors(anchors), path.stem)
    contract = recognition.contract if recognition else None
    checks = graph_checks(
        summary,
        recognition,
        unknown,
        card=card.name if card else "",
        named=len(file_labels(model)),
    )
    if pictures and recognition is not None:
        checks += _fed(path, size, anchors, pictures)
    failed = any(check.level == "fail" for check in checks)
    following = "" if failed else _convert(card.name if card else str(path), size, anchors)
    if as_json:
        print_json(
            {
                "kind": "onnx",
                "file": str(path),
                "bytes": path.stat().st_size,
                "card": card.name if card else None,
                "summary": _plain(summary),
                "recognition": _plain(recognition),
                "unrecognised": unknown.to_json() if unknown else None,
                "checks": _plain(checks),
                "next": following or None,
            }
        )
        return 0
    rows = [("file", f"{_size(path.stat().st_size)}, {_made(summary)}")]
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
    if contract:
        rows += _contract(contract)
    _print(path, rows)
    if recognition:
        _lines("Seen in the graph", recognition.evidence)
    _verdict(checks, following)
    return 0


def _fed(
    path: Path, size: tuple[int, int] | None, anchors: str | None, pictures: Sequence[Path]
) -> list[Check]:
    """What the model's answers to pictures say of how it is to be fed."""
    from rkzoo.checks import Check
    from rkzoo.cli.console import Bars
    from rkzoo.contract.detect import DetectHead
    from rkzoo.graph.families.anchors import parse_anchors
    from rkzoo.workflow.comparison.input_probe import input_checks, probe
    from rkzoo.workflow.request.resolve import resolve

    ready = resolve(str(path), size=size, anchors=parse_anchors(anchors) if anchors else None)
    if ready.contract.texts:
        said = "It takes texts beside the picture, so its answers are not tried out here."
        return [Check("warn", said)]
    if not isinstance(ready.contract.head, DetectHead):
        said = "Other forms of the picture are tried out on detection models only."
        return [Check("warn", said)]
    graph = ready.graph().SerializeToString()
    return list(input_checks(probe(graph, ready.contract, pictures, Bars())))


def _card(path: Path) -> Card | None:
    """The card whose weights this very file is."""
    from rkzoo.files import sha256_of
    from rkzoo.zoo.catalogue import cards

    digest = sha256_of(path)
    for card in cards():
        if any(source.sha256 == digest for source in card.sources):
            return card
    return None


def _convert(model: str, size: tuple[int, int] | None, anchors: str | None) -> str:
    import shlex

    option = f" --size {size[0]}x{size[1]}" if size else ""
    option += f" --anchors {shlex.quote(anchors)}" if anchors else ""
    return f"rkzoo convert {shlex.quote(model)} --soc rk3588{option}"


def _made(summary: GraphSummary) -> str:
    text = f"ONNX opset {summary.opset}, IR {summary.ir_version}"
    return f"{text}, by {summary.producer}" if summary.producer else text


def _contract(contract: Contract) -> list[tuple[str, str]]:
    from rkzoo.tasks.registry import spec_of

    image, head = contract.input, contract.head
    height, width = image.size
    pad = f" padded with {image.pad}" if image.fit in ("letterbox", "line") else ""
    if image.fit == "crop":
        pad = f" of the middle, the short side scaled to {image.short or max(image.size)}"
    rows = [
        (
            "takes",
            f"{image.color} picture, {height} high and {width} wide, {image.fit}{pad}, "
            f"mean {_numbers(image.mean)}, std {_numbers(image.std)}",
        )
    ]
    rows += spec_of(head).describe(head)
    if contract.labels:
        more = ", ..." if len(contract.labels) > 6 else ""
        rows.append(("labels", ", ".join(contract.labels[:6]) + more))
    return rows


# ---- RKNN ---------------------------------------------------------------------------


def _rknn(path: Path, *, as_json: bool) -> int:
    from rkzoo.cli.console import print_json
    from rkzoo.graph.rknn.checks import rknn_checks
    from rkzoo.graph.rknn.reader import read

    file = read(path)
    checks = [*rknn_checks(file), *_readable(path, file)]
    sidecar = path.with_name(f"{path.name}.json")
    beside = str(sidecar) if sidecar.is_file() else None
    if as_json:
        document = {"kind": "rknn", "file": str(path), **_plain(file)}
        print_json({**document, "sidecar": beside, "checks": _plain(checks)})
        return 0
    rows = [
        ("file", f"{_size(file.file_bytes)}, container {_CONTAINERS[file.container]}"),
        ("chip", ", ".join(file.platforms) or "not stored"),
        ("toolkit", file.compiler or file.toolkit),
        ("made from", file.framework),
    ]
    rows += [("input", _quantised(spec, file)) for spec in file.inputs]
    rows += [("output", _quantised(spec, file)) for spec in file.outputs]
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
    if beside:
        rows.append(("sidecar", beside))
    _print(path, rows)
    _verdict(checks, "")
    return 0


def _readable(path: Path, file: RknnFile) -> list[Check]:
    """Whether a board could read the head. Nothing of a file that rkzoo did not make: what it
    promises is not known."""
    from rkzoo.errors import RkzooError
    from rkzoo.workflow.compile.native_check import native_checks
    from rkzoo.workflow.inference.board import contract_of

    try:
        contract = contract_of(path)
    except RkzooError:
        return []
    return native_checks(file, contract)


def _quantised(spec: TensorSpec, file: RknnFile) -> str:
    text = _tensor(spec.name, spec.dtype, spec.shape)
    if spec.scale is not None:
        text += f"  scale {spec.scale:.6g} zero point {spec.zero_point}"
    given = file.normalisation.get(spec.name)
    if given:
        text += f"  mean {_numbers(given.mean)} std {_numbers(given.std)}"
    return text


# ---- sidecars -----------------------------------------------------------------------


def _pipeline(path: Path, *, as_json: bool) -> int:
    from rkzoo.cli.console import print_json
    from rkzoo.workflow.request.pipeline_file import read_pipeline

    found = read_pipeline(path)
    parts = {role: str(part) for role, part in found.parts.items()}
    on_cpu = {role: str(part) for role, (part, _) in found.cpu.items()}
    files = {role: str(file) for role, file in found.files.items()}
    if as_json:
        told = {"name": found.name, "parts": parts, "cpu": on_cpu, "files": files}
        print_json({"kind": "pipeline", "file": str(path)} | told)
        return 0
    processor = ((role, f"{part} (on the processor)") for role, part in on_cpu.items())
    _print(path, [("pipeline", found.name), *parts.items(), *processor, *files.items()])
    return 0


def _sidecar(path: Path, *, as_json: bool) -> int:
    import msgspec

    from rkzoo.cli.console import print_json
    from rkzoo.errors import RkzooError
    from rkzoo.files import explained
    from rkzoo.toolkit.recipe import Sidecar

    with explained(f"{path} cannot be read."):
        data = path.read_bytes()
    try:
        sidecar = msgspec.json.decode(data, type=Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RkzooError(
            f"{path} is not a file that rkzoo convert wrote.",
            f"{error}.",
            "Give the .rknn.json that lies beside a .rknn, or the .rknn itself.",
        ) from error
    if as_json:
        print_json({"kind": "sidecar", "file": str(path), **_plain(sidecar)})
        return 0
    recipe = sidecar.recipe
    rows = [
        ("source", f"{sidecar.source.file} (sha256 {sidecar.source.sha256[:12]}...)"),
        ("card", sidecar.source.card or "none"),
        ("built for", f"{recipe.soc}, {recipe.dtype}, by toolkit {recipe.toolkit}"),
        ("calibration", f"{len(sidecar.calibration.files)} files, {recipe.algorithm}"),
        ("rkzoo", sidecar.rkzoo),
        *_contract(sidecar.contract),
        *(("warning", text) for text in sidecar.warnings),
    ]
    _print(path, rows)
    return 0


# ---- text ---------------------------------------------------------------------------


def _print(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    print(path)
    width = max([12, *(len(key) + 2 for key, _ in rows)])
    for key, value in rows:
        print(f"  {key:<{width}}{_safe(value)}")


def _lines(title: str, sentences: Iterable[str]) -> None:
    print(f"\n{title}")
    for sentence in sentences:
        print(f"  {_safe(sentence)}")


def _verdict(checks: Sequence[Check], following: str) -> None:
    print("\nVerdict")
    for check in checks:
        print(f"  {_MARK[check.level]}  {_safe(check.text)}")
    if following:
        print(f"\nNext: {following}")


def _safe(text: str) -> str:
    """Names come from strangers' files: nothing of theirs may steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


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


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)
