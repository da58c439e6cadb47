"""rkzoo on a board, from this PC: packages that fit are fetched here and pushed by ssh, for boards
are often offline. A board needs Python 3.10 or later, and an NPU library to run models.

There it lies in ~/.local/share/rkzoo: `versions/` holds folders that are complete or not there at
all, `bin/rkzoo` names those in use.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from typing import IO, Literal, TypeVar

import msgspec

from rkzoo.errors import RkzooError, printable
from rkzoo.files import size_text
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.remote.address import Address
from rkzoo.remote.board_packages import OLDEST_PYTHON, Layer, Target, layers, platform_for
from rkzoo.remote.connection import cause
from rkzoo.remote.known_boards import KnownBoard, remember
from rkzoo.remote.ssh_client import ssh_command

PROGRAM = ".local/share/rkzoo/bin/rkzoo"
"""Of a board, below the home folder."""
_T = TypeVar("_T")
_SECONDS = 120.0
_UNPACK_SECONDS = 1800.0  # onto a slow card
_MOST_ANSWER = 4 << 20
_PIECE = 1 << 16
_UNPACKED = 4
"""An installation takes at most so many times the space of what is sent, which lies beside it."""
_NO_PYTHON = 96
_PYTHONS = "python3 python3.14 python3.13 python3.12 python3.11 python3.10"
# The first Python that is new enough; else what there is instead.
_SCRIPT = """for python in {pythons}; do
  "$python" -c 'import sys; sys.exit(sys.version_info < {oldest})' 2>/dev/null &&
    exec "$python" -I -c {source} {words}
done
uname -m >&2
python3 -V >&2
exit {no_python}
"""


class Facts(msgspec.Struct, frozen=True):
    """What board_side.facts tells of a board; `free` in bytes."""

    python: tuple[int, int, int]
    executable: str
    implementation: str
    bits: int
    machine: str
    libc: str
    free: int
    present: tuple[str, ...]
    current: tuple[str, ...]


class Finding(msgspec.Struct, frozen=True):
    """A finding of the board's `rkzoo doctor`."""

    level: Literal["ok", "warn", "fail"]
    text: str
    id: str = ""
    evidence: str = ""
    fix: str = ""
    command: str = ""


class FoundLibrary(msgspec.Struct, frozen=True):
    path: str
    name: str
    version: str = ""
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.version}".strip()


class FoundMachine(msgspec.Struct, frozen=True):
    model: str = ""
    chip: str | None = None
    libraries: tuple[FoundLibrary, ...] = ()


class Doctored(msgspec.Struct, frozen=True):
    """What `rkzoo doctor --json` says on the board, as far as it is shown here."""

    place: str
    findings: tuple[Finding, ...]
    machine: FoundMachine


@dataclass(frozen=True)
class SetUp:
    """A board that was set up. `sent`: titles of what it did not have, with their bytes."""

    address: str
    rkzoo: str
    python: str
    sent: tuple[tuple[str, int], ...]
    doctor: Doctored


def set_up(address: Address, report: ProgressReporter = SILENT) -> SetUp:
    """Installs this rkzoo on a board, or brings the one there up to it.

    Args:
        address: The board, by ssh.
        report: Is told of progress.

    Returns:
        What was done, and what doctor finds there.

    Raises:
        RkzooError: The board cannot be reached or cannot have rkzoo, packages cannot be fetched,
            or they do not work there.
    """
    facts = _facts(address)
    wanted = layers(_target(address, facts))
    sent = []
    for layer in wanted:
        if layer.name not in facts.present:
            sent.append((layer.title, _send(address, layer, facts.free, report)))
    names = [layer.name for layer in wanted]
    if list(facts.current) != names:
        with report.task(f"Trying it on {address}"):
            _call(address, "switch", *names)
    doctor = _doctor(address)
    machine = doctor.machine
    library = str(machine.libraries[0]) if machine.libraries else ""
    remember(KnownBoard(str(address), machine.chip or "", machine.model, version("rkzoo"), library))
    python = ".".join(map(str, facts.python))
    return SetUp(str(address), version("rkzoo"), python, tuple(sent), doctor)


def remove(address: Address) -> bool:
    """Takes away what `set_up` put on a board. Raises RkzooError.

    Returns:
        Whether anything was there.
    """
    return bool(_decoded(address, _call(address, "remove"), tuple[str, ...]))


# ---- what fits ----------------------------------------------------------------------

_ARM = {"aarch64": 64, "armv8l": 32, "armv7l": 32}


def _facts(address: Address) -> Facts:
    return _decoded(address, _call(address, "facts"), Facts)


def _target(address: Address, facts: Facts) -> Target:
    """What has to be sent. Raises RkzooError where nothing fits."""
    glibc = re.fullmatch(r"glibc (\d+)\.(\d+).*", facts.libc)
    platform = platform_for((int(glibc[1]), int(glibc[2]))) if glibc else None
    if facts.machine not in _ARM:
        raise _unfit(
            address,
            f"It is no Rockchip board: its processor is {printable(facts.machine, '?')}.",
            "Install rkzoo there with pip.",
        )
    if facts.bits == 32 or _ARM[facts.machine] == 32:
        raise _unfit(
            address,
            "Its Python is a 32-bit one, for which PyPI has no wheels of NumPy and OpenCV.",
            "Use a 64-bit system where the chip has one; else install python3-numpy and"
            " python3-opencv there, and rkzoo[serve] with pip.",
        )
    if facts.implementation != "CPython" or platform is None:
        raise _unfit(
            address,
            f"It has {printable(facts.implementation, '?')} and"
            f" {printable(facts.libc, '?') or 'an unknown C library'}, and wheels need CPython and"
            " glibc 2.17 or later, as Rockchip's library needs glibc.",
            "Use a system such as Debian 12 or Ubuntu 22.04.",
        )
    return Target(facts.python[:2], platform)


def _no_python(address: Address, said: Sequence[str]) -> RkzooError:
    machine = next(iter(said), "")
    found = next((line for line in said if re.match(r"Python \d", line)), "")
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if not found and machine.startswith("arm"):
        return _unfit(
            address,
            f"It has no Python, as is usual on RV1103 and RV1106 ({printable(machine, '?')}).",
            "rkzoo has no agent for these yet: copy the .rknn there, and run it by a program in C"
            " with Rockchip's librknnmrt.",
        )
    return _unfit(
        address,
        f"It has {printable(found, '?') or 'no Python'}, and rkzoo needs Python {oldest} or later.",
        f"Install a later one beside it (python{oldest}, of the system's packages or of uv"
        " python install), on its PATH; or use a system such as Debian 12 or Ubuntu 22.04.",
    )


def _unfit(address: Address, why: str, fix: str, code: int = 2) -> RkzooError:
    return RkzooError(f"{address} cannot be set up.", why, fix, code=code)


# ---- over ssh -----------------------------------------------------------------------


def _send(address: Address, layer: Layer, free: int, report: ProgressReporter) -> int:
    data = layer.pack(report)
    needed = _UNPACKED * len(data)
    if free < needed:
        raise _unfit(
            address,
            f"{layer.title[:1].upper()}{layer.title[1:]} may take {size_text(needed)} there, and"
            f" {size_text(free)} are free.",
            "Free some space on its disk with the home folder.",
        )
    digest = hashlib.sha256(data).hexdigest()
    label = f"Sending {layer.title} to {address}"
    _call(address, "receive", layer.name, digest, data=data, report=report, label=label)
    return len(data)


def _doctor(address: Address) -> Doctored:
    # Its exit code tells of findings.
    text = _ssh(address, f'exec "$HOME/{PROGRAM}" doctor --json', fine=(0, 3, 4))
    return _decoded(address, text, Doctored)


def _call(
    address: Address,
    *words: str,
    data: bytes = b"",
    report: ProgressReporter = SILENT,
    label: str = "",
) -> bytes:
    """Runs a call of board_side.py, and returns what it prints."""
    script = _SCRIPT.format(
        pythons=_PYTHONS,
        oldest=OLDEST_PYTHON,
        source=shlex.quote(resources.files("rkzoo.remote").joinpath("board_side.py").read_text()),
        words=shlex.join(words),
        no_python=_NO_PYTHON,
    )
    return _ssh(address, f"exec sh -c {shlex.quote(script)}", data=data, report=report, label=label)


def _ssh(
    address: Address,
    command: str,
    *,
    data: bytes = b"",
    report: ProgressReporter = SILENT,
    label: str = "",
    fine: Sequence[int] = (0,),
) -> bytes:
    line, seconds = ssh_command(address, command), _UNPACK_SECONDS if data else _SECONDS
    try:
        process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise RkzooError(
            f"{line[0]} cannot be started.",
            f"The system says: {error.strerror}.",
            "Install ssh (Debian: openssh-client).",
        ) from error
    with process:
        try:
            out, errors = _Kept(process.stdout), _Kept(process.stderr)
            _write(process, data, report, label)
            code = process.wait(seconds)
            answer, said = out.text(), errors.text()
        except subprocess.TimeoutExpired:
            raise RkzooError(
                f"{address} does not answer.",
                f"What was started there did not end within {seconds:.0f} s.",
                "Try to log in there with ssh.",
                code=1,
            ) from None
        finally:
            if process.poll() is None:
                process.kill()
    if code not in fine:
        raise _failed(address, code, said.decode("utf-8", "replace").splitlines())
    return answer


def _write(
    process: subprocess.Popen[bytes], data: bytes, report: ProgressReporter, label: str
) -> None:
    assert process.stdin is not None
    try:
        if data:
            with report.task(label, len(data), bytes=True) as task:
                for start in range(0, len(data), _PIECE):
                    process.stdin.write(data[start : start + _PIECE])
                    task.update(min(start + _PIECE, len(data)), len(data))
        process.stdin.close()
    except BrokenPipeError:  # the exit code and stderr tell why
        with contextlib.suppress(OSError):
            process.stdin.close()


class _Kept:
    """What a process prints, read meanwhile: the beginning of it, up to a bound."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._stream, self._data = stream, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while piece := self._stream.read1(_PIECE):  # type: ignore[attr-defined]
            self._data += piece[: _MOST_ANSWER - len(self._data)]

    def text(self) -> bytes:
        self._thread.join(_SECONDS)
        return bytes(self._data)


_MISSING = re.compile(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file")


def _failed(address: Address, code: int, said: Sequence[str]) -> RkzooError:
    said = [line.strip() for line in said if line.strip()]
    if code == _NO_PYTHON:
        return _no_python(address, said)
    if known := cause(str(address), code, said):
        return _unfit(address, known.why, known.fix, known.code)
    last = printable(said[-1])[:300] if said else f"Python there ended with code {code}."
    if missing := _MISSING.search(last):
        return _unfit(
            address,
            f"A C library is missing there: {missing[1]}.",
            "Install it with the system's packages (libstdc++.so.6 is in Debian's libstdc++6).",
        )
    return _unfit(address, f"It says: {last.rstrip('.')}.", "Log in there with ssh, and mend that.")


def _decoded(address: Address, data: bytes, kind: type[_T]) -> _T:
    # What a shell's start files print comes before it.
    for start in (data, data[data.rfind(b"\n{") + 1 :], data.strip().rpartition(b"\n")[2]):
        try:
            return msgspec.json.decode(start, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    raise _unfit(
        address,
        "What it answers is not understood: " + (printable(data[:100].decode("utf-8", "replace"))),
        "See that its shell prints nothing when one logs in without a terminal.",
    )
