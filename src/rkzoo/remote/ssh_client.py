"""The command line of the system's own ssh, whose keys, configuration and host checks hold."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from rkzoo.remote.address import Address

SSH = "RKZOO_SSH"
"""The ssh to use, with options of its own, in place of `ssh`."""
_SETTINGS = ("ConnectTimeout=15", "ServerAliveInterval=5", "ServerAliveCountMax=3")
"""A board that has gone is noticed after 15 seconds."""


def ssh_command(address: Address, command: str, options: Sequence[str] = ()) -> list[str]:
    """The words that run a command line on a board.

    Args:
        address: The board, by ssh.
        command: What its shell is given.
        options: More options of ssh, such as a socket to forward.
    """
    program = shlex.split(os.environ.get(SSH, "")) or ["ssh"]
    settings = [word for setting in _SETTINGS for word in ("-o", setting)]
    port = ["-p", str(address.port)] if address.port is not None else []
    place = f"{address.user}@{address.host}" if address.user else address.host
    return [*program, "-T", *settings, *options, *port, "--", place, command]
