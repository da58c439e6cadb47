"""Weights that lie about in another form than ONNX, made into it once: a table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import (
    atomic_output,
    cache_dir,
    locked,
    open_file,
    os_errors_explained,
    package_digest,
    sha256_of,
)
from rkzoo.kept import intact, seal
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.workflow.request.importers import from_weights
from rkzoo.workflow.request.importers.literal import from_literal
from rkzoo.workflow.request.importers.structure import check_structure
from rkzoo.workflow.request.importers.tensorflow import deeplab, tensorflow
from rkzoo.workflow.request.importers.torchscript import (
    check_script,
    input_size,
    is_script,
    torchscript,
)
from rkzoo.workflow.request.importers.yamnet import yamnet
from rkzoo.zoo.catalogue import PYTORCH, refuse_file

Maker = Callable[..., None]
"""The card's files by role, the .onnx to write, who is told; by name, what the user said."""

MAKERS: dict[str, Maker] = {
    "tflite": tensorflow,
    "pb": tensorflow,
    "torchscript": torchscript,
    "yamnet": yamnet,
    "python-literal": from_literal,
    "deeplab": deeplab,
    "minilm-embedding": from_weights.minilm_embedding,
    "minilm-encoder": from_weights.minilm_encoder,
    "kokoro": from_weights.kokoro,
    "moonshine-encoder": from_weights.moonshine_encoder,
    "moonshine-embedding": from_weights.moonshine_embedding,
    "moonshine-decoder": from_weights.moonshine_decoder,
    "whisper-encoder": from_weights.whisper_encoder,
    "whisper-embedding": from_weights.whisper_embedding,
    "whisper-decoder": from_weights.whisper_decoder,
}

_FILES = {".tflite": "tflite", ".pb": "pb", ".torchscript": "torchscript"}


def _importer_of(path: Path) -> str | None:
    """Who makes ONNX of such a file. PyTorch's suffixes are given to programs and to weights."""
    suffix = path.suffix.lower()
    if suffix in PYTORCH and is_script(path):
        return "torchscript"
    return _FILES.get(suffix)


def is_model_file(name: str) -> bool:
    """Whether that is a model's file that the user has, which is or becomes ONNX."""
    path = Path(name)
    return path.suffix.lower() == ".onnx" or _importer_of(path) is not None


def as_onnx(
    path: Path, report: ProgressReporter = SILENT, *, size: tuple[int, int] | None = None
) -> Path:
    """The file itself, or the .onnx that is made of it. `size` (height, width) counts for a
    program, which has no shapes before it is run. Raises RkzooError."""
    name = _importer_of(path)
    if name is None:
        if path.suffix.lower() in PYTORCH:
            refuse_file(path)
        return path
    with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
        if not file.read(1):
            raise RkzooError(f"{path} is no model.", "The file is empty.", "Copy it again.")
    check_structure(path)
    if name == "torchscript":
        check_script(path)
    extra = {"size": input_size(path, size, report)} if name == "torchscript" else {}
    return make_model(name, {"model": path}, report, **extra)


def make_model(
    name: str,
    files: Mapping[str, Path],
    report: ProgressReporter = SILENT,
    **value: tuple[int, ...],
) -> Path:
    """The .onnx that the maker `name` makes of a card's files and of what the user `said`, from
    the cache where it was made before by the same code. Raises RkzooError."""
    if name not in MAKERS:
        raise RkzooError(
            f"There is no maker called {name!r}.",
            f"rkzoo has {', '.join(sorted(MAKERS)) or 'none'}.",
            "Mend the card's key `make`.",
        )
    maker = MAKERS[name]
    key = hashlib.sha256(f"{name} {package_digest()}".encode())
    key.update(repr(sorted(value.items())).encode())
    for role, file in sorted(files.items()):
        key.update(f"{role} {sha256_of(file)}".encode())
    entry = cache_dir("made") / key.hexdigest()[:32]
    with locked(cache_dir("locks") / f"made-{entry.name}"):
        if not intact(entry, report):
            with report.task(f"Making {name}"), atomic_output(entry) as part:
                part.mkdir()
                maker(files, part / "model.onnx", report, **value)
                seal(part)
    return entry / "model.onnx"
