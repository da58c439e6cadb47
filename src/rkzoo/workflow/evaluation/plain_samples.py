"""Data for models of plain tensors: samples without ground truth, and the user's own metric."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rkzoo.accuracy.dataset import Dataset
from rkzoo.accuracy.folders import digest_of
from rkzoo.accuracy.tensors import Measured, Outputs, UserMetric
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.workflow.request.samples import files_of

TENSORS: Literal["tensors"] = "tensors"
AGREEMENT = (
    "the float model's own outputs count as right: 1 means equal to float, not free of errors"
)


def open_samples(data: str, metric: tuple[str, UserMetric] | None = None) -> Dataset:
    """The samples at `data`, in the order of their names.

    Args:
        data: A folder of pictures, .npy and .npz files, or one of them.
        metric: What judges them, with its name.

    Returns:
        The samples; without a metric nothing counts as right yet.

    Raises:
        RkzooError: There are none.
    """
    path = Path(data).expanduser()
    items = tuple(files_of(path))
    with os_errors_explained(f"The samples of {path} cannot be read."):
        digest = hashlib.sha256(digest_of(items)).hexdigest()
    dataset = Dataset(path.resolve().name, TENSORS, items, Outputs(()), digest)
    return replace(dataset, truth=Measured(*metric, items)) if metric else dataset


def as_metric(metric: str | UserMetric | None) -> tuple[str, UserMetric] | None:
    """The user's metric with its name.

    Args:
        metric: A function, or FILE.py:FUNCTION: the file is executed, since the user named it.

    Raises:
        RkzooError: The file cannot be imported, or has no such function.
    """
    if metric is None:
        return None
    if callable(metric):
        return getattr(metric, "__name__", "metric"), metric
    file, _, name = metric.rpartition(":")
    if not file.endswith(".py") or not name:
        raise RkzooError(
            f"The metric {metric} cannot be read.",
            "It is a Python file and a function in it.",
            "Give for example --metric score.py:accuracy.",
        )
    function = getattr(_imported(Path(file).expanduser()), name, None)
    if not callable(function):
        raise RkzooError(
            f"{file} has no function {name}.",
            "The metric is the function behind the colon.",
            "Check the name.",
        )
    return name, function


def _imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"rkzoo_metric_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise RkzooError(f"There is no file {path}.", "", "Check the name.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is the user's own code, which may raise anything
        raise RkzooError(
            f"{path} cannot be imported.",
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}.",
            f"Try python {path}.",
        ) from error
    return module
