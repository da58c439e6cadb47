"""Which models a server may load: those of its command line, and the files of a folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rkzoo.errors import RkzooError
from rkzoo.files import files_in
from rkzoo.serving.engine import ServedModel
from rkzoo.workflow.request.model_name import is_pipeline

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def served_models(
    words: Sequence[str], request: Mapping[str, Any], slots: int = 0
) -> list[ServedModel]:
    """The models that a command line names.

    Args:
        words: MODEL as `rkzoo run` takes it, NAME=MODEL, or a folder of converted models.
        request: Fields of `Request` for all of them.
        slots: Slots of each; 0 for as many as keep the NPU busy.

    Raises:
        RkzooError: A file is not there, a name cannot be used, or names two models.
    """
    found: dict[str, ServedModel] = {}
    for name, model in (pair for word in words for pair in _named(word)):
        if not _NAME.fullmatch(name):
            raise RkzooError(
                f"{model} cannot be served as {name!r}.",
                "A name has letters a to z, digits, dots, dashes and underscores.",
                f"Name it, for example: rkzoo serve {shlex.quote(f'my-model={model}')}",
            )
        if name in found:
            raise RkzooError(
                f"Two models would be called {name}.",
                f"They are {found[name].model} and {model}.",
                f"Name one, for example: rkzoo serve {shlex.quote(f'{name}-2={model}')}",
            )
        found[name] = ServedModel(name, model, request, slots)
    return list(found.values())


def _named(word: str) -> list[tuple[str, str]]:
    name: str | None
    name, equals, model = word.partition("=")
    if not equals or Path(word).exists():
        name, model = None, word
    path = Path(model).expanduser()
    if path.is_dir():
        return _of_folder(path)
    is_file = path.suffix.lower() in (".rknn", ".onnx", ".json", ".tflite")
    if is_file and not path.is_file():
        raise RkzooError(f"{model} cannot be served.", "There is no such file.", "Check the name.")
    if not is_file:
        is_pipeline(model)  # raises for a name that no card has
    usual = path.stem if is_file else model
    return [(usual if name is None else name, str(path) if is_file else model)]


def _of_folder(folder: Path) -> list[tuple[str, str]]:
    """The converted models of a folder; files that a pipeline names belong to it."""
    from rkzoo.workflow.request.pipeline_file import is_pipeline_file, read_pipeline

    pipelines = [
        path for path in files_in(folder, frozenset({".json"})) if is_pipeline_file(str(path))
    ]
    parts = {part.resolve() for path in pipelines for part in read_pipeline(path).parts.values()}
    alone = [path for path in files_in(folder, frozenset({".rknn"})) if path.resolve() not in parts]
    if not pipelines and not alone:
        raise RkzooError(
            f"There is no model in {folder}.",
            "A folder is searched for .rknn files that rkzoo made, and for pipelines' .json.",
            "Convert one: rkzoo convert yolov8n --soc rk3588 -o " + str(folder / "yolov8n.rknn"),
        )
    return [(path.stem, str(path)) for path in (*pipelines, *alone)]
