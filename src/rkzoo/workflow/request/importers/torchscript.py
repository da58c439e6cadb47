"""ONNX of TorchScript archives: the programs that torch.jit.save writes.

Such a file is a program: to translate it, it is loaded and may be run. That happens in a child
process alone; in this one it is a zip of which names and one text are read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.schema_base import Size
from rkzoo.errors import RkzooError
from rkzoo.files import open_file, os_errors_explained
from rkzoo.progress import ProgressReporter
from rkzoo.workflow.request.importers.frameworks import PYTORCH, translated

USUAL = (640, 640)
_MOST = 1 << 20  # bytes of what a file says of itself


class ScriptMetadata(msgspec.Struct, frozen=True):
    """What Ultralytics writes into its archives: (height, width) and the names of classes."""

    imgsz: tuple[Size, Size] | None = None
    names: dict[int, str] = {}


def is_script(path: Path) -> bool:
    """Whether the file is a TorchScript archive. One of weights alone has no code in it."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    root = names[0].partition("/")[0] if names else ""
    return f"{root}/constants.pkl" in names and any(n.startswith(f"{root}/code/") for n in names)


def check_script(source: Path) -> None:
    """Raise RkzooError for what is no TorchScript archive."""
    with os_errors_explained(f"{source} cannot be read."), open_file(source):
        pass
    if not is_script(source):
        raise RkzooError(
            f"{source.name} is no TorchScript archive.",
            "It has no program in it.",
            "Write it with torch.jit.save, or export the model to ONNX.",
        )


def script_metadata(path: Path) -> ScriptMetadata:
    """What the archive says of itself; nothing, for most."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            inside = (info for info in archive.infolist() if _is_config(info.filename))
            member = next(inside, None)
            if member is None or member.file_size > _MOST:
                return ScriptMetadata()
            return msgspec.json.decode(archive.read(member), type=ScriptMetadata)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, msgspec.DecodeError):
        return ScriptMetadata()


def _is_config(name: str) -> bool:
    return name.partition("/")[2] == "extra/config.txt"


def input_size(
    path: Path, requested: tuple[int, int] | None, report: ProgressReporter
) -> tuple[int, int]:
    """(height, width) of the pictures: what was asked for, what the file says, or the usual."""
    size = requested or script_metadata(path).imgsz
    if size is None:
        report.note(
            f"{path.name} does not say how large its pictures are: 640x640 is assumed."
            " Give --size HxW for another."
        )
    return size or USUAL


def torchscript(
    files: Mapping[str, Path], target: Path, report: ProgressReporter, *, size: tuple[int, int]
) -> None:
    """A float ONNX that takes one RGB picture (1, 3, *size), and has the class names of the
    archive. Raises RkzooError where there is no environment with PyTorch."""
    from rkzoo.graph.onnx.read import load
    from rkzoo.graph.onnx.subgraph import part
    from rkzoo.graph.onnx.writer import save

    source = files["model"]
    check_script(source)
    translated(PYTORCH, source, target, report, {"images": (1, 3, *size)})
    # What a program works out of its shapes, each time it is run, is known by now.
    model = part(load(target), [ArrayInput(name="images", shape=(1, 3, *size))])
    names = script_metadata(source).names
    save(model, target, {"names": str(names)} if names else None)
