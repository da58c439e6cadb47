"""Weights that lie about in another form than ONNX, made into it once: a table."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, cache_dir, explained, locked, sha256_of
from rkzoo.graph import minilm, whisper
from rkzoo.progress import SILENT, Reporter
from rkzoo.workflow.make_literal import from_literal
from rkzoo.workflow.make_tensorflow import deeplab, tensorflow
from rkzoo.workflow.make_yamnet import yamnet

Maker = Callable[[Mapping[str, Path], Path, Reporter], None]
"""The card's files by role, the .onnx to write, who is told."""

MAKERS: dict[str, Maker] = {
    "tflite": tensorflow,
    "pb": tensorflow,
    "yamnet": yamnet,
    "python-literal": from_literal,
    "deeplab": deeplab,
    "minilm-embedding": minilm.make_embedding,
    "minilm-encoder": minilm.make_encoder,
    "whisper-encoder": whisper.make_encoder,
    "whisper-embedding": whisper.make_embedding,
    "whisper-decoder": whisper.make_decoder,
}

_FILES = {".tflite": "tflite", ".pb": "pb"}


def is_model_file(name: str) -> bool:
    """Whether that is a model's file that the user has, which is or becomes ONNX."""
    return Path(name).suffix.lower() in (".onnx", *_FILES)


def as_onnx(path: Path, report: Reporter = SILENT) -> Path:
    """The file itself, or the .onnx that is made of it. Raises RkzooError."""
    name = _FILES.get(path.suffix.lower())
    if name is None:
        return path
    with explained(f"{path} cannot be read."), path.open("rb"):
        pass
    return made(name, {"model": path}, report)


def made(name: str, files: Mapping[str, Path], report: Reporter = SILENT) -> Path:
    """The .onnx that the maker `name` makes of a card's files, from the cache where it was made
    before by the same code. Raises RkzooError."""
    if name not in MAKERS:
        raise RkzooError(
            f"There is no maker called {name!r}.",
            f"rkzoo has {', '.join(sorted(MAKERS)) or 'none'}.",
            "Mend the card's key `make`.",
        )
    maker = MAKERS[name]
    key = hashlib.sha256(name.encode())
    key.update(Path(inspect.getfile(maker)).read_bytes())
    for role, file in sorted(files.items()):
        key.update(f"{role} {sha256_of(file)}".encode())
    target = cache_dir("made") / f"{key.hexdigest()[:32]}.onnx"
    with locked(target.with_suffix(".lock")):
        if target.exists():
            os.utime(target)
        else:
            with report.task(f"Making {name}"), atomic_output(target) as part:
                maker(files, part, report)
    return target
