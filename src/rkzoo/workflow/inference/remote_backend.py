"""A .rknn on the NPU of a board at the other end of a cable (`--on`): preparing, decoding and
scoring stay here, and what it computes comes back as it was computed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.protocol.board import Hello, OpenSession
from rkzoo.remote.boards import Shared, board, client_of, note_version
from rkzoo.remote.remedies import name_library
from rkzoo.remote.session import RemoteSession
from rkzoo.runtime.npu import Layout
from rkzoo.runtime.npu_api import Cores
from rkzoo.session import Session
from rkzoo.soc.chips import chips, resolve
from rkzoo.soc.machine import Machine, machine_from_json, read_machine
from rkzoo.soc.versions import Part, Version, parse
from rkzoo.workflow.inference.backend import Backend
from rkzoo.workflow.inference.board import (
    contract_of,
    hardware_text,
    judge_versions,
    layout_of,
    readable_rknn,
    recipe_of,
)
from rkzoo.workflow.inference.board_refusals import refuse_for

if TYPE_CHECKING:
    from rkzoo.toolkit.builds import BuildInputs
    from rkzoo.toolkit.recipe import Recipe
    from rkzoo.workflow.request.request import Request
    from rkzoo.workflow.request.resolved import ResolvedModel


@dataclass(frozen=True)
class RemoteBackend(Backend):
    """A model file here, and the board that runs it.

    Attributes:
        address: The board's.
        file: The .rknn.
        facts: The board's chip, driver and library, which decide the answers.
        cores: As for BoardBackend.
        available: NPU cores that may be used, 1 where that is not known.
        floats: As for NpuSession: the plain way, to compare with.
        shared: The connection that worker processes use too.
    """

    label = "board"

    address: str
    file: Path
    facts: str
    cores: Cores = Cores.AUTO
    available: int = 1
    floats: bool = False
    shared: Shared | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_model(
        cls, ready: ResolvedModel, request: Request, report: ProgressReporter
    ) -> RemoteBackend:
        address = _address(request)
        chip = chip_on(address, ready.name, request.chip)
        from rkzoo.workflow.compile.kept_rknn import kept_rknn

        return _on(address, kept_rknn(ready, chip, request, report), report)

    @classmethod
    def of_rknn(
        cls, path: Path, request: Request, report: ProgressReporter
    ) -> tuple[Contract, RemoteBackend]:
        return contract_of(path), _on(_address(request), path, report)

    def open(
        self, contract: Contract, *, threads: int = 0, report: ProgressReporter = SILENT
    ) -> Session:
        return open_remote(self, contract, report)

    @property
    def recipe(self) -> Recipe | None:
        return recipe_of(self.file)

    @property
    def origin(self) -> BuildInputs | None:
        recipe = self.recipe
        if recipe is None:
            return None
        from rkzoo.toolkit import builds
        from rkzoo.workflow.request.sidecar import read_sidecar

        inputs = builds.find(read_sidecar(self.file).build)
        return None if inputs is None else replace(inputs, recipe=recipe)

    @property
    def on(self) -> str:
        return self.address

    @property
    def hardware(self) -> str:
        return self.facts

    @property
    def npu_cores(self) -> int:
        return self.available

    def in_floats(self) -> RemoteBackend:
        return replace(self, floats=True)

    def on_core(self, number: int) -> RemoteBackend:
        if self.available < 2:
            return self
        return replace(self, cores=Cores(1 << number % self.available))

    @property
    def digest(self) -> str:
        return f"{sha256_of(self.file)} {self.address} {self.facts}"


def open_remote(
    model: RemoteBackend,
    contract: Contract,
    report: ProgressReporter = SILENT,
    *,
    layout: Layout | None = None,
    profile: bool = False,
    record_options: dict[str, Any] | None = None,
) -> RemoteSession:
    """Sends the model, unless it is there, and opens it on the board.

    Args:
        model: The file and the board.
        contract: What the model promises.
        report: Is shown what is sent, and told what versions warn of.
        layout: How outputs lie; None for the way that the model's decoder reads them.
        profile: Collect times per layer.
        record_options: What is wanted of the answers, as JSON types, where files are sent and
            records come back.

    Returns:
        The session.

    Raises:
        RkzooError: The board cannot be reached, or cannot open the model.
    """
    client = client_of(model.address, model.shared)
    sha256 = client.put(model.file, report)
    opened = client.open(
        OpenSession(
            sha256=sha256,
            name=model.file.name,
            cores=int(model.cores),
            layout=layout or layout_of(contract),
            floats=model.floats,
            picture=contract.picture is not None,
            profile=profile,
            **({} if record_options is None else _told(contract, record_options)),
        )
    )
    for note in opened.notes:
        _note_once(f"On {model.address}: {note}", report)
    return RemoteSession(client, opened, model.file.name)


def machine_on(address: str | None) -> Machine:
    """The machine now: this one, or the board at an address. Raises RkzooError."""
    if address is None:
        return read_machine()
    try:
        return machine_from_json(board(address).client.machine())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RkzooError(
            f"What {address} tells of itself cannot be read.",
            f"{error}.",
            "Update rkzoo there.",
            code=1,
        ) from error


def hardware_of(hello: Hello) -> str:
    """Chip, driver and library of a board in one line, as far as they are known."""
    return hardware_text(hello.chip, hello.driver, hello.library, library_version(hello))


def known_chip(hello: Hello) -> str | None:
    """The board's chip; None where it tells none, or one that is not known."""
    return hello.chip if hello.chip in chips() else None


def chip_on(address: str, model: str, named: str | None = None) -> str:
    """The chip that a model is built for, for a board.

    Args:
        address: The board's.
        model: The model's name.
        named: The chip that counts where the board tells none that is known.

    Raises:
        RkzooError: There is none.
    """
    chip = known_chip(board(address).hello) or (named and resolve(named))
    if not chip:
        raise RkzooError(
            f"{model} cannot be built for {address}.",
            "That machine tells no chip that rkzoo knows.",
            f"Convert it with rkzoo convert {model} --soc CHIP, and give the .rknn in its place;"
            " compare and tune also take --soc CHIP.",
        )
    return chip


def library_version(hello: Hello) -> str:
    """Version of the library that models are opened with; "" where it is not known."""
    return next((one.version for one in hello.libraries if one.path == hello.library), "")


def _told(contract: Contract, options: dict[str, Any]) -> dict[str, Any]:
    return {"contract": msgspec.Raw(msgspec.json.encode(contract)), "options": options}


_notes: set[str] = set()
_telling = threading.Lock()


def _note_once(text: str, report: ProgressReporter) -> None:
    with _telling:
        new = text not in _notes
        _notes.add(text)
    if new:
        report.note(text)


def _address(request: Request) -> str:
    if request.on is None:
        raise RkzooError("No board is named.", "", "Give --on ADDRESS.", code=1)
    return request.on


def _on(address: str, file: Path, report: ProgressReporter) -> RemoteBackend:
    """The file for the board. Raises RkzooError where it cannot run there, before it is sent."""
    connected = board(address)
    hello = connected.hello
    if not hello.library:
        raise RkzooError(f"{file.name} cannot be run on {address}.", *_no_library(address, hello))
    note_version(connected, report)
    read = readable_rknn(file)
    chip = known_chip(hello)
    if read is not None:
        # Where an NPU has memory of its own kind, the board alone knows how much.
        contiguous = chip is None or chips()[chip].iommu is False
        has = None if contiguous else hello.memory_free
        refuse_for(file.name, read, chip, has, "are free", address)
    known: dict[Part, Version | None] = {
        "model": parse(read.toolkit) if read else None,
        "runtime": parse(library_version(hello)),
        "driver": parse(hello.driver),
    }
    # What they warn of the board tells when it opens the model.
    judge_versions(file.name, known, chip, hello.library, SILENT, f"on {address}")
    return RemoteBackend(
        address,
        file,
        hardware_of(hello),
        available=max(1, hello.npu_cores),
        shared=connected.shared,
    )


def _no_library(address: str, hello: Hello) -> tuple[str, str]:
    """Why no model can be opened on a board, and the remedy."""
    if hello.library_fault:
        return hello.library_fault, name_library(address)
    if hello.chip is None:  # doctor takes such a machine for a PC, and misses no library there
        return (
            "No NPU library was found there, and it is no Rockchip board that rkzoo knows.",
            name_library(address),
        )
    return (
        "No NPU library was found there.",
        f"Run rkzoo doctor --on {address}: it says what is missing and where to get it.",
    )
