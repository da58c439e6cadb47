"""Catalogue of model cards: those that come with rkzoo, and the user's own (RKZOO_CARDS)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from functools import cache
from pathlib import Path

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.spelling import nearest, unknown
from rkzoo.zoo.loading import OWN_PART, PARTS, read_card
from rkzoo.zoo.schema import Card
from rkzoo.zoo.topics import topics

HERE = Path(__file__).parent
CARDS = HERE / "cards"
FAMILIES = HERE / "families"
SUFFIXES = (".yaml", ".yml")


def names() -> tuple[str, ...]:
    """Names of all cards, sorted. The cards are not read: a card is named by its file."""
    return tuple(sorted(_files()))


def cards(report: ProgressReporter = SILENT) -> tuple[Card, ...]:
    """All cards, sorted by name. A card of the user's own that is not valid is noted and left
    out, so that it stops nobody who does not name it."""
    return tuple(
        card for _, path in sorted(_files().items()) if (card := _card_or_note(path, report))
    )


def _card_or_note(path: Path, report: ProgressReporter) -> Card | None:
    try:
        return _card_in(path)
    except RkzooError as error:
        if path.parent == CARDS:
            raise
        report.note(f"warning: {error} The card is left out.")
        return None


def card(model: str | os.PathLike[str]) -> Card:
    """Load a card.

    Args:
        model: Its name, or the path of a yaml file.

    Raises:
        RkzooError: The name is unknown (the message names the nearest ones), or the card is
            invalid.
    """
    return _card_in(path_of(model))


def _card_in(path: Path) -> Card:
    with os_errors_explained(f"The card {path} cannot be read."):
        status = path.stat()
    return _read(path, (status.st_mtime_ns, status.st_size))


def path_of(model: str | os.PathLike[str]) -> Path:
    """The yaml file of a card given by name or path. Raises RkzooError when unknown."""
    card_file = _files().get(os.fspath(model))
    if card_file:
        return card_file
    path = Path(model).expanduser()
    if path.suffix in SUFFIXES:
        if path.is_file():
            return path.absolute()
        raise RkzooError(f"There is no card {path}.", "The file does not exist.", "Check the path.")
    refuse_file(path)
    if os.fspath(model) in topics():
        raise RkzooError(
            f"{os.fspath(model)} is not a model that rkzoo runs.",
            "Other software does this.",
            f"See which software, and where: rkzoo info {os.fspath(model)}",
        )
    near = nearest(os.fspath(model), names(), 3)
    raise unknown(
        f"There is no model called {os.fspath(model)!r} here.",
        f"The nearest names are {', '.join(near)}; rkzoo list shows all."
        if near
        else "No name comes near it.",
        os.fspath(model),
        names(),
        "See all names with: rkzoo list",
    )


PYTORCH = (".pt", ".pth")
_OTHERS = (".h5", ".keras", ".engine", ".caffemodel", ".param")


def refuse_file(path: Path) -> None:
    """Raise RkzooError for a path to a model file in place of a card's name; return for anything
    else.
    """
    suffix = path.suffix.lower()
    if suffix in (".onnx", ".tflite", ".pb", ".torchscript", ".rknn"):
        raise RkzooError(
            f"{path} is a file, not a name of the zoo.",
            "A name of rkzoo list is needed here"
            + (", or the .onnx that it was made from." if suffix == ".rknn" else "."),
            f"See what is in the file with: rkzoo inspect {shlex.quote(str(path))}",
        )
    if not path.exists() and suffix not in (*PYTORCH, *_OTHERS):
        return
    how = f", for Ultralytics with: yolo export model={shlex.quote(str(path))} format=onnx"
    raise RkzooError(
        f"{path} is not a model that rkzoo can read.",
        "It takes .onnx, .tflite, .pb, TorchScript and .rknn files, and the names of rkzoo list.",
        f"Export the model to ONNX{how if suffix in PYTORCH else ''}.",
    )


def card_of_file(sha256: str) -> Card | None:
    """The card of the very file with this hash: one that it is fetched as, or that its `int8` was
    found with. A card of the user's own that is not valid is passed over."""
    for path in _files().values():
        with os_errors_explained(f"The card {path} cannot be read."):
            text = path.read_text("utf-8", "replace")
        if sha256 in text and (card := _card_or_note(path, SILENT)) is not None:
            mine = {source.sha256 for source in card.sources}
            if sha256 in mine or (card.int8 and card.int8.graph == sha256):
                return card
    return None


def members(pipeline: Card) -> dict[str, Card]:
    """The cards of a pipeline by role. Raises RkzooError when one is missing."""
    cards = {role: card(name) for role, name in pipeline.pipeline.items()}
    for role, member in cards.items():
        if member.pipeline:
            raise RkzooError(
                f"The card {pipeline.name} is wrong in the key `pipeline.{role}`.",
                f"{member.name} is a pipeline itself.",
                "Name cards of single models.",
            )
    return cards


def dtypes_on(model: Card, soc: str, chip: Collection[str]) -> tuple[str, ...]:
    """Data types in which a model can be built for a chip.

    Args:
        model: The card.
        soc: Canonical name of the chip.
        chip: Data types that the chip supports.

    Returns:
        Those that the card allows on `soc`. For a pipeline: those in which at least one member can
            be built, when every member (apart from those on the CPU) can be built in some; else
            none.
    """
    if model.socs and soc not in model.socs:
        return ()
    if model.pipeline:
        parts = [member for member in members(model).values() if not member.cpu]
        each = [dtypes_on(member, soc, chip) for member in parts]
        return tuple(d for d in model.dtypes if all(each) and any(d in dtypes for dtypes in each))
    return tuple(dtype for dtype in model.dtypes if dtype in chip)


def _folders() -> list[Path]:
    extra = os.environ.get("RKZOO_CARDS", "")
    return [CARDS, *(Path(part).expanduser() for part in extra.split(os.pathsep) if part)]


def _files() -> dict[str, Path]:
    """Yaml files by card name; a later folder of RKZOO_CARDS overrides an earlier one."""
    folders = _folders()
    for folder in folders:
        if not folder.is_dir():
            raise RkzooError(
                f"RKZOO_CARDS names {folder}, which is not a folder.",
                "Cards of your own are looked for there.",
                "Correct RKZOO_CARDS, or unset it.",
            )
    return {
        file.stem: file.absolute()
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.suffix in SUFFIXES
    }


@cache
def _read(path: Path, stamp: tuple[int, int]) -> Card:
    """Cached; `stamp` (time and size of the file) invalidates an edited card."""
    card = read_card(path, FAMILIES)
    if card.name != path.stem:
        raise RkzooError(
            f"The card {path} calls itself {card.name!r}.",
            "A card's name is the name of its file.",
            f"Set `name: {path.stem}`, or rename the file.",
        )
    return _with_parts(card, path) if card.pipeline else card


def _with_parts(pipeline: Card, path: Path) -> Card:
    """A pipeline whose parts are there; those beside a card that is no part of the catalogue, by
    their path. Raises RkzooError."""
    there = _files()
    beside: dict[str, Path] = {}
    if path.parent not in {file.parent for file in there.values()}:
        beside = {file.stem: file for suffix in SUFFIXES for file in path.parent.glob(f"*{suffix}")}
    parts = {role: str(beside.get(name, name)) for role, name in pipeline.pipeline.items()}
    for role, name in parts.items():
        if name not in there and not Path(name).is_absolute():
            raise RkzooError(
                f"The card {path} names {name!r} in `pipeline.{role}`: there is no such card.",
                PARTS,
                OWN_PART,
            )
    return msgspec.structs.replace(pipeline, pipeline=parts)
