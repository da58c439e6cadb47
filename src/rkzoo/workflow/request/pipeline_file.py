"""A pipeline as files: a small JSON beside its parts that says which plays which.

`rkzoo convert ppocr` writes it, and it runs like a model: rkzoo run ppocr-rk3588.json PICTURE.
Such a file comes from anywhere, so it can name nothing but files of its own folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from rkzoo.contract.model import Contract, Head
from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, open_file, os_errors_explained, write_text

# A plain name: nothing that leads out of the folder, and no file that is hidden.
FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\.\x00][^/\\\x00]{0,250}$")]
_LARGEST = 1 << 16


class OnCpu(StrictStruct, frozen=True):
    """A part that stays on the processor: an ONNX graph, and what it promises."""

    file: FileName
    contract: Contract


class PipelineFile(StrictStruct, frozen=True):
    """What the file holds. `parts` are .rknn files by role, `cpu` graphs for the processor,
    `files` what the task needs beside them (`decoder.vocabulary`). `head` says how they play
    together, where they read no text."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    parts: dict[str, FileName]
    cpu: dict[str, OnCpu] = msgspec.field(default_factory=dict)
    files: dict[str, FileName] = msgspec.field(default_factory=dict)
    head: Head | None = None
    rkzoo: str = ""
    format: Literal[1] = 1


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's files where they lie, by role."""

    name: str
    parts: dict[str, Path]
    cpu: dict[str, tuple[Path, Contract]]
    files: dict[str, Path]
    head: Head | None


def is_pipeline_file(model: str) -> bool:
    return Path(model).suffix.lower() == ".json"


def write_pipeline(
    path: Path,
    name: str,
    parts: Mapping[str, Path],
    *,
    cpu: Mapping[str, tuple[bytes, Contract]] | None = None,
    files: Mapping[str, Path] | None = None,
    head: Head | None = None,
) -> None:
    """Writes which .rknn, all of them beside `path`, has which role; and beside it the graphs of
    `cpu` and copies of `files`. Raises RkzooError."""
    graphs = {
        role: OnCpu(file=f"{name}-{role}-cpu.onnx", contract=contract)
        for role, (_, contract) in (cpu or {}).items()
    }
    copies = {role: f"{name}-{role}{file.suffix}" for role, file in (files or {}).items()}
    with os_errors_explained(f"The files of {path.name} cannot be written."):
        for role, (graph, _) in (cpu or {}).items():
            with atomic_output(path.with_name(graphs[role].file)) as part:
                part.write_bytes(graph)
        for role, file in (files or {}).items():
            with atomic_output(path.with_name(copies[role])) as part:
                shutil.copyfile(file, part)
    document = PipelineFile(
        name=name,
        parts={role: part.name for role, part in parts.items()},
        cpu=graphs,
        files=copies,
        head=head,
        rkzoo=version("rkzoo"),
    )
    text = msgspec.json.format(msgspec.json.encode(document), indent=1)
    write_text(path, text.decode() + "\n")


def read_pipeline(path: Path) -> Pipeline:
    """What the file names. Raises RkzooError."""
    with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
        text = file.read(_LARGEST + 1)
    try:
        pipeline_file = msgspec.json.decode(text[:_LARGEST], type=PipelineFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        beside = path.with_suffix("")
        of_model = beside.suffix.lower() == ".rknn"
        raise RkzooError(
            f"{path.name} is no pipeline of .rknn files.",
            f"It describes {beside.name}." if of_model else f"{error}.",
            f"Name {beside} itself." if of_model else "rkzoo convert ppocr writes such a file.",
        ) from error
    return Pipeline(
        pipeline_file.name,
        {role: _beside(path, name, ".rknn") for role, name in pipeline_file.parts.items()},
        {
            role: (_beside(path, on_cpu.file, ".onnx"), on_cpu.contract)
            for role, on_cpu in pipeline_file.cpu.items()
        },
        {role: _beside(path, name) for role, name in pipeline_file.files.items()},
        pipeline_file.head,
    )


def _beside(path: Path, name: str, suffix: str = "") -> Path:
    """A file of the folder of `path`; a link may lead out of it, too."""
    folder = path.resolve().parent
    if (folder / name).resolve().parent != folder:
        raise RkzooError(
            f"{path.name} names a file of another folder.",
            f"{name} is a link that leads out of {folder}.",
            "Put the file itself there.",
        )
    if suffix and Path(name).suffix.lower() != suffix:
        raise RkzooError(
            f"{path.name} is no pipeline of .rknn files.",
            f"{name} does not end in {suffix}.",
            "Convert the pipeline again with rkzoo convert.",
        )
    file = path.parent / name
    if file.exists() and not file.is_file():
        raise RkzooError(
            f"{path.name} names what is no file.",
            f"{name} is a folder, a device or a pipe.",
            "Convert the pipeline again with rkzoo convert.",
        )
    return file
