"""Inspection of model files: content and expected problems."""

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
from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError, TooLittleMemory
from rkzoo.files import open_file, os_errors_explained, read_bytes, sha256_of
from rkzoo.graph.rknn import reader as rknn
from rkzoo.graph.rknn.checks import rknn_checks
from rkzoo.json_values import to_json_value
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.toolkit.recipe import Sidecar, Source
from rkzoo.workflow.compile.native_check import native_checks
from rkzoo.workflow.compile.scores import scale_findings
from rkzoo.workflow.inference.board import contract_of
from rkzoo.workflow.request.pipeline_file import Pipeline as Pipeline
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
    from rkzoo.workflow.request.resolved import ResolvedModel

Kind = Literal["onnx", "rknn", "pipeline", "sidecar"]


@dataclass(frozen=True)
class OnnxContent:
    """A float model. `card`: the one whose weights the file is; either `recognition` or
    `unrecognised` (the reason) is set, neither where plain tensors were asked for. `to_json_value`:
    the contract of a graph whose outputs stay plain tensors.
    """

    bytes: int
    card: Card | None
    summary: GraphSummary
    recognition: Recognition | None
    unrecognised: RkzooError | None
    plain: Contract | None = None


@dataclass(frozen=True)
class RknnContent:
    """A .rknn, and its sidecar if there is one."""

    model: rknn.RknnFile
    sidecar: Path | None


@dataclass(frozen=True)
class Inspection:
    """Content of a model file.

    Attributes:
        kind: kind of file.
        file: its path.
        content: Graph, Built, Pipeline or Sidecar.
        checks: expected problems.
        next: suggested command; None where it would fail.
    """

    kind: Kind
    file: Path
    content: OnnxContent | RknnContent | Pipeline | Sidecar
    checks: tuple[Check, ...] = ()
    next: str | None = None

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.level != "fail" for check in self.checks)

    @property
    def contract(self) -> Contract | None:
        """The model's contract, where known."""
        if isinstance(self.content, Sidecar):
            return self.content.contract
        if not isinstance(self.content, OnnxContent):
            return None
        known = self.content.recognition
        return known.contract if known else self.content.plain

    def to_json(self) -> dict[str, Any]:
        """Content as JSON types; fields other than kind and file depend on the kind."""
        fields: dict[str, Any] = {"kind": self.kind, "file": str(self.file)}
        checks = {"checks": msgspec.to_builtins(self.checks)}
        content = self.content
        if isinstance(content, OnnxContent):
            fields |= {
                "bytes": content.bytes,
                "card": content.card.name if content.card else None,
                "summary": msgspec.to_builtins(content.summary),
                "recognition": _recognition(content.recognition),
                "plain": msgspec.to_builtins(content.plain),
                "unrecognised": content.unrecognised.to_json() if content.unrecognised else None,
                **checks,
                "next": self.next,
            }
        elif isinstance(content, RknnContent):
            fields |= msgspec.to_builtins(content.model)
            fields |= {"sidecar": str(content.sidecar) if content.sidecar else None, **checks}
        elif isinstance(content, Pipeline):
            fields |= {
                "name": content.name,
                "parts": content.parts,
                "cpu": {role: part for role, (part, _) in content.cpu.items()},
                "files": content.files,
            }
        else:
            fields |= msgspec.to_builtins(content)
        document: dict[str, Any] = to_json_value(fields)
        return document


def _recognition(recognition: Recognition | None) -> dict[str, Any] | None:
    if recognition is None:
        return None
    document: dict[str, Any] = msgspec.to_builtins(recognition)
    # The key that readers of the document know.
    return {"taps" if key == "head_tensors" else key: value for key, value in document.items()}


def inspect(
    file: str | os.PathLike[str],
    *,
    request: Request | None = None,
    pictures: Sequence[Path] = (),
    report: ProgressReporter = SILENT,
) -> Inspection:
    """Read an .onnx (or a .tflite, .pb or .torchscript, which are converted to one), a .rknn, or a
    .json written by `convert`.

    Args:
        file: the file.
        request: its size, shapes and anchors count.
        pictures: images on which a detector is run with other colour orders and ranges.
        report: receives progress.

    Raises:
        RkzooError: the file cannot be read, or is of another kind.
    """
    path, request = Path(file), request or Request()
    request.refuse_all_but({"size", "shapes", "raw", "fit", "anchors"}, "rkzoo inspect")
    if path.suffix.lower() == ".json":
        # The sidecar of a .rknn has its name.
        if path.stem.lower().endswith(".rknn"):
            return Inspection("sidecar", path, _sidecar(path))
        pipeline = read_pipeline(path)
        looks = (f"rkzoo inspect {shlex.quote(str(part))}" for part in pipeline.parts.values())
        return Inspection("pipeline", path, pipeline, next=", ".join(looks))
    if not path.exists():
        _refuse_name(os.fspath(file))
    if path.suffix.lower() in SUFFIXES:
        card = find_card(path)
        _refuse_pipeline(card)
        return _graph(weights(card, report)["model"], request, pictures, report, card, str(path))
    if _begins_with(path, (b"RKNN", b"RKCE")) or path.suffix.lower() == ".rknn":
        return _built(path)
    return _graph(path, request, pictures, report)


def _refuse_name(name: str) -> None:
    """Raise RkzooError for a card name, which is not a file."""
    if name in names():
        _refuse_pipeline(find_card(name))
        raise RkzooError(
            f"{name} is a name of the zoo, and no file.",
            "rkzoo inspect looks into files.",
            f"See rkzoo info {name}, which also tells where its file lies.",
        )


def _refuse_pipeline(card: Card) -> None:
    """Raise RkzooError for the card of a pipeline, whose parts have a file each."""
    if not card.pipeline:
        return
    parts = dict.fromkeys(card.pipeline.values())
    own = [f"rkzoo inspect {shlex.quote(part)}" for part in parts if Path(part).suffix in SUFFIXES]
    zoo = [f"rkzoo info {part}" for part in parts if Path(part).suffix not in SUFFIXES]
    told = [*own, *zoo[:-1], f"{zoo[-1]} (which tells where the file lies)"] if zoo else own
    raise RkzooError(
        f"{card.name} is a pipeline of {len(parts)} models, and no file.",
        "rkzoo inspect looks into one file at a time.",
        f"Look at its parts with {', '.join(told)}.",
    )


def _begins_with(path: Path, magics: Iterable[bytes]) -> bool:
    with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
        return file.read(4) in magics


def _graph(
    path: Path,
    request: Request,
    pictures: Sequence[Path],
    report: ProgressReporter,
    own_card: Card | None = None,
    name: str = "",
) -> Inspection:
    """The graph in `path`; `own_card` is the card that was given in its place, by its `name`."""
    # Imported here, since boards inspect .rknn files without onnx.
    from rkzoo.graph.families.plain import with_shapes
    from rkzoo.graph.families.registry import file_labels
    from rkzoo.graph.lowering.checks import graph_checks
    from rkzoo.graph.onnx.read import load
    from rkzoo.graph.onnx.summary import summarise
    from rkzoo.workflow.request.importers.registry import as_onnx
    from rkzoo.workflow.request.resolve import with_given

    model = load(as_onnx(path, report, size=request.size))
    summary = summarise(model)
    card = own_card or _card(path)
    if request.shapes and set(request.shapes) <= {tensor.name for tensor in summary.inputs}:
        model = with_shapes(model, request.shapes)
    model, recognition, unknown = _recognised(model, request)
    if recognition is not None and request.pairs is not None:
        recognition = with_given(recognition, request.pairs, path.stem)
    contract: Contract | None = None
    notes: tuple[str, ...] = ()
    if recognition is None and (card is None or card.file):
        contract, notes, unknown = _plain(model, request, unknown, card)
    checks = graph_checks(
        summary,
        recognition,
        unknown,
        card=card.name if card else "",
        named=len(file_labels(model)),
        plain=notes,
    )
    known = recognition.contract if recognition else contract
    if known is not None:
        checks += _rewrites(path, model, known, recognition)
    checks += _normalised(model, recognition, own_card)
    if pictures:
        checks += _preprocessing_checks(path, model, recognition, pictures, report)
    failed = any(check.level == "fail" for check in checks)
    model_name = name or (card.name if card else str(path))
    following = None if failed else _convert(model_name, request)
    content = OnnxContent(path.stat().st_size, card, summary, recognition, unknown, contract)
    return Inspection("onnx", path, content, tuple(checks), following)


def _recognised(
    model: ModelProto, request: Request
) -> tuple[ModelProto, Recognition | None, RkzooError | None]:
    """The family, with the graph that it describes, or why there is none; neither where plain
    tensors are asked for."""
    from rkzoo.graph.families.registry import recognise_arranged

    if request.raw:
        return model, None, None
    try:
        return *recognise_arranged(model, request.size), None
    except TooLittleMemory:
        raise
    except RkzooError as error:
        return model, None, error


def _plain(
    model: ModelProto, request: Request, unknown: RkzooError | None, card: Card | None
) -> tuple[Contract | None, tuple[str, ...], RkzooError | None]:
    """How a graph is fed whose outputs stay plain tensors, with what is to be said of it; or the
    reason why it cannot be used even so."""
    from rkzoo.graph.families.plain import plain_notes
    from rkzoo.graph.families.recognition import UnknownHead
    from rkzoo.workflow.request.resolve import plain_of

    if unknown is not None and (not isinstance(unknown, UnknownHead) or request.pairs is not None):
        return None, (), unknown
    try:
        plain = plain_of(model, request, card)
    except TooLittleMemory:
        raise
    except RkzooError as error:
        return None, (), error
    notes = plain_notes(plain.graph, plain.contract, requested=request.raw)
    return plain.contract, (*plain.seen, *notes), unknown


def _rewrites(
    path: Path, model: ModelProto, contract: Contract, recognition: Recognition | None
) -> list[Check]:
    """What `convert` would rewrite for the toolkit, proved."""
    from rkzoo.graph.lowering.checks import END_BEFORE
    from rkzoo.graph.lowering.custom import uncarried, with_custom_operators
    from rkzoo.workflow.compile.prepare import rewritten_for

    ready = _ready(path, model, contract, recognition)
    try:
        rewritten = rewritten_for(ready, ready.graph(), None)
        graph, custom = with_custom_operators(rewritten.model)
    except TooLittleMemory:
        raise
    except RkzooError:
        return []  # told by the other checks
    done = [Check("ok", applied.sentence()) for applied in rewritten.applied]
    told = [*rewritten.left_out, *(operator.sentence() for operator in custom)]
    alone = dict.fromkeys(node.op_type for node in uncarried(graph))
    return [
        *done,
        *(Check("warn", sentence) for sentence in told),
        *(Check("fail", f"Nothing computes the operator {name}: {END_BEFORE}") for name in alone),
    ]


def _ready(
    path: Path, model: ModelProto, contract: Contract, recognition: Recognition | None
) -> ResolvedModel:
    from rkzoo.workflow.request.resolved import ResolvedModel

    source = Source(file=str(path), sha256="")
    return ResolvedModel(path.stem, model, contract, source, ("fp16",), recognition=recognition)


def _normalised(
    model: ModelProto, recognition: Recognition | None, card: Card | None
) -> list[Check]:
    """Warns of a picture that is normalised twice, by the card and in the graph; and of an
    embedding's graph that normalises, which a program that does it, too, would not notice."""
    from rkzoo.graph.onnx.input_preprocessing import input_preprocessing

    if card is not None and card.input is not None:
        front = input_preprocessing(model, card.input.size)
        twice = front.twice(card.input) if front is not None else ""
        if twice:
            return [Check("warn", twice)]
    head = recognition.contract.head if recognition is not None else None
    if recognition is None or not recognition.seen or not isinstance(head, VectorHead):
        return []
    return [Check("warn", _ONCE)] if head.embedding else []


_ONCE = (
    "It normalises the picture itself: it is fed as it is. A program that normalises before it "
    "does it twice, and then all embeddings are alike."
)


def _preprocessing_checks(
    path: Path,
    model: ModelProto,
    recognition: Recognition | None,
    pictures: Sequence[Path],
    report: ProgressReporter,
) -> list[Check]:
    """Check the preprocessing by the model's results on images."""
    from rkzoo.workflow.comparison.input_probe import input_checks, probe

    contract = recognition.contract if recognition else None
    if contract is not None and contract.texts:
        text = "It takes texts beside the picture, so its answers are not tried out here."
        return [Check("warn", text)]
    if contract is None or not isinstance(contract.head, DetectHead):
        text = "Other forms of the picture are tried out on detection models only."
        return [Check("warn", text)]
    graph = _ready(path, model, contract, recognition).graph().SerializeToString()
    return list(input_checks(probe(graph, contract, pictures, report)))


def _card(path: Path) -> Card | None:
    """The card whose weights this file is."""
    digest = sha256_of(path)
    return next((c for c in cards() if any(source.sha256 == digest for source in c.sources)), None)


def _convert(model: str, request: Request) -> str:
    size, pairs = request.size, request.pairs
    option = f" --size {size[0]}x{size[1]}" if size else ""
    for name, shape in (request.shapes or {}).items():
        option += f" --shape {shlex.quote(name)}={','.join(map(str, shape))}"
    option += " --raw" if request.raw else ""
    option += f" --fit {request.fit}" if request.fit else ""
    if pairs:
        option += f" --anchors {','.join(f'{side:g}' for pair in pairs for side in pair)}"
    return f"rkzoo convert {shlex.quote(model)} --soc rk3588 --calib FOLDER{option}"


def _built(path: Path) -> Inspection:
    file = rknn.read(path)
    beside = path.with_name(f"{path.name}.json")
    checks = (*rknn_checks(file), *_readable(path, file))
    return Inspection("rknn", path, RknnContent(file, beside if beside.is_file() else None), checks)


def _readable(path: Path, file: rknn.RknnFile) -> list[Check]:
    """Whether a board could read the head; empty for a file that rkzoo did not make, whose contract
    is unknown.
    """
    try:
        contract = contract_of(path)
    except RkzooError as error:
        custom = file.custom_json
        has_contract = isinstance(custom, dict) and "contract" in custom
        if not has_contract and not path.with_name(f"{path.name}.json").exists():
            return []  # made by another program
        return [Check("fail", f"It cannot be run: {error.what} {error.why}")]
    coarse = [
        Check("warn", scale_finding.message) for scale_finding in scale_findings(file, contract)
    ]
    return [*native_checks(file, contract), *coarse]


def _sidecar(path: Path) -> Sidecar:
    with os_errors_explained(f"{path} cannot be read."):
        data = read_bytes(path)
    try:
        return msgspec.json.decode(data, type=Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RkzooError(
            f"{path} is not a file that rkzoo convert wrote.",
            f"{error}.",
            "Give the .rknn.json that lies beside a .rknn, or the .rknn itself.",
        ) from error
