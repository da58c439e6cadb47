"""The boards that were reached from here, in a file of the user's configuration."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from rkzoo.errors import RkzooError, printable
from rkzoo.files import atomic_output, locked, read_bytes

CONFIG = "RKZOO_CONFIG"
"""The folder of the list, in place of the user's usual one."""
_MOST = 200
_LARGEST = 1 << 20
_LONGEST = 300
_MOST_NAMED = 8  # in a sentence


class KnownBoard(msgspec.Struct, frozen=True):
    """A board, as it was when it was last reached.

    Attributes:
        address: As `--on` takes it.
        chip: Canonical name; "" where it is unknown.
        board: Name in its device tree.
        rkzoo: Version of rkzoo there.
        library: File and version of the NPU's library; "" for none.
        last_seen: UTC, as 2026-11-30T10:15:00Z.
    """

    address: str
    chip: str
    board: str
    rkzoo: str
    library: str
    last_seen: str = ""


@dataclass(frozen=True)
class _Place:
    file: Path

    @property
    def lock(self) -> Path:
        return self.file.with_name(".boards.lock")


def _place() -> _Place:
    if folder := os.environ.get(CONFIG):
        return _Place(Path(folder).expanduser().absolute() / "boards.json")
    from platformdirs import user_config_path

    return _Place(user_config_path("rkzoo", appauthor=False) / "boards.json")


def known_boards() -> tuple[KnownBoard, ...]:
    """All of them, the one that was seen last first."""
    return _read(_place())


def remember(board: KnownBoard) -> None:
    """Notes that a board was reached now. A place that cannot be written is no reason to fail."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    # What a board says of itself may be of any length.
    short = {name: getattr(board, name)[:_LONGEST] for name in board.__struct_fields__}
    with contextlib.suppress(RkzooError):
        place = _place()
        with locked(place.lock):
            others = [one for one in _read(place) if one.address != board.address]
            _write(place, [KnownBoard(**(short | {"last_seen": now})), *others])


def forget(address: str) -> KnownBoard:
    """Removes a board from the list.

    Args:
        address: As the list shows it.

    Returns:
        What was known of it.

    Raises:
        RkzooError: It is not in the list, or the list cannot be written.
    """
    place = _place()
    with locked(place.lock):
        boards = _read(place)
        for board in boards:
            if board.address == address:
                _write(place, [one for one in boards if one is not board])
                return board
    # No address is proposed for another: those of two boards often differ in one digit.
    listed = ", ".join(board.address for board in boards[:_MOST_NAMED])
    more = " and others, which rkzoo board list shows" if len(boards) > _MOST_NAMED else ""
    raise RkzooError(
        f"{printable(address, '?')} is not in the list of boards.",
        "No board was set up or reached under that address.",
        f"It has {listed}{more}." if boards else "The list is empty; nothing is to be forgotten.",
    )


def _read(place: _Place) -> tuple[KnownBoard, ...]:
    try:
        return msgspec.json.decode(read_bytes(place.file, _LARGEST), type=tuple[KnownBoard, ...])
    except (OSError, msgspec.DecodeError):
        return ()  # missing, or not ours: the next board begins it anew


def _write(place: _Place, boards: list[KnownBoard]) -> None:
    data = msgspec.json.format(msgspec.json.encode(boards[:_MOST]))
    with atomic_output(place.file) as temporary:
        temporary.write_bytes(data + b"\n")
