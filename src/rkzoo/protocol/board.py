"""The calls of a board that stand beside the Open Inference Protocol, under /rkzoo/v1.

A client takes a lease, a response that goes on as long as it is read; with its end the sessions
that were opened and the clocks that were held under it are given back. Files are kept by their
sha256 and sent once. A session is then a model of the Open Inference Protocol, under its own name:
POST /v2/models/SESSION/infer runs it, with raw integers and the NPU's layouts as its specs say.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rkzoo.contract.inputs import TensorSpec

VERSION = 1
"""Of these calls: client and board must be equal."""

ROOT = "/rkzoo/v1"
HELLO = f"{ROOT}/hello"  # GET -> Hello
LEASES = f"{ROOT}/leases"  # POST -> lines: Lease, then empty objects
FILES = f"{ROOT}/files"  # GET /SHA256 -> Stored; PUT /SHA256 with Content-Range -> Stored
SESSIONS = f"{ROOT}/sessions"  # POST OpenSession -> Opened; DELETE /SESSION
# POST /SESSION/time (an infer request with the parameter `runs`) -> Timed
# POST /SESSION/record (a file's bytes) -> the record's arrays, as an infer response
# GET /SESSION/layers -> Layers; GET /SESSION/memory -> ModelMemory
DOCTOR = f"{ROOT}/doctor"  # GET ?file=SHA256&name=NAME -> what `rkzoo doctor --json` prints
CAPTURE = f"{ROOT}/capture"  # GET -> a .tar, as of `rkzoo doctor --capture`
MACHINE = f"{ROOT}/machine"  # GET -> soc.machine.Machine as JSON (machine_to_json)
CLOCKS = f"{ROOT}/clocks"  # POST SetClocks -> ClocksSet

LEASE_HEADER = "Rkzoo-Lease"
BEAT = 2.0
"""Seconds between two lines of a lease."""


class ServerReady(msgspec.Struct, frozen=True):
    """The line that `rkzoo serve` prints when it listens. `addresses`: URLs, or unix:PATH."""

    addresses: tuple[str, ...]
    pid: int
    rkzoo: str
    protocol: int = VERSION


class LibraryFacts(msgspec.Struct, frozen=True):
    """A runtime library of the board."""

    path: str
    name: str
    version: str
    fault: str = ""


class Hello(msgspec.Struct, frozen=True):
    """Versions, and the machine as doctor reads it. `library` is what models are opened with,
    "" where there is none, and `library_fault` why that is so, where it was named; sizes in
    bytes."""

    rkzoo: str
    protocol: int
    python: str
    machine: str
    kernel: str
    board: str
    chip: str | None
    npu_cores: int
    driver: str
    library: str
    libraries: tuple[LibraryFacts, ...]
    memory_free: int | None
    memory_total: int | None
    library_fault: str = ""


class Lease(msgspec.Struct, frozen=True):
    """The first line of a lease."""

    lease: str


class Stored(msgspec.Struct, frozen=True):
    """A file on the board: how many bytes of it are there, and whether that is all of it and its
    sha256 is right."""

    sha256: str
    size: int
    complete: bool


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """A model file that was sent, to be opened on the NPU.

    Attributes:
        sha256: Of the .rknn.
        name: What it is called in messages.
        cores: As runtime.npu_api.Cores; 0 lets the driver choose.
        layout: As NpuSession's.
        floats: As NpuSession's.
        picture: As NpuSession's.
        shapes: As NpuSession's.
        profile: Collect times per layer, which makes each run slower.
        contract: What the model promises, for `record`; null where it is only run.
        options: What is wanted of the answers, for `record`.
    """

    sha256: str
    name: str
    cores: int = 0
    layout: Literal["native", "plain"] = "native"
    floats: bool = False
    picture: bool = True
    shapes: tuple[tuple[int, ...], ...] = ()
    profile: bool = False
    contract: msgspec.Raw = msgspec.Raw(b"null")
    options: dict[str, Any] = {}


class Opened(msgspec.Struct, frozen=True):
    """A session. `library_version` and `driver` as the library tells them; `stand_in`: it is one
    for tests, and measures nothing; `notes`: what versions warn of."""

    session: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    library: str
    library_version: str
    driver: str
    stand_in: bool
    notes: tuple[str, ...] = ()


class Timed(msgspec.Struct, frozen=True):
    """Seconds of each run on the board, without sending; `npu_seconds` as the library tells them,
    where it does."""

    seconds: tuple[float, ...]
    npu_seconds: tuple[float, ...]


class Layers(msgspec.Struct, frozen=True):
    """The library's table of times per layer, as text."""

    text: str


class ModelMemory(msgspec.Struct, frozen=True):
    """Memory of an open model in bytes, as the library tells it."""

    weights: int
    internal: int
    dma: int
    sram_total: int = 0
    sram_free: int = 0


class SetClocks(msgspec.Struct, frozen=True):
    """`hold` locks them until the lease ends; `lock` and `restore` as `rkzoo clocks`, which only
    tell what they would do unless `apply`."""

    action: Literal["show", "hold", "release", "lock", "restore"]
    apply: bool = False


class ClockWrite(msgspec.Struct, frozen=True):
    """As soc.clocks.Write."""

    path: str
    value: str
    old: str


class ClocksSet(msgspec.Struct, frozen=True):
    """What was written, or would be where it was not `applied`; `throttled` are clocks that heat
    holds down."""

    action: str
    applied: bool
    writes: tuple[ClockWrite, ...]
    throttled: tuple[str, ...] = ()


class Problem(msgspec.Struct, frozen=True):
    """An error answer: `error` in one line, as the protocol has it, and an RkzooError's parts."""

    error: str
    what: str = ""
    why: str = ""
    fix: str = ""
    code: int = 2
    log: str = ""
