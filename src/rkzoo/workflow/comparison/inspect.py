"""What a model's file holds, and whether it will work."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rkzoo.checks import Check
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import explained, sha256_of
from rkzoo.graph.rknn import reader as rknn
from rkzoo.graph.rknn.checks import rknn_checks
from rkzoo.plain import plain
from rkzoo.progress import SILENT, Reporter
from rkzoo.toolkit.recipe import Sidecar, Source
from rkzoo.workflow.compile.native_check import native_checks
from rkzoo.workflow.inference.board import contract_of
from rkzoo.workflow.request.pipeline_file import Found as Pipeline
from rkzoo.workflow.request.pipeline_file import read_pipeline
from rkzoo.workflow.request.request import Request
from rkzoo.zoo.catalogue import SUFFIXES, cards, names
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.fetch import weights
from rkzoo.zoo.schema import Card

if TYPE_CHECKING:
    from onnx import ModelProto

    from rkzoo.graph.families.recognition import Recognition
    from rkzoo.graph.onnx.summary import GraphSummary

Kind = Literal["onnx", "rknn", "pipeline", "sidecar"]


@dataclass(frozen=True)
class Graph:
    """A float model. `card` is the one whose weights the file is; of `recognition` and
    `unrecognised` (why not) one is set."""

    bytes: int
    card: Card | None
    summary: GraphSummary
    recognition: Recognition | None
    unrecognised: RkzooError | None


@dataclass(frozen=True)
class Built:
    """A .rknn, and the sidecar that lies beside it."""

    model: rknn.RknnFile
    sidecar: Path | None


@dataclass(frozen=True)
class Inspection:
    """What was seen in a file: `content` by `kind` (Graph, Built, Pipeline, Sidecar), `checks`
    what to know of it, `next` the command that goes on from there, None where it cannot."""

    kind: Kind
    file: Path
    content: Graph | Built | Pipeline | Sidecar
    checks: tuple[Check, ...] = ()
    next: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was found that makes it fail."""
        return all(check.level != "fail" for check in self.checks)

    @property
    def contract(self) -> Contract | None:
        """What the model promises, where that is known of the file."""
        if isinstance(self.content, Sidecar):
            return self.content.contract
        known = isinstance(self.content, Graph) and self.content.recognition
        return known.contract if known else None

    def to_json(self) -> dict[str, Any]:
        """As plain data; what stands beside kind and file depends on the kind."""
        told: dict[str, Any] = {"kind": self.kind, "file": str(self.file)}
        checks = {"checks": msgspec.to_builtins(self.checks)}
        content = self.content
        if isinstance(content, Graph):
            told |= {
                "bytes": content.bytes,
                "card": content.card.name if content.card else None,
                "summary": msgspec.to_builtins(content.summary),
                "recognition": msgspec.to_builtins(content.recognition),
                "unrecognised": content.unrecognised.to_json() if content.unrecognised else None,
                **checks,
                "next": self.next,
            }
        elif isinstance(content, Built):
            told |= msgspec.to_builtins(content.model)
            told |= {"sidecar": str(content.sidecar) if content.sidecar else None, **checks}
        elif isinstance(content, Pipeline):
            told |= {
                "name": content.name,
                "parts": content.parts,
                "cpu": {role: part for role, (part, _) in content.cpu.items()},
                "files": content.files,
            }
        else:
            told |= msgspec.to_builtins(content)
        document: dict[str, Any] = plain(told)
        return document


def inspect(
    file: str | os.PathLike[str],
    *,
    request: Request | None = None,
    pictures: Sequence[Path] = (),
    report: Reporter = SILENT,
) -> Inspection:
    """Reads an .onnx (or what becomes one: .tflite, .pb, .torchscript), a .rknn, or a .json that
    `convert` wrote.

    `size` (height, width) fixes an input that the model leaves free. `anchors` (numbers, or a
    file of them) those of a YOLOv5 or v7 that lost its own. On `pictures` a detector is run in
    other colour orders and ranges. Raises RkzooError.
    """
    path, request = Path(file), request or Request()
    request.refuse_all_but({"size", "shapes", "raw", "fit", "anchors"}, "rkzoo inspect")
    if path.suffix.lower() == ".json":
        # What lies beside a .rknn has its name.
        if path.stem.lower().endswith(".rknn"):
            return Inspection("sidecar", path, _sidecar(path))
        return Inspection("pipeline", path, read_pipeline(path))
    if not path.exists():
        _refuse_name(os.fspath(file))
    if path.suffix.lower() in SUFFIXES:
        path = weights(find_card(path), report)["model"]
    if _begins_with(path, (b"RKNN", b"RKCE")) or path.suffix.lower() == ".rknn":
        return _built(path)
    return _graph(path, request, pictures, report)


def _refuse_name(name: str) -> None:
    """Raises RkzooError for a name of the zoo, which is no file."""
    if name in names():
        raise RkzooError(
            f"{name} is a name of the zoo, and no file.",
            "rkzoo inspect looks into files.",
            f"See rkzoo info {name}, which also tells where its file lies.",
        )


def _begins_with(path: Path, magics: Iterable[bytes]) -> bool:
    with explained(f"{path} cannot be read."), path.open("rb") as file:
        return file.read(4) in magics


def _graph(
    path: Path,
    request: Request,
    pictures: Sequence[Path],
    report: Reporter,
) -> Inspection:
    # A board looks into .rknn files without any of these.
    from rkzoo.graph.families.registry import file_labels, recognise
    from rkzoo.graph.lowering.checks import graph_checks
    from rkzoo.graph.onnx.read import load
    from rkzoo.graph.onnx.summary import summarise
    from rkzoo.workflow.request.importers.registry import as_onnx
    from rkzoo.workflow.request.resolve import with_given

    model = load(as_onnx(path, report, size=request.size))
    summary = summarise(model)
    card = _card(path)
    recognition, unknown = None, None
    try:
        recognition = recognise(model, request.size)
    except RkzooError as error:
        unknown = error
    if recognition is not None and request.pairs is not None:
        recognition = with_given(recognition, request.pairs, path.stem)
    checks = graph_checks(
        summary,
        recognition,
        unknown,
        card=card.name if card else "",
        named=len(file_labels(model)),
    )
    if pictures and recognition is not None:
        checks += _fed(path, model, recognition, pictures, report)
    failed = any(check.level == "fail" for check in checks)
    following = None if failed else _convert(card.name if card else str(path), request)
    content = Graph(path.stat().st_size, card, summary, recognition, unknown)
    return Inspection("onnx", path, content, tuple(checks), following)


def _fed(
    path: Path,
    model: ModelProto,
    recognition: Recognition,
    pictures: Sequence[Path],
    report: Reporter,
) -> list[Check]:
    """What the model's answers to pictures say of how it is to be fed."""
    from rkzoo.workflow.comparison.input_probe import input_checks, probe
    from rkzoo.workflow.request.resolved import Resolved

    contract = recognition.contract
    if contract.texts:
        said = "It takes texts beside the picture, so its answers are not tried out here."
        return [Check("warn", said)]
    if not isinstance(contract.head, DetectHead):
        said = "Other forms of the picture are tried out on detection models only."
        return [Check("warn", said)]
    source = Source(file=str(path), sha256="")
    ready = Resolved(path.stem, model, contract, source, ("fp16",), recognition=recognition)
    graph = ready.graph().SerializeToString()
    return list(input_checks(probe(graph, contract, pictures, report)))


def _card(path: Path) -> Card | None:
    """The card whose weights this very file is."""
    digest = sha256_of(path)
    return next((c for c in cards() if any(one.sha256 == digest for one in c.sources)), None)


def _convert(model: str, request: Request) -> str:
    size, pairs = request.size, request.pairs
    option = f" --size {size[0]}x{size[1]}" if size else ""
    if pairs:
        option += f" --anchors {','.join(f'{side:g}' for pair in pairs for side in pair)}"
    return f"rkzoo convert {shlex.quote(model)} --soc rk3588{option}"


def _built(path: Path) -> Inspection:
    file = rknn.read(path)
    beside = path.with_name(f"{path.name}.json")
    checks = (*rknn_checks(file), *_readable(path, file))
    return Inspection("rknn", path, Built(file, beside if beside.is_file() else None), checks)


def _readable(path: Path, file: rknn.RknnFile) -> list[Check]:
    """Whether a board could read the head. Nothing of a file that rkzoo did not make: what it
    promises is not known."""
    try:
        contract = contract_of(path)
    except RkzooError as error:
        custom = file.custom_json
        told = isinstance(custom, dict) and "contract" in custom
        if not told and not path.with_name(f"{path.name}.json").exists():
            return []  # another program made it
        return [Check("fail", f"It cannot be run: {error.what} {error.why}")]
    return native_checks(file, contract)


def _sidecar(path: Path) -> Sidecar:
    with explained(f"{path} cannot be read."):
        data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RkzooError(
            f"{path} is not a file that rkzoo convert wrote.",
            f"{error}.",
            "Give the .rknn.json that lies beside a .rknn, or the .rknn itself.",
        ) from error
