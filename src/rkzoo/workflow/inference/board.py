"""A .rknn on the NPU of the machine that this runs on."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import open_file, os_errors_explained, sha256_of
from rkzoo.graph.rknn import reader as rknn
from rkzoo.graph.rknn.reader import RknnFile
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.npu import Layout, NpuSession
from rkzoo.runtime.npu_api import Cores, Init, NpuError
from rkzoo.runtime.npu_context import Context, NpuLibrary
from rkzoo.session import Session
from rkzoo.soc.library import ARM32, LITE, VARIABLE, examine, named_library
from rkzoo.soc.machine import CONTAINER_OPTIONS, library_paths, read_machine
from rkzoo.soc.npu_cores import usable_cores
from rkzoo.soc.tree import Tree
from rkzoo.soc.userland import bits_of, fits
from rkzoo.soc.versions import Part, Version, judge, parse, upgrade
from rkzoo.tasks.registry import spec_of
from rkzoo.workflow.inference.backend import Backend
from rkzoo.workflow.inference.board_custom import custom_operators
from rkzoo.workflow.inference.board_refusals import cause, refuse
from rkzoo.zoo.labels import label_set, label_sets

if TYPE_CHECKING:
    from rkzoo.runtime.npu_lite import LiteSession
    from rkzoo.toolkit.recipe import Recipe
    from rkzoo.workflow.request.request import Request
    from rkzoo.workflow.request.resolved import ResolvedModel

LIBRARY = VARIABLE
_NAMES = ("librknnrt.so", "librknnmrt.so")
_INSTALL = (
    ' or install what simulates it here: pip install "rkzoo[pc]". A container on a board is'
    f" started with {CONTAINER_OPTIONS}."
)


@dataclass(frozen=True)
class BoardBackend(Backend):
    """A model file and what opens it: the path (or bare name) of the NPU's library, or LITE for
    Rockchip's Python package. `cores` as in Cores; AUTO lets the driver choose for each run.
    `available` is how many cores may be used, 1 where that is not known. `floats` as for
    NpuSession: the plain way, to compare with."""

    label = "board"

    file: Path
    library: str
    cores: Cores = Cores.AUTO
    available: int = 1
    floats: bool = False

    @classmethod
    def of_model(
        cls, ready: ResolvedModel, request: Request, report: ProgressReporter
    ) -> BoardBackend:
        raise RkzooError("An NPU runs .rknn files only.", code=1)

    @classmethod
    def of_rknn(
        cls, path: Path, request: Request, report: ProgressReporter
    ) -> tuple[Contract, BoardBackend]:
        model = on_board(path, True)
        if model is None:
            raise RkzooError(f"{path.name} cannot be run on an NPU here.", code=1)
        return contract_of(path), model

    def open(
        self, contract: Contract, *, threads: int = 0, report: ProgressReporter = SILENT
    ) -> Session:
        return open_board(self, contract, report)

    @property
    def recipe(self) -> Recipe | None:
        return recipe_of(self.file)

    @property
    def hardware(self) -> str:
        machine, path = read_machine(), Path(self.library)
        version = examine(path, self.library).version if path.is_file() else ""
        return hardware_text(machine.chip, machine.driver, self.library, version)

    @property
    def npu_cores(self) -> int:
        return self.available

    def in_floats(self) -> BoardBackend:
        return replace(self, floats=True)

    def on_core(self, number: int) -> BoardBackend:
        """The same for worker `number` of several, each of which has a core in turn: the driver
        spreads them less evenly, and a frame over several cores costs more than it gains."""
        if self.available < 2:
            return self
        return replace(self, cores=Cores(1 << number % self.available))

    @property
    def digest(self) -> str:
        """What decides the answers, for a cache."""
        return f"{sha256_of(self.file)} {self.library} {os.environ.get(LIBRARY, '')}"


def hardware_text(chip: str | None, driver: str, library: str, version: str) -> str:
    """Chip, driver and library in one line, as far as they are known."""
    facts = {"chip": chip or "", "driver": driver, "library": f"{Path(library).name} {version}"}
    return ", ".join(f"{name} {value.strip()}" for name, value in facts.items() if value.strip())


def find_library() -> str | None:
    """The NPU's library that fits this machine: RKZOO_LIBRKNNRT, else the usual folders (as
    rkzoo doctor looks), else what the system's loader knows, else rknn-toolkit-lite2. None
    where there is none. Raises RkzooError when RKZOO_LIBRKNNRT names no file."""
    if library := named_library():
        return library
    if text := fitting_library(Tree(Path("/")), _NAMES):
        return text
    machine = platform.machine()
    if machine == "aarch64" or machine in ARM32:
        if known := ctypes.util.find_library("rknnrt") or ctypes.util.find_library("rknnmrt"):
            return known
        if importlib.util.find_spec("rknnlite") is not None:
            return LITE
    return None


def fitting_library(tree: Tree, names: tuple[str, ...]) -> str | None:
    """The first of these in the usual folders that is built for this machine."""
    machine, bits = platform.machine(), bits_of(tree)
    for path in library_paths(tree, names):
        built = examine(Path(path), path).machine
        if built and fits(built, machine, bits):
            return path
    return None


def on_board(file: Path, requested: bool) -> BoardBackend | None:
    """How `file` runs on this machine's NPU, or None where there is no NPU and none is
    `wanted`. Raises RkzooError where one is wanted, or should be there, and cannot be used."""
    library = find_library()
    machine = read_machine()
    if library is not None:
        usable = usable_cores(machine)
        whole = usable is None or usable == machine.npu_cores
        # With a driver that breaks the other cores it may not choose for itself.
        cores = Cores.AUTO if whole else Cores.CORE_0
        return BoardBackend(file, library, cores, available=usable or 1)
    simulated = _simulates()
    if not requested and not machine.board and simulated:
        return None
    if machine.board:
        raise RkzooError(
            f"{file.name} cannot be run on this board.",
            "Its NPU library, librknnrt.so, is not in /usr/lib or wherever else it may be.",
            "Run rkzoo doctor: it names the file and where to get it.",
        )
    raise RkzooError(
        f"{file.name} cannot be run on an NPU here.",
        "This machine is no Rockchip board, and no NPU library was found.",
        f"Copy the model (and the .json beside it) to the board and run the same command there,"
        f"{' or use --runtime simulator here.' if simulated else _INSTALL}",
    )


def _simulates() -> bool:
    """Whether what the simulator needs is here; a board's install leaves it out."""
    return importlib.util.find_spec("onnxruntime") is not None


def contract_of(file: Path) -> Contract:
    """What a .rknn promises: from the file beside it, else from the model itself. Raises
    RkzooError when rkzoo did not make it."""
    if file.with_name(file.name + ".json").exists():
        from rkzoo.workflow.request.sidecar import read_sidecar

        return read_sidecar(file).contract
    custom = rknn.read(file).custom_json
    if not isinstance(custom, dict) or "contract" not in custom:
        raise RkzooError(
            f"{file.name} does not tell how it is fed and read.",
            "rkzoo convert writes that into the model and into a .json beside it; this one was"
            " made by another program.",
            "Convert the model again with rkzoo convert.",
        )
    try:
        contract = msgspec.convert(custom["contract"], Contract)
    except msgspec.ValidationError as error:
        raise RkzooError(
            f"What {file.name} tells of itself is not understood.",
            f"It was made by rkzoo {custom.get('rkzoo', '?')}: {error}.",
            "Update rkzoo, or convert the model again.",
        ) from error
    known = custom.get("label_set")
    if not contract.labels and known in label_sets():
        contract = msgspec.structs.replace(contract, labels=label_set(known))
    return contract


def recipe_of(file: Path) -> Recipe | None:
    """How a .rknn was built, from the file beside it; None where that is missing. Raises
    RkzooError for one of another file."""
    if not file.with_name(file.name + ".json").exists():
        return None
    from rkzoo.workflow.request.sidecar import read_sidecar

    return read_sidecar(file).recipe


def layout_of(contract: Contract) -> Layout:
    """The layout that the model's outputs are read in: the NPU's own, where the task reads it."""
    return "native" if spec_of(contract.head).native_layout else "plain"


def open_board(
    model: BoardBackend,
    contract: Contract,
    report: ProgressReporter = SILENT,
    *,
    layout: Layout | None = None,
) -> Session:
    """The model on the NPU, its outputs as its decoder reads them or in `layout`. Raises
    RkzooError; says in `report` what versions warn of."""
    how = layout or layout_of(contract)
    image = contract.picture
    # Heeded where the file was built for several.
    shapes = ((1, *image.size, image.channels),) if image and not contract.others else ()
    return open_npu(model, report, layout=how, picture=image is not None, shapes=shapes)


def open_npu(
    model: BoardBackend,
    report: ProgressReporter = SILENT,
    *,
    layout: Layout,
    picture: bool,
    shapes: Sequence[Sequence[int]] = (),
    profile: bool = False,
) -> NpuSession | LiteSession:
    """The model on the NPU, whatever it promises.

    Args:
        model: The model.
        report: Is told what versions warn of.
        layout: As NpuSession's; `picture` and `shapes` likewise.
        profile: Collect times per layer, in a context of its own.

    Raises:
        RkzooError: It cannot be opened.
    """
    if model.library == LITE:
        from rkzoo.runtime.npu_lite import LiteSession

        _judge(model, report)
        file = rknn.read(model.file)
        custom_operators(model.file, file, lambda _: False)
        return LiteSession(
            model.file, file.inputs, file.outputs, cores=model.cores, picture=picture
        )
    context = _context(model, report, Init.COLLECT_PERF if profile else Init.NONE)
    if model.cores != Cores.AUTO:
        context.set_cores(model.cores)
    return NpuSession(context, layout=layout, floats=model.floats, picture=picture, shapes=shapes)


_OPEN: weakref.WeakValueDictionary[tuple[object, ...], Context] = weakref.WeakValueDictionary()
_OPENING = Lock()


def _context(model: BoardBackend, report: ProgressReporter, flags: Init) -> Context:
    """A context of its own; the weights are those of the same file where it is open already
    (not on RV1103 and RV1106, where they are read again). What there is to say is said once."""
    with os_errors_explained(f"{model.file} cannot be read."):
        stat = model.file.stat()
    key = (os.getpid(), model.library, str(model.file), stat.st_mtime_ns, stat.st_size, flags)
    with _OPENING:
        first = _OPEN.get(key)
        try:
            if first is not None and not first.closed:
                return first.duplicate()
            _judge(model, report)
            library = NpuLibrary(model.library)
            custom = custom_operators(model.file, readable_rknn(model.file), library.has)
            context = Context.open(library, model.file, flags, custom)
        except NpuError as error:
            raise cause(error, readable_rknn(model.file), read_machine()) from error
        if context.stand_in:
            report.note(
                "The NPU library is a stand-in for tests: it plays back what was recorded"
                " elsewhere, and nothing here was measured on a board."
            )
        _OPEN[key] = context
        return context


def _judge(model: BoardBackend, report: ProgressReporter) -> None:
    """Holds library, driver, model and chip against each other before the library is asked: it
    may end the process over what it does not like. Raises RkzooError."""
    file, machine = readable_rknn(model.file), read_machine()
    refuse(model.file.name, file, machine)
    path = Path(model.library)
    library = examine(path, model.library) if path.is_file() else None
    known: dict[Part, Version | None] = {
        "model": parse(file.toolkit) if file else None,
        "runtime": parse(library.version) if library else None,
        "driver": parse(machine.driver),
    }
    judge_versions(model.file.name, known, machine.chip, model.library, report)


def judge_versions(
    name: str,
    known: Mapping[Part, Version | None],
    chip: str | None,
    library: str,
    report: ProgressReporter,
    where: str = "here",
) -> None:
    """Holds the versions that meet on a board against each other.

    Args:
        name: What the model is called in messages.
        known: The versions by part.
        chip: The board's chip.
        library: Path of the library that opens the model there.
        report: Is told what versions warn of.
        where: The board, in messages.

    Raises:
        RkzooError: They do not go together.
    """
    own = Path(library).name
    own = own if own in _NAMES else _NAMES[0]
    for rule in judge(known, chip=chip, library=own):
        mend = upgrade(rule.mend, library=own, place=library)
        seen = ", ".join(f"{part} {known[part]}" for part in rule.when if known.get(part))
        if rule.level == "fail":
            raise RkzooError(f"{name} cannot run {where} ({seen}).", rule.why, mend)
        report.note(f"{rule.why} ({seen}) {mend}")


def readable_rknn(path: Path) -> RknnFile | None:
    """What the file says; None where it is encrypted, which the library alone can judge. Raises
    RkzooError for one that is empty, cut short or of another kind."""
    with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
        if file.read(4) == b"RKCE":
            return None
    return rknn.read(path)
