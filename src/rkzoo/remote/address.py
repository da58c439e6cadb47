"""Where a board is: `ssh://user@board`, `adb:SERIAL`, `http://host:port`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from rkzoo.errors import RkzooError, printable

Scheme = Literal["ssh", "adb", "http", "https"]
PORTS = {"http": 80, "https": 443}

# Names end up as words of commands: none may begin as an option, or hold what a shell or ssh's
# own configuration (%, spaces) reads in a way of its own.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}")
_URL = re.compile(
    r"(?P<scheme>ssh|https?)://((?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{0,63})@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]@:/\s]+)(:(?P<port>[0-9]{1,5}))?/?"
)
_FORMS = ("ssh://[USER@]HOST[:PORT]", "adb:[SERIAL]", "http://HOST[:PORT]", "https://HOST[:PORT]")


@dataclass(frozen=True)
class Address:
    """A board's address.

    Attributes:
        scheme: How it is reached.
        host: Name, IP address or alias of ssh's configuration; for adb the serial number, "" for
            the only device.
        user: Of ssh; "" leaves it to ssh's configuration.
        port: None for the usual one.
    """

    scheme: Scheme
    host: str
    user: str = ""
    port: int | None = None

    def __str__(self) -> str:
        if self.scheme == "adb":
            return f"adb:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port is not None else ""
        return f"{self.scheme}://{user}{host}{port}"


def parse_address(text: str) -> Address:
    """Reads an address.

    Args:
        text: `ssh://[USER@]HOST[:PORT]` (HOST may be an alias of ssh's configuration),
            `adb:[SERIAL]`, `http://HOST[:PORT]` or `https://HOST[:PORT]`.

    Returns:
        Its parts.

    Raises:
        RkzooError: It is of another form, or holds characters that no host's name has.
    """
    if text.startswith("adb:"):
        serial = text[len("adb:") :]
        if serial and not _SERIAL.fullmatch(serial):
            raise _wrong(text, "That is no serial number of a device.")
        return Address("adb", serial)
    match = _URL.fullmatch(text)
    if match is None:
        raise _wrong(text, f"It is of none of the forms that an address has ({', '.join(_FORMS)}).")
    scheme, user, host, port = match["scheme"], match["user"] or "", match["host"], match["port"]
    host = host.removeprefix("[").removesuffix("]")
    if not (_NAME.fullmatch(host) or _is_ip(host)):
        raise _wrong(text, "Its host is no name, IP address or alias.")
    if user and scheme != "ssh":
        raise _wrong(text, "A user goes with ssh only; RKZOO_BOARD_TOKEN holds a token.")
    if port and not 0 < int(port) < 1 << 16:
        raise _wrong(text, "Its port is not one of 1 to 65535.")
    return Address(scheme, host, user, int(port) if port else None)  # type: ignore[arg-type]


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _wrong(text: str, why: str) -> RkzooError:
    return RkzooError(
        f"{printable(text, '?')!r} is no address of a board.",
        why,
        "Give for example --on ssh://user@board, --on adb:SERIAL or --on http://board:8000.",
    )
