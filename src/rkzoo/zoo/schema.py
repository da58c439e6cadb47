"""Schema of model cards: one small yaml per model, strictly checked."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Head, TaskName, TensorsHead
from rkzoo.contract.schema_base import StrictStruct

Dtype = Literal["int8", "fp16", "w4a16"]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Bytes = Annotated[int, msgspec.Meta(ge=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]

SCHEMES = ("https:", "pypi:", "file:")
_PYPI = re.compile(
    r"^pypi:(?P<package>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9._+!-]+)#(?P<member>[^\s\\]+)$"
)
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


class Licence(StrictStruct, frozen=True):
    """License of a file. `name` is the SPDX identifier where one exists."""

    name: Text
    url: str = ""
    note: str = ""


class Source(StrictStruct, frozen=True):
    """Location of a file.

    Attributes:
        url: `https://...`, `pypi:package==version#path/in/wheel`, or `file:path` relative to the
            card's folder.
        sha256: Hash of the file itself, not of the wheel. null needs a reason in `unverified`; the
            hash is then recorded at the first download and enforced from then on.
        size: Size of the file in bytes.
        unverified: Why there is no hash.
    """

    url: Text
    sha256: str | None
    size: Bytes | None = None
    unverified: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(SCHEMES):
            raise ValueError(f"url must begin with one of {', '.join(SCHEMES)}")
        if self.url.startswith("https:") and not self.url.startswith("https://"):
            raise ValueError("url must begin with https://")
        if self.url.startswith("pypi:"):
            self.wheel()
        if self.sha256 is None and not self.unverified:
            raise ValueError("sha256 may be null only with a reason in `unverified`")
        if self.sha256 is not None and self.unverified:
            raise ValueError("`unverified` is only for a source whose sha256 is null")
        if self.sha256 is not None and not _SHA256.match(self.sha256):
            raise ValueError("sha256 must be 64 lowercase hexadecimal digits")

    def wheel(self) -> Wheel:
        """The parts of a `pypi:` URL. Raises ValueError for another form."""
        match = _PYPI.match(self.url)
        if not match:
            raise ValueError("url must look like pypi:package==version#path/in/wheel")
        if ".." in match["member"].split("/") or match["member"].startswith("/"):
            raise ValueError("the path in the wheel must be relative and not go up")
        return Wheel(**match.groupdict())


class Wheel(StrictStruct, frozen=True):
    """A file inside a release on a package index."""

    package: str
    version: str
    member: str


class LabelsFrom(StrictStruct, frozen=True):
    """Labels from a file: one per line, or a column of a .csv.

    Attributes:
        onnx_metadata: Key of the ONNX file's metadata; or
        file: Role of the card's `files`. Exactly one of the two.
        column: Column of a .csv with a header row.
        before: Labels put before them (a CTC blank).
        after: Labels put after them (the space).
    """

    onnx_metadata: str = ""
    file: str = ""
    column: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.onnx_metadata) == bool(self.file):
            raise ValueError("give one of onnx_metadata and file")


class CalibrationHint(StrictStruct, frozen=True):
    """Calibration advice for this model.

    Attributes:
        pictures: What the images should show, in words.
        folder: Where they are stored, relative to the card, used where none are given.
        count: How many are enough; a folder that holds more gives so many. None is 100.
        algorithm: How INT8 ranges are found (see the toolkit's Recipe); None is the usual one of
            its kind.
    """

    pictures: str = ""
    folder: str = ""
    count: Annotated[int, msgspec.Meta(ge=1, le=10000)] | None = None
    algorithm: Literal["mse", "normal", "kl_divergence", "mmse"] | None = None


class Upstream(StrictStruct, frozen=True):
    """Accuracy in float as the makers of a model publish it, for these weights and this size.

    Attributes:
        metric: Its name, as the makers call it.
        data: What it was measured on.
        value: As published: per cent, or 0..1.
        unit: "%" for per cent; empty for a fraction.
        url: Where it is published.
        note: What differs from the file of the card, for example its size.
    """

    metric: Text
    data: Text
    value: Annotated[float, msgspec.Meta(gt=0)]
    url: Annotated[str, msgspec.Meta(pattern=r"^https://")]
    unit: Literal["", "%"] = "%"
    note: str = ""


class Int8Recipe(StrictStruct, frozen=True):
    """What `rkzoo tune` found for a network; `convert` uses it unless told `--plain`.

    Attributes:
        head: How the scores of a detection head leave the graph: after their sigmoid, before it
            ("logits"), or before it and bounded to -8..8.
        algorithm: Quantization algorithm; None is that of `calibration`.
        method: Weight scales, one a channel or one a layer.
        auto_hybrid: The toolkit's own choice of layers in float16.
        float_layers: Tensors computed in float16, as `toolkit` names those of the file `graph`;
            left out for any other file or version.
        graph: sha256 of the model file that it was found with.
        toolkit: Version of RKNN-Toolkit2 that it was found with.
        pictures: Which of the calibration pictures are taken where there are more than `count`:
            spread evenly, or as unlike each other as possible. Empty: all of them.
        count: How many are taken.
    """

    graph: Sha256
    head: Literal["sigmoid", "logits", "bounded"] = "sigmoid"
    algorithm: Literal["mse", "normal", "kl_divergence", "mmse"] | None = None
    method: Literal["channel", "layer"] = "channel"
    auto_hybrid: bool = False
    float_layers: tuple[Text, ...] = ()
    toolkit: Text = ""
    pictures: Literal["", "evenly", "unlike"] = ""
    count: Annotated[int, msgspec.Meta(ge=1, le=10000)] = 20

    def __post_init__(self) -> None:
        if self.float_layers and not self.toolkit:
            raise ValueError("float_layers need the toolkit whose names they are")

    def words(self) -> str:
        """What it changes, in words."""
        said = (
            {"sigmoid": "", "logits": "scores as logits", "bounded": "scores as bounded logits"}[
                self.head
            ],
            f"algorithm {self.algorithm}" if self.algorithm else "",
            "one weight scale a layer" if self.method == "layer" else "",
            "the toolkit's own hybrid" if self.auto_hybrid else "",
            f"{len(self.float_layers)} tensors in float16" if self.float_layers else "",
            f"{self.count} calibration pictures {PICKED[self.pictures]}" if self.pictures else "",
        )
        return ", ".join(filter(None, said))


PICKED = {"evenly": "at equal distances", "unlike": "as unlike as possible"}
OWN_FILE = "a file of your own"


class Card(StrictStruct, frozen=True):
    """Card of a model, of a pipeline of models, or of an asset.

    Attributes:
        name: Name of the card, and of its file.
        task: Its task.
        title: One line for lists.
        licence: License of the files.
        origin: Where the model comes from.
        base: Family that it inherits from.
        family: Family of the head.
        summary: A short description.
        sources: Mirrors of the model file, tried in order.
        file: A model file of your own, relative to the card, in place of `sources`: it needs no
            hash, size or licence.
        export: Command that makes the file, where the authors publish no ONNX.
        files: Further files by role.
        pipeline: A card for each role of a pipeline.
        input: Image input of the contract; its `size` only counts where the graph's is dynamic.
        head: Head of the contract; recognized from the graph where missing. A pipeline's head says
            how its parts work together.
        arrays: Inputs other than images, with fixed shapes. They may be tensors inside the graph,
            and so may `outputs`: the model is that subgraph then.
        outputs: See `arrays`.
        make: Importer that makes the ONNX from files of another format.
        made_of: Those of `files` that are only its inputs.
        cpu: Why a part of a pipeline stays on the CPU.
        published: Name in the vendor's performance table, where it differs from the card's.
        labels: A list, the name of a set (zoo/label_sets), a .txt of one name a line, relative to
            the card, or where they are stored.
        dtypes: Supported data types, the first is the default.
        socs: Supported chips; empty for every chip that builds one of `dtypes`.
        calibration: Calibration advice.
        int8: What `rkzoo tune` found for the network: used by default, left out by `--plain`.
        upstream: Accuracy in float as the makers of the model publish it.
        notes: Faults of the original that are corrected here, and what has not been checked.
    """

    name: Name
    task: TaskName
    title: Text
    licence: Licence
    origin: str = ""
    base: str = ""
    family: str = ""
    summary: str = ""
    sources: tuple[Source, ...] = ()
    file: str = ""
    export: str = ""
    files: dict[Name, tuple[Source, ...]] = msgspec.field(default_factory=dict)
    pipeline: dict[Name, Name] = msgspec.field(default_factory=dict)
    input: ImageInput | None = None
    head: Head | None = None
    arrays: tuple[ArrayInput, ...] = ()
    outputs: tuple[Text, ...] = ()
    make: str = ""
    made_of: tuple[Name, ...] = ()
    cpu: str = ""
    published: str = ""
    labels: tuple[str, ...] | str | LabelsFrom = ()
    dtypes: tuple[Dtype, ...] = ("int8", "fp16")
    socs: tuple[str, ...] = ()
    calibration: CalibrationHint = CalibrationHint()
    int8: Int8Recipe | None = None
    upstream: Upstream | None = None
    notes: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        self._own_file()
        if [bool(self.sources), bool(self.pipeline), bool(self.export)].count(True) != 1:
            raise ValueError("a card has either a file, sources, an export or a pipeline")
        if not set(self.made_of) <= set(self.files):
            raise ValueError("made_of names roles of files")
        if self.make and not self.sources:
            raise ValueError("make needs sources")
        if self.export and self.files:
            raise ValueError("a card with an export has no files")
        if self.pipeline and (self.files or self.input or self.arrays):
            raise ValueError("a pipeline has no files or inputs of its own")
        fed_samples = self.file and isinstance(self.head, TensorsHead)
        fed = self.input or fed_samples
        if self.arrays and self.head and not fed and self.dtypes != ("fp16",):
            raise ValueError("without a picture to calibrate with, dtypes must be [fp16]")
        if not self.dtypes:
            raise ValueError("dtypes must not be empty")
        if "model" in self.files:
            raise ValueError("the role model is kept for `sources`")
        if any(not mirrors for mirrors in self.files.values()):
            raise ValueError("every role in files needs a source")
        if isinstance(self.labels, LabelsFrom) and self.labels.file not in ("", *self.files):
            raise ValueError(
                f"labels.file names {self.labels.file!r}, which is not a role in files"
            )

    def _own_file(self) -> None:
        """Makes `file` the source."""
        if self.file and not self.sources:
            own = Source(url=f"file:{self.file}", sha256=None, unverified=OWN_FILE)
            msgspec.structs.force_setattr(self, "sources", (own,))
        elif self.file and self.sources[0].unverified != OWN_FILE:
            raise ValueError("a card has either a file or sources")

    @property
    def dtype(self) -> Dtype:
        """The default data type of `convert`."""
        return self.dtypes[0]
