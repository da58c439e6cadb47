"""Commands that a message about a board names, so that they are run in the right place."""

from __future__ import annotations

import re
import shlex

from rkzoo.remote.address import parse_address

_PIP = 'pip install "rkzoo[serve]"'
# `rkzoo board setup` puts it where no PATH leads; another may be on the PATH.
_PATH = "PATH=~/.local/share/rkzoo/bin:$PATH"


def install(board: str, machine: str = "") -> str:
    """The sentence that says how rkzoo gets onto a board, or becomes a later one there.

    Args:
        board: Its address.
        machine: Its processor, as uname -m tells it; "" where that is not known.
    """
    # What board setup would refuse: it takes ssh, and an ARM processor.
    if board.startswith("ssh:") and (not machine or machine.startswith(("aarch64", "arm"))):
        return f"Install this version there from this PC: rkzoo board setup {board}"
    return f"Install this version there: {_PIP}"


def as_run_there(board: str, text: str) -> str:
    """A remedy that a board's rkzoo gave, with its commands as they are run from this PC.

    Args:
        board: The board's address.
        text: The remedy.
    """
    text = re.sub(r"\brkzoo doctor\b(?! --on)", f"rkzoo doctor --on {board}", text)
    return re.sub(r"`?\b(rkzoo cache [\w -]*\w)`?", lambda found: _there(board, found[1]), text)


def name_library(board: str) -> str:
    """The sentence that says how a board's rkzoo is told where the NPU's library lies.

    Args:
        board: Its address.
    """
    named = "RKZOO_LIBRKNNRT=/PATH/TO/librknnrt.so"
    if board.startswith("http"):
        return f"Name the library where the server is started: {named} rkzoo serve --board"
    return f'Name the library there: export RKZOO_BOARD_COMMAND="env {named} rkzoo"'


def host_key_name(board: str) -> str:
    """What ssh's list of known hosts calls a board, for a shell."""
    address = parse_address(board)
    port = address.port
    return shlex.quote(f"[{address.host}]:{port}" if port not in (None, 22) else address.host)


def _there(board: str, command: str) -> str:
    """A command of rkzoo, to be given here and run on a board."""
    address = parse_address(board)
    if address.scheme == "ssh":
        port = f"-p {address.port} " if address.port is not None else ""
        place = f"{address.user}@{address.host}" if address.user else address.host
        return f"ssh {port}{place} '{_PATH} {command}'"
    if address.scheme == "adb":
        device = f"-s {address.host} " if address.host else ""
        return f"adb {device}shell '{_PATH} {command}'"
    return f"{command} (on the board)"
