"""What a card may say: one small yaml a model, checked key by key."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Head, TaskName, TensorsHead
from rkzoo.contract.schema_base import Strict

Dtype = Literal["int8", "fp16"]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Bytes = Annotated[int, msgspec.Meta(ge=1)]

SCHEMES = ("https:", "pypi:", "file:")
_PYPI = re.compile(
    r"^pypi:(?P<package>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9._+!-]+)#(?P<member>[^\s\\]+)$"
)
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


class Licence(Strict, frozen=True):
    """Under which terms the file comes. `name` is the SPDX identifier where one exists."""

    name: Text
    url: str = ""
    note: str = ""


class Source(Strict, frozen=True):
    """Where the bytes of one file are.

    `url` is `https://...`, `pypi:package==version#path/in/wheel` or `file:path`, the
    latter from the folder of the card. `sha256` and `size` (bytes) are of the file
    itself, not of the wheel. `sha256: null` needs the reason in `unverified`; the hash is
    then recorded at the first download and held to from there on.
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
            raise ValueError("sha256 must be 64 small hexadecimal digits")

    def wheel(self) -> Wheel:
        """The parts of a `pypi:` url. Raises ValueError when it has another form."""
        found = _PYPI.match(self.url)
        if not found:
            raise ValueError("url must look like pypi:package==version#path/in/wheel")
        if ".." in found["member"].split("/") or found["member"].startswith("/"):
            raise ValueError("the path in the wheel must be relative and not go up")
        return Wheel(**found.groupdict())


class Wheel(Strict, frozen=True):
    """One file inside one release on a package index."""

    package: str
    version: str
    member: str


class LabelsFrom(Strict, frozen=True):
    """Labels that lie in a file: one a line, or in the `column` of a .csv that begins with the
    names of its columns.

    `onnx_metadata` names a key of the ONNX file's metadata, `file` a role of the card's
    `files`; one of the two. `before` and `after` are put around them (a CTC blank, the
    space).
    """

    onnx_metadata: str = ""
    file: str = ""
    column: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.onnx_metadata) == bool(self.file):
            raise ValueError("give one of onnx_metadata and file")


class CalibrationHint(Strict, frozen=True):
    """What sets the INT8 ranges of this model well.

    `pictures` says in plain words what they should show, `count` how many are enough; `folder`
    is where they lie, from the card's own folder, where none are given.
    """

    pictures: str = ""
    folder: str = ""
    count: Annotated[int, msgspec.Meta(ge=1, le=10000)] = 20
    algorithm: Literal["normal", "kl_divergence", "mmse"] = "normal"


OWN_FILE = "a file of your own"


class Card(Strict, frozen=True):
    """What the zoo knows of a model, of a pipeline of models, or of an asset.

    A model has `sources` (mirrors of one file, tried in order), or `file`, a model of one's own by
    its path from the card's folder, which needs no hash, size or licence; or `export`, the command
    that makes the file where its authors publish no ONNX; a pipeline has `pipeline`, a card for
    each role. `files` are further files by role. `input` and
    `head` are the contract; where `head` is missing it is recognised from the graph, and
    `input.size` counts only when the graph leaves it free. `arrays` are the inputs that are no
    pictures, with the shapes that they are fixed to; they may be tensors inside the graph, and
    so may `outputs`: a part of the file is the model then. `make` names what makes the ONNX
    where the files are of another form, `made_of` those of `files` that only go into it. `cpu`
    says why a part of a pipeline stays on the processor wherever the others run. A pipeline's
    `head` says how its parts play together. `published` is the file's name in the vendor's table
    of speeds where that is not the card's. `labels` is a list, the name of a set
    (zoo/label_sets), a .txt of one name a line in the card's folder, or where they lie. `socs`
    empty: every chip that builds one of `dtypes`; the first of `dtypes` is the default. `notes`
    say what the original does wrong and is done right here, and what has not been checked.
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
            raise ValueError(f"labels.file names {self.labels.file!r}, which is no role in files")

    def _own_file(self) -> None:
        """Makes `file` the source."""
        if self.file and not self.sources:
            own = Source(url=f"file:{self.file}", sha256=None, unverified=OWN_FILE)
            msgspec.structs.force_setattr(self, "sources", (own,))
        elif self.file and self.sources[0].unverified != OWN_FILE:
            raise ValueError("a card has either a file or sources")

    @property
    def dtype(self) -> Dtype:
        """What `convert` builds when nothing is said."""
        return self.dtypes[0]
