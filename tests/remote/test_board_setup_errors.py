"""Boards that cannot be set up, and what is said of it."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from rkzoo.errors import RkzooError
from rkzoo.remote import board_packages, setup
from rkzoo.remote.address import Address
from rkzoo.remote.board_packages import Layer, Target, layers, platform_for
from rkzoo.remote.setup import Facts, set_up

BOARD = Address("ssh", "board")
FITS = Facts((3, 11, 2), "/usr/bin/python3", "CPython", 64, "aarch64", "glibc 2.36", 10**10, (), ())

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for ssh is a script")


def ssh_says(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An ssh that runs this in place of logging in."""
    program = folder / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("RKZOO_SSH", str(program))
    monkeypatch.setenv("RKZOO_CONFIG", str(folder))


@pytest.mark.parametrize(
    ("facts", "target"),
    [
        ({}, Target((3, 11), "aarch64-manylinux_2_36")),
        ({"libc": "glibc 2.31"}, Target((3, 11), "aarch64-manylinux_2_31")),
        ({"libc": "glibc 2.29", "python": (3, 10, 1)}, Target((3, 10), "aarch64-manylinux_2_28")),
        ({"libc": "glibc 3.1"}, Target((3, 11), "aarch64-manylinux_2_40")),
        ({"machine": "x86_64"}, "no Rockchip board"),
        ({"machine": "armv7l", "bits": 32}, "32-bit"),
        ({"bits": 32}, "32-bit"),
        ({"implementation": "PyPy"}, "PyPy"),
        ({"libc": "glibc 2.12"}, "glibc 2.12"),
        ({"libc": ""}, "unknown C library"),  # musl tells nothing
    ],
)
def test_what_fits_a_board(facts: dict[str, object], target: Target | str) -> None:
    told = msgspec.structs.replace(FITS, **facts)
    if isinstance(target, Target):
        assert setup._target(BOARD, told) == target
        return
    with pytest.raises(RkzooError, match=target):
        setup._target(BOARD, told)


def test_uv_knows_each_platform() -> None:
    """uv says which names of platforms it knows."""
    import subprocess

    from rkzoo.toolkit.interpreter import uv

    told = subprocess.run([uv(), "pip", "install", "--help"], capture_output=True, text=True).stdout
    for number in board_packages.MANYLINUX:
        assert f"{platform_for((2, number))}," in " ".join(told.split()).replace("]", ",")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo armv7l >&2; echo sh: python3: not found >&2; exit 96", "no Python, .* RV1106"),
        ("echo aarch64 >&2; echo sh: python3: not found >&2; exit 96", "no Python, and .* 3.10"),
        ("echo aarch64 >&2; echo Python 3.9.2 >&2; exit 96", "Python 3.9.2, and rkzoo needs"),
        ("echo 'u@b: Permission denied (publickey).' >&2; exit 255", "ssh-copy-id"),
        ("echo 'Connection to b closed by remote host.' >&2; exit 255", "connection was cut"),
        ("echo 'No space left on device (/x)' >&2; exit 1", "No space left on device"),
        ("echo 'Welcome!'", "not understood: Welcome!"),
        ("echo '[]'", "not understood"),
        ("printf '\\033[2J\\377'", "not understood"),
        ("exit 5", "code 5"),
    ],
)
def test_each_failure_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    ssh_says(tmp_path, monkeypatch, script)
    with pytest.raises(RkzooError, match=words) as caught:
        set_up(BOARD)
    assert caught.value.what == "ssh://board cannot be set up."
    assert caught.value.code == (1 if "was cut" in words else 2)
    assert "\x1b" not in str(caught.value)


def test_without_ssh_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_SSH", "/nowhere/ssh")
    with pytest.raises(RkzooError, match="openssh-client"):
        set_up(BOARD)


def test_what_a_shell_prints_when_one_logs_in_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = msgspec.json.encode(msgspec.structs.replace(FITS, machine="x86_64")).decode()
    ssh_says(tmp_path, monkeypatch, f"echo 'Last login: {{today}}'\ncat <<'END'\n{told}\nEND")
    with pytest.raises(RkzooError, match="no Rockchip board"):
        set_up(BOARD)


def test_a_board_that_is_full_is_told_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = msgspec.json.encode(msgspec.structs.replace(FITS, free=1000)).decode()
    # A second call would find no facts in what it answers.
    ssh_says(tmp_path, monkeypatch, f"cat <<'END'\n{told}\nEND\ntouch {tmp_path}/calls.$$")
    layer = Layer("one-1", "a layer", lambda report: bytes(1000))
    monkeypatch.setattr(setup, "layers", lambda target: (layer, layer))
    with pytest.raises(RkzooError, match=r"A layer may take 4\.0 kB there, and 1\.0 kB are free"):
        set_up(BOARD)
    assert len(list(tmp_path.glob("calls.*"))) == 1


def test_words_for_the_board_reach_it_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through two shells, whatever stands in the source."""
    script = f'for last; do :; done; HOME={tmp_path} exec sh -c "$last"'
    ssh_says(tmp_path, monkeypatch, script)
    facts = setup._facts(BOARD)
    assert facts.python >= (3, 10, 0)
    assert facts.present == ()


def test_layers_are_named_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target((3, 11), "aarch64-manylinux_2_36")
    first, packages = layers(target)
    assert [layer.name for layer in layers(target)] == [first.name, packages.name]
    other = layers(Target((3, 12), "aarch64-manylinux_2_36"))
    assert (other[0].name == first.name, other[1].name == packages.name) == (True, False)
    monkeypatch.setattr(board_packages, "_own_files", lambda own: iter([("rkzoo/a.py", b"")]))
    assert layers(target)[0].name != first.name
    assert layers(target)[1].name == packages.name


class Noted:
    """What is noted of an installation."""

    version = "9.0"

    def read_text(self, name: str) -> str:
        assert name == "METADATA"
        return """Metadata-Version: 2.1
Name: rkzoo
Version: 9.0
Requires-Dist: msgspec>=0.19
Requires-Dist: onnx; platform_machine != "aarch64"
Provides-Extra: serve
Requires-Dist: h11; extra == "serve"
Requires-Dist: tomli; python_version < "3.11" and extra == "serve"
Provides-Extra: grpc
Requires-Dist: grpcio; extra == "grpc"
"""


@pytest.mark.network
def test_packages_are_those_that_a_board_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its processor, its Python, and the extra; not by this machine's."""
    monkeypatch.setattr(board_packages, "_pyproject", lambda: None)
    target = Target((3, 10), "aarch64-manylinux_2_28")
    fetched = [name for name, _ in board_packages._fetched(Noted(), target, tmp_path)]  # type: ignore[arg-type]
    packages = {name.split("/")[1] for name in fetched if name.endswith("/METADATA")}
    assert {name.split("-")[0] for name in packages} == {"msgspec", "h11", "tomli"}
    (binary,) = (name for name in fetched if name.endswith(".so"))
    assert "cpython-310-aarch64" in binary


def test_packages_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rkzoo.progress import SILENT

    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    _, packages = layers(Target((3, 11), "aarch64-manylinux_2_36"))
    with pytest.raises(RkzooError, match="the board itself needs none") as caught:
        packages.pack(SILENT)
    assert "127.0.0.1:9" in caught.value.why
    assert list((tmp_path / "cache/installs").iterdir()) == []
