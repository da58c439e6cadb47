"""Pictures with their truth: recognised by what they are, scored as is usual for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from rkzoo.accuracy import coco_json
from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.metric import Metric
from rkzoo.errors import RkzooError

Kind = Literal["boxes", "masks", "keypoints", "oriented", "classes", "lines", "plates", "regions"]


class Truth(Protocol):
    """What is right for each picture, and how an answer is judged by it."""

    def check(self, labels: tuple[str, ...]) -> None:
        """Raises RkzooError when a model with these labels cannot be scored."""

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Figures of the first len(records) pictures."""

    def digest(self) -> bytes:
        """Of everything that the score depends on."""


@dataclass(frozen=True)
class Dataset:
    """`items` are the pictures, in the order of scoring. `kind` says what is compared."""

    name: str
    kind: Kind
    items: tuple[Path, ...]
    truth: Truth
    digest: str
    labels: tuple[str, ...] = ()

    def score(
        self, records: Sequence[Record], contract_labels: tuple[str, ...] = ()
    ) -> tuple[Metric, ...]:
        """The figures; records[i] belongs to items[i]. There may be fewer records: then the
        first len(records) pictures are all that count.

        One metric is `main`, unless there is nothing to count: figures that nothing can be
        said of (no large object in these pictures) are left out. `contract_labels` are the
        model's, those given to `open_dataset` where empty. Raises RkzooError when records
        and data do not belong together.
        """
        if len(records) > len(self.items):
            raise RkzooError(
                f"There are {len(records)} results for {len(self.items)} pictures.",
                "They belong to other data.",
                "Delete the results and start again.",
            )
        names = [item.name for item in self.items[: len(records)]]
        return self.truth.score(records, contract_labels or self.labels, names)


@dataclass(frozen=True)
class Source:
    """What the user pointed at, and for which model."""

    path: Path
    images: Path | None
    task: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    kind: Kind
    items: tuple[Path, ...]
    truth: Truth


@dataclass(frozen=True)
class Format:
    """One way in which data lies on a disk. The first that recognises the source reads it."""

    name: str
    looks_like: str
    recognise: Callable[[Source], bool]
    read: Callable[[Source], Opened]


def _coco(source: Source) -> Opened:
    items, truth = coco_json.read(source.path, source.images, source.task)
    kinds: dict[str, Kind] = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
    return Opened(kinds[truth.measures[0]], items, truth)


FORMATS: tuple[Format, ...] = (
    Format("coco", "a COCO json", lambda source: coco_json.is_coco(source.path), _coco),
)


def open_dataset(spec: str, task: str, labels: tuple[str, ...]) -> Dataset:
    """The data that `spec` names: PATH, FORMAT:PATH, PATH@FOLDER_OF_PICTURES.

    `task` is the card's (detect, segment, pose, obb, classify, plate, text-rec, text-det,
    text), `labels` the model's, class 0 first. Raises RkzooError: no such path, no known
    format, broken truth, no picture, no class in common.
    """
    form, source = _source(spec, task, labels)
    opened = form.read(source)
    if not opened.items:
        raise RkzooError(
            f"{source.path} has no picture.", "There is nothing to score.", "Check the path."
        )
    opened.truth.check(labels)
    digest = hashlib.sha256(opened.truth.digest())
    for item in opened.items:
        digest.update(item.name.encode("utf-8", "surrogateescape") + b"\0")
    name = source.path.resolve().name
    return Dataset(name, opened.kind, opened.items, opened.truth, digest.hexdigest(), labels)


def _source(spec: str, task: str, labels: tuple[str, ...]) -> tuple[Format, Source]:
    forms = {form.name: form for form in FORMATS}
    head, colon, rest = spec.partition(":")
    forced = forms.get(head) if colon else None
    path, images = _parts(rest if forced else spec)
    source = Source(path, images, task, labels)
    for form in (forced,) if forced else FORMATS:
        if forced or form.recognise(source):
            return form, source
    known = "; ".join(f"{form.name}, {form.looks_like}" for form in FORMATS)
    raise RkzooError(
        f"What kind of data {path} is cannot be seen.",
        f"Known kinds: {known}.",
        "Say which it is, as in coco:PATH.",
    )


def _parts(text: str) -> tuple[Path, Path | None]:
    """PATH@FOLDER, where PATH itself may have an @."""
    whole = Path(text).expanduser()
    if whole.exists():
        return whole, None
    head, at, tail = text.rpartition("@")
    path, folder = Path(head).expanduser(), Path(tail).expanduser()
    missing = whole if not at else path if not path.exists() else folder
    if at and path.exists() and folder.is_dir():
        return path, folder
    raise RkzooError(
        f"There is no {missing}.", "The data must be on this computer.", "Check the path."
    )
