"""Addresses of boards: what is read, and what never reaches a command line."""

from __future__ import annotations

import pytest

from rkzoo.errors import RkzooError
from rkzoo.remote.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://me@board", Address("ssh", "board", "me")),
        ("ssh://me@10.0.0.7:2222", Address("ssh", "10.0.0.7", "me", 2222)),
        ("ssh://Orange_Pi", Address("ssh", "Orange_Pi")),
        ("ssh://me@[fe80::1]:22", Address("ssh", "fe80::1", "me", 22)),
        ("adb:", Address("adb", "")),
        ("adb:1d2c:5555", Address("adb", "1d2c:5555")),
        ("http://board:8000", Address("http", "board", port=8000)),
        ("https://[::1]", Address("https", "::1")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "board",
        "me@board",
        "SSH://board",
        "ftp://board",
        "ssh://",
        "ssh://-oProxyCommand=id",
        "ssh://-l@board",
        "ssh://me@-oProxyCommand=id",
        "ssh://a b",
        "ssh://a\nb",
        "ssh://board\n",
        "ssh://b$(id)",
        "ssh://b`id`",
        "ssh://b;id",
        "ssh://%h",
        "ssh://b'",
        "ssh://me:secret@board",
        "ssh://board:0",
        "ssh://board:65536",
        "ssh://board:-1",
        "ssh://board/path",
        "ssh://[board]",
        "ssh://[fe80::1%eth0]",
        "http://me@board",
        "http://board/?a=b",
        "adb:-s",
        "adb:a b",
        "adb:$(id)",
        "ssh://" + "a" * 300,
        "ssh://bo\u0430rd",
    ],
)
def test_no_address(text: str) -> None:
    with pytest.raises(RkzooError, match="is no address of a board") as caught:
        parse_address(text)
    assert "--on ssh://user@board" in caught.value.fix
