"""What the simulator answered to a few inputs, kept beside a .rknn, so that a board can be held
against it: `OUT.rknn.golden.npz`.

The file is a plain .npz: `about` (JSON), and one stack of samples for each input and output.
It comes from anywhere, so nothing of it is unpickled, and nothing is read that is larger than
what `about` says, or of another type.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cv2
import msgspec
import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import TensorsHead
from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError, printable
from rkzoo.files import atomic_output, os_errors_explained, sha256_of
from rkzoo.graph.rknn import reader as rknn
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.simulator import SimulatorSession, fed_spec
from rkzoo.session import Array
from rkzoo.toolkit import builds
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan
from rkzoo.workflow.request import calibration as calib

if TYPE_CHECKING:
    from rkzoo.workflow.compile.prepare import Prepared

INPUTS = 3
"""How many inputs are kept where no number is given."""
MOST = 100
LARGEST = 1 << 29
"""Bytes of all arrays together."""
_LONGEST = 1 << 20  # bytes of `about`
_DIMS = 9
_KINDS = frozenset(("uint8", "int8", "int32", "int64", "float32"))

Origin = Literal["calibration", "pictures", "made"]


class GoldenMetadata(StrictStruct, frozen=True):
    """What a golden file says of itself. `model` is the sha256 of its .rknn; `inputs` as a
    session takes them and `outputs` as the simulator returns them, for one sample; `origin` says
    whether the `count` inputs are calibration samples, pictures that were given, or made."""

    model: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    count: Annotated[int, msgspec.Meta(ge=1, le=MOST)]
    origin: Origin
    toolkit: str
    rkzoo: str
    format: Literal[1] = 1


@dataclass(frozen=True)
class GoldenInputs:
    """`arrays` holds a stack (count, *shape) for each input, shaped as a session takes it."""

    origin: Origin
    arrays: tuple[Array, ...]


@dataclass(frozen=True)
class Golden:
    """`fed` and `answers` hold a stack (count, *shape) for each input and output."""

    about: GoldenMetadata
    fed: tuple[Array, ...] = field(repr=False)
    answers: tuple[Array, ...] = field(repr=False)

    def inputs(self, index: int) -> list[Array]:
        """What the model is fed the `index`-th time."""
        return [stack[index] for stack in self.fed]

    def outputs(self, index: int) -> list[Array]:
        """What the simulator answered to that."""
        return [stack[index] for stack in self.answers]


def golden_path(model: Path) -> Path:
    return model.with_name(model.name + ".golden.npz")


# ---- made on a PC -------------------------------------------------------------------


def check_count(count: int) -> None:
    """Raises RkzooError for a number of inputs that nobody can keep."""
    if not 0 <= count <= MOST:
        raise RkzooError(
            f"{count} inputs cannot be kept for a check.",
            f"It takes between 1 and {MOST} of them.",
            f"Give --golden {INPUTS}, or leave it out.",
        )


def samples(
    prepared: Prepared,
    pictures: calib.CalibrationImages | None,
    count: int,
    report: ProgressReporter = SILENT,
) -> GoldenInputs:
    """What a model is fed for its golden file: the first calibration samples where it has some,
    else the first `pictures`, else numbers that are the same each time."""
    plans = prepared.recipe.inputs
    kept = builds.find(prepared.key)
    if kept is not None and kept.calibration is not None:
        folder = kept.calibration
        with os_errors_explained("The calibration samples cannot be read from the cache."):
            stacks = [
                np.load(folder / f"calibration-{number}.npy", mmap_mode="r")[:count]
                for number in range(len(plans))
            ]
        arrays = [_shaped(stack, plan) for stack, plan in zip(stacks, plans, strict=True)]
        return GoldenInputs("calibration", tuple(arrays))
    contract = prepared.ready.contract
    if pictures is not None:
        pictures = calib.choose(pictures, contract, count, report=report)
    if pictures is not None and isinstance(contract.head, TensorsHead):
        sample_arrays = calib.sample_arrays(pictures, contract, report, most=count)
        shaped = [_shaped(stack, plan) for stack, plan in zip(sample_arrays, plans, strict=True)]
        return GoldenInputs("calibration", tuple(shaped))
    spec, card = prepared.ready.contract.picture, prepared.ready.card
    if spec is not None and card is not None:
        from rkzoo.workflow.compile.text_calibration import pictures_for

        pictures = pictures_for(card.name, pictures, report)
    synthetic = [_synthetic_inputs(plan, count, seed) for seed, plan in enumerate(plans)]
    if spec is None or pictures is None:
        return GoldenInputs("made", tuple(synthetic))
    first = replace(
        pictures, count=min(count, len(pictures)), load=lambda: islice(pictures.load(), count)
    )
    shown = _shaped(calib.arrays(first, spec, report), plans[0])
    return GoldenInputs("pictures", (shown, *(stack[: len(shown)] for stack in synthetic[1:])))


def _shaped(stack: Array, plan: InputPlan) -> Array:
    """Stacked samples as a session takes them; one picture fills a batch."""
    shape = fed_spec(plan).shape
    if plan.mean:
        return np.stack([np.broadcast_to(sample, shape) for sample in stack])
    return np.ascontiguousarray(stack, plan.dtype).reshape(len(stack), *shape)


def _synthetic_inputs(plan: InputPlan, count: int, seed: int) -> Array:
    """(count, *shape): soft blobs with noise for a picture, zeros and ones for whole numbers
    (which may count or choose anything), else normal numbers."""
    spec, random = fed_spec(plan), np.random.default_rng(seed)
    shape = (count, *spec.shape)
    if not plan.mean:
        values = random.standard_normal(shape) if plan.dtype == "float32" else None
        return np.asarray(random.integers(0, 2, shape) if values is None else values, plan.dtype)
    pixels = np.empty(shape, np.uint8)
    height, width, channels = spec.shape[1:]
    for picture in pixels.reshape(-1, height, width, channels):
        coarse = random.integers(0, 256, (-(-height // 32), -(-width // 32), channels), np.uint8)
        soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        noise = random.integers(-16, 17, picture.shape)
        picture[:] = np.clip(soft.reshape(picture.shape) + noise, 0, 255)
    return pixels


def record(
    model: Path, process: ToolkitProcess, plans: Sequence[InputPlan], fed: GoldenInputs
) -> Path:
    """Writes what `process`, which has just built `model`, answers to `fed`. Raises RkzooError."""
    file = rknn.read(model)
    session = SimulatorSession(process, plans, file.outputs)
    count = len(fed.arrays[0])
    runs = [session.run([stack[index] for stack in fed.arrays]) for index in range(count)]
    about = GoldenMetadata(
        model=sha256_of(model),
        name=model.name,
        inputs=session.inputs,
        outputs=session.outputs,
        count=count,
        origin=fed.origin,
        toolkit=file.toolkit,
        rkzoo=version("rkzoo"),
    )
    answers = tuple(np.stack(stack) for stack in zip(*runs, strict=True))
    return write_golden(golden_path(model), Golden(about, fed.arrays, answers))


def write_golden(path: Path, golden: Golden) -> Path:
    """Writes the file, whole or not at all, and returns its path. Raises RkzooError."""
    about = golden.about
    stacks = (*golden.fed, *golden.answers)
    if sum(stack.nbytes for stack in stacks) > LARGEST:
        raise RkzooError(
            f"{about.count} inputs of {about.name} with their outputs are too much for one file.",
            f"Together they are more than {LARGEST >> 20} MiB.",
            "Convert with --golden 1.",
        )
    names = _names(about)
    for name, stack, spec in zip(names, stacks, (*about.inputs, *about.outputs), strict=True):
        if (stack.shape, stack.dtype) != ((about.count, *spec.shape), np.dtype(spec.dtype)):
            raise RkzooError(f"{name} is {stack.dtype} {stack.shape}, which is not {spec}.", code=1)
    text = np.frombuffer(msgspec.json.encode(about), np.uint8)
    arrays: dict[str, Any] = dict(zip(names, stacks, strict=True))
    with atomic_output(path) as part:
        np.savez_compressed(part, about=text, **arrays)
    return path


def _names(about: GoldenMetadata) -> list[str]:
    """What the arrays are called, inputs first."""
    return [
        *(f"input{number}" for number in range(len(about.inputs))),
        *(f"output{number}" for number in range(len(about.outputs))),
    ]


# ---- read on a board ----------------------------------------------------------------


def golden_of(model: Path, path: Path | None = None) -> Golden:
    """The golden file of a .rknn: `path`, else the one beside it. Raises RkzooError where there
    is none, or it is damaged or belongs to another model."""
    place = path or golden_path(model)
    with os_errors_explained(f"{model} cannot be read."):
        model.stat()
    if not place.exists():
        raise RkzooError(
            f"{model.name} has no {place.name} to be checked against.",
            "rkzoo convert writes it when it is asked to: inputs with the simulator's outputs.",
            "Convert the model again with rkzoo convert ... --golden, and copy both files.",
        )
    golden = read_golden(place)
    if golden.about.model != sha256_of(model):
        raise RkzooError(
            f"{place.name} belongs to another build of {model.name}.",
            f"It names {printable(golden.about.name)} by its sha256, {golden.about.model[:12]} "
            f"and so"
            " on, which is not this file's.",
            "Convert the model again with rkzoo convert ... --golden, and copy both files.",
        )
    return golden


def read_golden(path: Path) -> Golden:
    """Raises RkzooError for a file that is damaged, too large, or no golden file."""
    with os_errors_explained(f"{path} cannot be read."):
        try:
            if not path.is_file():
                path.stat()
                raise ValueError("It is no regular file")
            with zipfile.ZipFile(path) as archive:
                return _read(archive)
        except OSError:
            raise
        except Exception as error:  # zipfile, zlib and numpy have many names for a bad file
            raise RkzooError(
                f"{path} is no golden file, or a damaged one.",
                f"{str(error).rstrip('.') or type(error).__name__}.",
                "Copy it again, or convert the model again with rkzoo convert ... --golden.",
            ) from error


def _read(archive: zipfile.ZipFile) -> Golden:
    text = _array(archive, "about", np.dtype(np.uint8))
    about = msgspec.json.decode(text.tobytes(), type=GoldenMetadata)
    specs = (*about.inputs, *about.outputs)
    if not about.inputs or not about.outputs:
        raise ValueError("It names no inputs, or no outputs")
    if any(spec.dtype not in _KINDS for spec in specs):
        raise ValueError("It names numbers of a kind that no model has")
    requested = [((about.count, *spec.shape), np.dtype(spec.dtype)) for spec in specs]
    if any(len(shape) > _DIMS or min(shape) < 1 for shape, _ in requested):
        raise ValueError("It names shapes that no tensor has")
    if sum(math.prod(shape) * kind.itemsize for shape, kind in requested) > LARGEST:
        raise ValueError(f"Its arrays are larger than {LARGEST >> 20} MiB")
    stacks = tuple(
        _array(archive, name, kind, shape)
        for name, (shape, kind) in zip(_names(about), requested, strict=True)
    )
    count = len(about.inputs)
    return Golden(about, stacks[:count], stacks[count:])


def _array(
    archive: zipfile.ZipFile, name: str, kind: np.dtype[Any], shape: tuple[int, ...] | None = None
) -> Array:
    """One array, which must have this type and shape (any flat one of at most _LONGEST numbers
    where that is not known) before any of it is read."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others unpack as much as the file likes at once.
        raise ValueError(f"{name} is packed in a way that is not taken")
    with archive.open(info) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{name} is of an unknown version")
        try:
            header_shape, turned, type_ = np.lib.format.read_array_header_1_0(member)
        except MemoryError as error:  # so numpy's parser calls a text that is nested too deep
            raise ValueError(f"{name} has no header that can be read") from error
        if shape is None and len(header_shape) == 1 and 0 <= header_shape[0] <= _LONGEST:
            shape = header_shape
        if (header_shape, turned, type_) != (shape, False, kind):
            raise ValueError(f"{name} is {type_} {header_shape}, and not what it should be")
        size = math.prod(header_shape) * kind.itemsize
        data = member.read(size)
        # To its very end, where the checksum is compared.
        if len(data) != size or member.read(1):
            raise ValueError(f"{name} has not as many bytes as it says")
    return np.frombuffer(data, kind).reshape(header_shape)
