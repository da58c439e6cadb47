"""What becomes of a folder of model files: recognized, built in both number formats, simulated and
compared with float; as data and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import yaml

from rkzoo.contract.model import Contract
from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.files import temporary_folder, write_text
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.tasks.registry import spec_of
from rkzoo.tasks.tensors.feed import input_specs, made
from rkzoo.tasks.tensors.result import Tensors
from rkzoo.toolkit.recipe import DEFAULT_VERSION
from rkzoo.workflow.comparison.compare import compare
from rkzoo.workflow.comparison.result import RuntimeComparison
from rkzoo.workflow.request.options import read_labels
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

_SAMPLES = 3


class ModelRow(StrictStruct, frozen=True):
    """What became of one file.

    Attributes:
        model: The file's name.
        family: What it was recognized as.
        task: What its outputs are read as; "tensors" stay as they are.
        inputs: Name and shape of each input.
        float16, int8: Lowest cosine of an output on the simulator to float on ONNX Runtime; None
            where that was not built.
        samples: What the models were fed.
        problem: Why it goes no further.
        toolkit: Version of RKNN-Toolkit2.
    """

    model: str
    family: str = ""
    task: str = ""
    inputs: str = ""
    float16: float | None = None
    int8: float | None = None
    samples: str = ""
    problem: str = ""
    toolkit: str = DEFAULT_VERSION


def try_models(
    files: Sequence[Path],
    pictures: Path,
    *,
    size: tuple[int, int] | None = None,
    report: ProgressReporter = SILENT,
) -> list[ModelRow]:
    """Take each file the whole way.

    Args:
        files: Model files. FILE.labels.txt beside one names its classes.
        pictures: A folder of pictures, for calibration and comparison.
        size: (height, width) for inputs that a file leaves free.
        report: Progress.

    Returns:
        One row per file, in their order.
    """
    return [_try(file, pictures, size, report) for file in files]


def _try(
    file: Path, pictures: Path, size: tuple[int, int] | None, report: ProgressReporter
) -> ModelRow:
    row = ModelRow(file.name)
    labels = file.with_name(f"{file.stem}.labels.txt")
    request = Request(labels=read_labels(labels) if labels.exists() else None)
    try:
        contract, request = _contract(file, request, size)
        row = _described(row, contract)
        with temporary_folder() as scratch:
            samples = _samples(contract, pictures, scratch)
            request = replace(request, calibration=str(samples[0].parent))
            images = [str(sample) for sample in samples[:_SAMPLES]]
            for dtype in (None, "fp16"):  # where INT8 cannot be built, float16 alone
                try:
                    asked = replace(request, dtype=dtype)
                    ran = compare(
                        str(file), request=asked, images=images, layers=False, report=report
                    )
                    break
                except RkzooError as error:
                    if dtype is not None:
                        raise
                    row = _with(row, problem=f"INT8: {error.why or error.what}")
        cosines = {item.runtime: _lowest(item) for item in ran.ran}
        given = "pictures" if contract.picture and not contract.others else "random numbers"
        return _with(row, float16=cosines.get("fp16"), int8=cosines.get("int8"), samples=given)
    except RkzooError as error:
        return _with(row, problem=f"{error.what} {error.why}".strip())


def _with(row: ModelRow, **fields: float | str | None) -> ModelRow:
    return msgspec.structs.replace(row, **fields)


def _contract(
    file: Path, request: Request, size: tuple[int, int] | None
) -> tuple[Contract, Request]:
    """The contract, with `size` only where the file needs one."""
    try:
        return resolve(str(file), request).contract, request
    except RkzooError:
        if size is None:
            raise
        request = replace(request, size=size)
        return resolve(str(file), request).contract, request


def _described(row: ModelRow, contract: Contract) -> ModelRow:
    inputs = []
    for name, spec in input_specs(contract).items():
        shape = getattr(spec, "shape", None) or (1, spec.channels, *spec.size)  # type: ignore[union-attr]
        inputs.append(f"{name} {'x'.join(map(str, shape))}")
    task = spec_of(contract.head).name
    return _with(row, family=contract.family, task=task, inputs=", ".join(inputs))


def _samples(contract: Contract, pictures: Path, scratch: Path) -> list[Path]:
    """Pictures for a model that takes one; else made samples as .npz."""
    if contract.picture is not None and not contract.others:
        return sorted(path for path in pictures.iterdir() if path.suffix in (".jpg", ".png"))
    made_files = []
    for seed in range(_SAMPLES):
        made_files.append(scratch / f"{seed}.npz")
        Tensors(made(contract, seed)).save(made_files[-1])
    return made_files


def _lowest(item: RuntimeComparison) -> float | None:
    """The lowest cosine of all outputs."""
    cosines = [figures.cosine for figures in item.outputs]
    known = [cosine for cosine in cosines if cosine is not None]
    return round(min(known), 4) if known and len(known) == len(cosines) else None


def page(rows: Sequence[ModelRow]) -> str:
    """The page docs/models.md."""
    lines = [
        "# What becomes of any model",
        "",
        "Written by `rkzoo report models FOLDER`; not edited by hand. Each file is recognized, its "
        "head cut where it is known, built in float16 and INT8 for rk3588 with RKNN-Toolkit2 "
        f"{rows[0].toolkit if rows else DEFAULT_VERSION}, and run on the toolkit's simulator. The "
        "figure is the lowest cosine of any output to the same graph on ONNX Runtime [simulator "
        "against onnx], over at most three samples: it says that nothing is lost on the way, not "
        "how good a model is. `tensors`: the head is not known, and the outputs stay as they are. "
        "None of it was measured on a board.",
        "",
        "| model | recognized as | task | inputs | float16 | INT8 | fed with | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.model} | {row.family} | {row.task} | {row.inputs} | {_number(row.float16)} | "
        f"{_number(row.int8)} | {row.samples} | {row.problem} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def write_models(path: Path, rows: Sequence[ModelRow]) -> None:
    """Write the rows as yaml. Raises RkzooError when the disk refuses."""
    text = yaml.safe_dump(msgspec.to_builtins(list(rows)), sort_keys=False, allow_unicode=True)
    write_text(path, "# Written by rkzoo report models; not by hand.\n" + text)


def read_models(path: Path) -> list[ModelRow]:
    """The rows that `write_models` wrote. Raises RkzooError when they are invalid."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text("utf-8")), list[ModelRow])
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RkzooError(
            f"{path} is not a table of models.", f"{error}.", "Write it with rkzoo report models."
        ) from error


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
