"""A pipeline of .rknn files: a small JSON file beside them that says which plays which part.

`rkzoo convert ppocr` writes it, and it runs like a model: rkzoo run ppocr-rk3588.json PICTURE.
Such a file comes from anywhere, so it can name nothing but files of its own folder.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.files import explained, write_text
from rkzoo.strict import Strict

# A plain name: nothing that leads out of the folder, and no file that is hidden.
FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\.\x00][^/\\\x00]{0,250}\.rknn$")]
_LARGEST = 1 << 16


class Parts(Strict, frozen=True):
    """The models of a pipeline that reads text or plates: what finds the lines, what reads them
    and, where there is one, what tells which way up they are."""

    det: FileName
    rec: FileName
    cls: FileName | None = None


class PipelineFile(Strict, frozen=True):
    """What the file holds. `parts` lie beside it."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    parts: Parts
    rkzoo: str = ""
    format: Literal[1] = 1


def is_pipeline_file(model: str) -> bool:
    return Path(model).suffix.lower() == ".json"


def write_pipeline(path: Path, name: str, parts: dict[str, Path]) -> None:
    """Writes which .rknn, all of them beside `path`, has which role. Raises RkzooError."""
    names = {role: part.name for role, part in parts.items()}
    document = PipelineFile(name=name, parts=msgspec.convert(names, Parts), rkzoo=version("rkzoo"))
    text = msgspec.json.format(msgspec.json.encode(document), indent=1)
    write_text(path, text.decode() + "\n")


def read_pipeline(path: Path) -> tuple[str, dict[str, Path]]:
    """The pipeline's name, and the .rknn of each role. Raises RkzooError."""
    with explained(f"{path} cannot be read."), path.open("rb") as file:
        text = file.read(_LARGEST + 1)
    try:
        found = msgspec.json.decode(text[:_LARGEST], type=PipelineFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        beside = path.with_suffix("")
        of_model = beside.suffix.lower() == ".rknn"
        raise RkzooError(
            f"{path.name} is no pipeline of .rknn files.",
            f"It describes {beside.name}." if of_model else f"{error}.",
            f"Name {beside} itself." if of_model else "rkzoo convert ppocr writes such a file.",
        ) from error
    folder = path.resolve().parent
    parts = {}
    for role, name in msgspec.structs.asdict(found.parts).items():
        if name is None:
            continue
        # A link may lead out of the folder, too.
        if (folder / name).resolve().parent != folder:
            raise RkzooError(
                f"{path.name} names a file of another folder.",
                f"{name} is a link that leads out of {folder}.",
                "Put the model itself there.",
            )
        parts[role] = path.parent / name
    return found.name, parts
