"""Evaluation datasets: format detection, ground truth and metrics."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, Protocol

from rkzoo.accuracy import (
    classes,
    coco_json,
    depth,
    lines,
    maps,
    pairs,
    regions,
    restored,
    transcripts,
    yolo,
)
from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.folders import pictures
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.objects import ObjectTruth
from rkzoo.accuracy.oriented import OrientedTruth
from rkzoo.errors import RkzooError
from rkzoo.files import is_device_or_pipe, open_file, os_errors_explained
from rkzoo.spelling import unknown

Kind = Literal[
    "boxes",
    "masks",
    "keypoints",
    "oriented",
    "classes",
    "lines",
    "plates",
    "regions",
    "maps",
    "depth",
    "restored",
    "pairs",
    "speech",
    "tensors",
]


TruthSource = Literal["known", "float model"]


class Truth(Protocol):
    """Ground truth of a dataset, with its metrics."""

    def check(self, labels: tuple[str, ...]) -> None:
        """Raise RkzooError when a model with these labels cannot be evaluated."""

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Compute the metrics of the first len(records) images."""

    def take(self, kept: Sequence[int]) -> Truth:
        """The ground truth of some of the items, in their order."""

    def digest(self) -> bytes:
        """Digest of everything that the metrics depend on."""


@dataclass(frozen=True)
class Dataset:
    """An evaluation dataset.

    Attributes:
        name: shown in reports.
        kind: what is compared.
        items: image or audio files, in order of evaluation.
        truth: ground truth.
        digest: hex SHA-256 of ground truth and file names.
        labels: the model's class names.
        source: origin of the ground truth: known, or the float model's results.
        missing: files that the data names and that are not there.
    """

    name: str
    kind: Kind
    items: tuple[Path, ...]
    truth: Truth
    digest: str
    labels: tuple[str, ...] = ()
    source: TruthSource = "known"
    missing: tuple[Path, ...] = ()

    def without(self, files: Set[Path]) -> Dataset:
        """The data set without some of its items, under a digest of its own."""
        return self.take([i for i, item in enumerate(self.items) if item not in files])

    def take(self, kept: Sequence[int]) -> Dataset:
        """Some of the items, by ascending numbers, under a digest of their own."""
        items, truth = tuple(self.items[i] for i in kept), self.truth.take(kept)
        digest = hashlib.sha256(f"{self.digest} {list(kept)}".encode()).hexdigest()
        return replace(self, items=items, truth=truth, digest=digest)

    def score(
        self, records: Sequence[Record], contract_labels: tuple[str, ...] = ()
    ) -> tuple[Metric, ...]:
        """Compute the metrics; records[i] belongs to items[i].

        With fewer records than items, only the first len(records) images count. Metrics without
        anything to count (no large object, for example) are left out; one of the others is `main`.

        Args:
            records: one record per image.
            contract_labels: the model's class names; those given to `open_dataset` where empty.

        Raises:
            RkzooError: records and data do not match.
        """
        if len(records) > len(self.items):
            raise RkzooError(
                f"There are {len(records)} results for {len(self.items)} pictures.",
                "They belong to other data.",
                "Delete the results and start again.",
            )
        names = [item.name for item in self.items[: len(records)]]
        return self.truth.score(records, contract_labels or self.labels, names)


def halves(items: Sequence[Path]) -> tuple[list[int], list[int]]:
    """Two halves of files, as their numbers: every other one in the order of their names' hashes,
    so that they are always the same, whatever the order of the files."""
    order = sorted(range(len(items)), key=lambda i: _hash(items[i]))
    return sorted(order[::2]), sorted(order[1::2])


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True)
class DatasetSource:
    """The data named by the user, and the model's task and labels."""

    path: Path
    images: Path | None
    task: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class ParsedDataset:
    """A dataset as read from disk."""

    kind: Kind
    items: tuple[Path, ...]
    truth: Truth


@dataclass(frozen=True)
class DatasetFormat:
    """A dataset format for models of certain tasks. The first format that recognizes the source
    reads it."""

    name: str
    looks_like: str
    tasks: frozenset[str]
    recognise: Callable[[DatasetSource], bool]
    read: Callable[[DatasetSource], ParsedDataset]


def _file(source: DatasetSource, *patterns: str) -> Path | None:
    """The source itself where it is a file that matches, or the only such file in the folder."""
    path = source.path
    if path.is_file():
        return path if any(fnmatch(path.name.lower(), pattern) for pattern in patterns) else None
    paths = [file for file in sorted(path.iterdir()) if file.is_file() and not file.is_symlink()]
    fitting = [file for file in paths if any(fnmatch(file.name.lower(), p) for p in patterns)]
    return fitting[0] if len(fitting) == 1 else None


def _needed(source: DatasetSource, *patterns: str) -> Path:
    path = _file(source, *patterns)
    if path is None:
        raise RkzooError(
            f"{source.path} has no file {' or '.join(patterns)}, or more than one.",
            "That file says what is in the pictures.",
            "Name the file itself.",
        )
    return path


_UPRIGHT = frozenset({"detect", "segment", "pose", "face", "prompt"})
_BOXES = _UPRIGHT | {"obb"}
_PLACES = frozenset({"text", "text-det"})
_TEXT = frozenset({"text", "text-rec", "plate"})
_WHOLE = frozenset({"classify"})
_PIXELS = frozenset({"semantic"})
_DEPTH = frozenset({"depth"})
_RESTORED = frozenset({"restore"})
_FACES = frozenset({"face-recognition", "vector"})
_SPEECH = frozenset({"speech"})
_KINDS: dict[str, Kind] = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


def _kind(truth: ObjectTruth | OrientedTruth) -> Kind:
    return _KINDS[truth.measures[0]] if isinstance(truth, ObjectTruth) else "oriented"


# In a folder of several, as COCO's annotations.
_COCO_FILES = {
    "pose": ("*.json", "*keypoints*.json"),
    "segment": ("*.json", "*polygons*.json", "*instances*.json"),
}
_COCO_BOXES = ("*.json", "*bbox*.json", "*instances*.json")


def _coco_file(source: DatasetSource) -> Path | None:
    patterns = _COCO_FILES.get(source.task, _COCO_BOXES)
    return next((file for pattern in patterns if (file := _file(source, pattern))), None)


def _coco(source: DatasetSource) -> ParsedDataset:
    file = _coco_file(source) or _needed(source, "*.json")
    items, truth = coco_json.read(file, source.images, source.task)
    return ParsedDataset(_kind(truth), items, truth)


def _yolo(source: DatasetSource) -> ParsedDataset:
    file = _file(source, "*.yaml", "*.yml") or source.path
    items, truth = yolo.read(file, source.images, source.task)
    return ParsedDataset(_kind(truth), items, truth)


def _is_yolo(source: DatasetSource) -> bool:
    return yolo.is_folder(source.path) or _file(source, "*.yaml", "*.yml") is not None


def _text_lines(source: DatasetSource) -> ParsedDataset:
    file = _needed(source, "*gt*.txt", "*.csv", "*.txt")
    items, truth = lines.read(file, source.images, "," if file.suffix == ".csv" else "\t")
    return ParsedDataset("lines", items, truth)


def _is_lines(source: DatasetSource) -> bool:
    file = _file(source, "*gt*.txt", "*.txt")
    return bool(_file(source, "*.csv") or (file and "\t" in _first_line(file)))


def _plates(source: DatasetSource) -> ParsedDataset:
    items, truth = lines.named_by_text(source.path)
    return ParsedDataset("plates", items, truth)


def _is_plates(source: DatasetSource) -> bool:
    folder = source.path
    return folder.is_dir() and any(path.parent == folder for path in pictures(folder))


def _text_regions(source: DatasetSource) -> ParsedDataset:
    items, truth = regions.read(_needed(source, "label*.txt", "*.txt"), source.images)
    return ParsedDataset("regions", items, truth)


def _is_regions(source: DatasetSource) -> bool:
    file = _file(source, "label*.txt", "*.txt")
    return bool(file and _first_line(file).partition("\t")[2].lstrip().startswith("["))


def _first_line(path: Path) -> str:
    with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
        return file.readline(1 << 16).decode("utf-8", "replace")


def _class_list(source: DatasetSource) -> ParsedDataset:
    items, truth = classes.read_csv(_needed(source, "*.csv"), source.images)
    return ParsedDataset("classes", items, truth)


def _class_folders(source: DatasetSource) -> ParsedDataset:
    items, truth = classes.read_folders(source.path)
    return ParsedDataset("classes", items, truth)


def _transcripts(source: DatasetSource) -> ParsedDataset:
    items, truth = transcripts.read(_needed(source, *_TRANSCRIPTS), source.images)
    return ParsedDataset("speech", items, truth)


def _spoken(source: DatasetSource) -> ParsedDataset:
    items, truth = transcripts.read_paired_files(source.path)
    return ParsedDataset("speech", items, truth)


_TRANSCRIPTS = ("*.csv", "*.tsv")


def _label_maps(source: DatasetSource) -> ParsedDataset:
    items, truth = maps.read(source.path, source.images)
    return ParsedDataset("maps", items, truth)


def _depth_maps(source: DatasetSource) -> ParsedDataset:
    items, truth = depth.read(source.path, source.images)
    return ParsedDataset("depth", items, truth)


def _pairs(source: DatasetSource) -> ParsedDataset:
    items, truth = pairs.read(_needed(source, "pairs*.txt"), source.images)
    return ParsedDataset("pairs", items, truth)


def _restored(source: DatasetSource) -> ParsedDataset:
    items, truth = restored.read_pairs(source.path, source.images)
    return ParsedDataset("restored", items, truth)


FORMATS: tuple[DatasetFormat, ...] = (
    DatasetFormat(
        "maps",
        "a folder with images/ and labels/, or those of VOC and Cityscapes",
        _PIXELS,
        lambda s: maps.folders_of(s.path, s.images) is not None,
        _label_maps,
    ),
    DatasetFormat(
        "depth",
        "a folder with images/ and depth/, or of pictures with a .npy beside each",
        _DEPTH,
        lambda s: depth.folders_of(s.path, s.images) is not None,
        _depth_maps,
    ),
    DatasetFormat(
        "pairs",
        "a pairs.txt as LFW's, beside the folders of persons",
        _FACES,
        lambda s: bool(_file(s, "pairs*.txt")),
        _pairs,
    ),
    DatasetFormat(
        "restored",
        "a folder with lr/ and hr/, or noisy/ and clean/, of pictures of one name",
        _RESTORED,
        lambda s: restored.folders_of(s.path, s.images) is not None,
        _restored,
    ),
    DatasetFormat("coco", "a COCO json", _UPRIGHT, lambda s: bool(_coco_file(s)), _coco),
    DatasetFormat(
        "yolo", "a data.yaml, or a folder with images/ and labels/", _BOXES, _is_yolo, _yolo
    ),
    DatasetFormat("regions", "a Label.txt: file, tab, json", _PLACES, _is_regions, _text_regions),
    DatasetFormat("lines", "a rec_gt.txt or csv: file, text", _TEXT, _is_lines, _text_lines),
    DatasetFormat("plates", "a folder of pictures named by text", _TEXT, _is_plates, _plates),
    DatasetFormat(
        "csv", "a csv: file, class", _WHOLE, lambda s: bool(_file(s, "*.csv")), _class_list
    ),
    DatasetFormat(
        "folders",
        "a folder of folders named by class",
        _WHOLE,
        lambda s: classes.is_class_folders(s.path),
        _class_folders,
    ),
    DatasetFormat(
        "transcripts",
        "a csv or tsv: file, text",
        _SPEECH,
        lambda s: bool(_file(s, *_TRANSCRIPTS)),
        _transcripts,
    ),
    DatasetFormat(
        "spoken",
        "a folder of sounds with a .txt beside each",
        _SPEECH,
        lambda s: s.path.is_dir() and bool(transcripts.paired_files(s.path)),
        _spoken,
    ),
)


def open_dataset(spec: str, task: str, labels: tuple[str, ...]) -> Dataset:
    """Open the dataset named by `spec`: PATH, FORMAT:PATH or PATH@IMAGE_FOLDER.

    Args:
        spec: the data.
        task: task of the model (detect, segment, pose, obb, classify, semantic, depth, plate,
            text-rec, text-det, text).
        labels: the model's class names, class 0 first.

    Raises:
        RkzooError: no such path, unknown format, invalid ground truth, no image, or no class in
            common.
    """
    form, source = _source(spec, task, labels)
    parts = form.read(source)
    if not parts.items:
        raise RkzooError(
            f"{source.path} has no picture.", "There is nothing to score.", "Check the path."
        )
    parts.truth.check(labels)
    # A pipe or a device is left to who reads it, and says what it is.
    there = [number for number, item in enumerate(parts.items) if os.path.exists(item)]
    missing = tuple(item for item in parts.items if not os.path.exists(item))
    if not there:
        raise RkzooError(
            f"None of the {len(missing)} files that {source.path} names is there.",
            f"The first is {missing[0]}.",
            f"Name their folder: {source.path}@FOLDER.",
        )
    if missing:
        items = tuple(parts.items[number] for number in there)
        parts = replace(parts, items=items, truth=parts.truth.take(there))
    digest = hashlib.sha256(parts.truth.digest())
    for item in parts.items:
        digest.update(item.name.encode("utf-8", "surrogateescape") + b"\0")
    name = source.path.resolve().name
    return Dataset(
        name, parts.kind, parts.items, parts.truth, digest.hexdigest(), labels, missing=missing
    )


def require_data(spec: str) -> None:
    """Raises RkzooError where nothing lies at the path of a dataset: what can be told before a
    model's task decides how it is read. `spec` as for `open_dataset`."""
    head, colon, rest = spec.partition(":")
    forced = bool(colon) and head in {form.name for form in FORMATS}
    if colon and not forced and not Path(spec).exists():
        return  # it may be a format's name, misspelled: those of the task are told later
    _parts(rest if forced else spec)


def _source(spec: str, task: str, labels: tuple[str, ...]) -> tuple[DatasetFormat, DatasetSource]:
    fitting = [form for form in FORMATS if task in form.tasks]
    if not fitting:
        raise RkzooError(
            f"Models of the task {task!r} are not scored.",
            f"Data is read for {', '.join(sorted(set().union(*(f.tasks for f in FORMATS))))}.",
            "A single network can be held to its float self, as plain tensors, with --raw.",
        )
    head, colon, rest = spec.partition(":")
    forced = {form.name: form for form in FORMATS}.get(head) if colon else None
    if colon and not forced and not Path(spec).exists():
        _check_format(head, [form.name for form in fitting])
    path, images = _parts(rest if forced else spec)
    if is_device_or_pipe(path):
        raise RkzooError(
            f"{path} is no data set.", "It is a device or a pipe.", "Name a file or a folder."
        )
    source = DatasetSource(path, images, task, labels)
    for form in fitting:
        if form is forced or (not forced and form.recognise(source)):
            return form, source
    known = "; ".join(f"{form.name} ({form.looks_like})" for form in fitting)
    raise RkzooError(
        f"{path} is not recognized as data for a model of the task {task!r}.",
        f"Such a model is scored with {known}.",
        f"Name the file itself, or its format: {fitting[0].name}:PATH.",
    )


def _check_format(name: str, formats: list[str]) -> None:
    """Raises RkzooError for what looks like the name of a format, misspelled."""
    error = unknown(
        f"There is no data format {name!r}.",
        f"Such a model is scored with {', '.join(formats)}.",
        name,
        formats,
        "",
    )
    if error.typo:
        raise error


def _parts(text: str) -> tuple[Path, Path | None]:
    """Split PATH@FOLDER, where PATH may itself contain an @."""
    if not text or text.startswith("@"):
        raise RkzooError("No data is named.", "The path is empty.", "Give the path of the data.")
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
