"""A toolkit that was damaged on the disk is seen before it is used, and installed again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkzoo.cli.console import ProgressBars
from rkzoo.toolkit import environment, intact
from rkzoo.toolkit.versions import LAYOUT, RELEASES

FILES = {
    "bin/python": b"#!/bin/sh\n",
    "lib/rknn/api/base.so": bytes(range(256)),
    "lib/rknn/__init__.py": b"x = 1\n",
}


def install(folder: Path) -> None:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "bin" / "python").chmod(0o755)
    mark = {"version": "2.5.0", "python": "3.11", "size": 1, "layout": LAYOUT}
    (folder / environment.READY).write_text(json.dumps(mark))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(FILES)), share=st.floats(0, 0.999), how=st.integers(0, 2))
def test_any_damage_is_named(name: str, share: float, how: int, tmp_path: Path) -> None:
    install(tmp_path)
    intact.record(tmp_path)
    assert intact.first_damage(tmp_path) is None
    data = bytearray(FILES[name])
    at = int(share * len(data))
    data[at] ^= 1
    path = tmp_path / name
    path.unlink()
    if how < 2:
        path.write_bytes(bytes(data) if how else FILES[name][:at])
    assert intact.first_damage(tmp_path) == name


def test_a_copy_and_what_python_adds_are_no_damage(tmp_path: Path) -> None:
    install(tmp_path)
    intact.record(tmp_path)
    for name in FILES:
        os.utime(tmp_path / name, (1e9, 1e9))
    (tmp_path / "lib" / "rknn" / "base.pyc").write_bytes(b"1")
    assert intact.first_damage(tmp_path) is None
    # Held to the digest once, by time from then on.
    before = (tmp_path / "digests").read_bytes()
    assert intact.first_damage(tmp_path) is None
    assert (tmp_path / "digests").read_bytes() == before


def test_a_damaged_toolkit_is_installed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path))
    folder = tmp_path / "toolkits" / "2.5.0"
    install(folder)
    intact.record(folder)
    (folder / "lib/rknn/api/base.so").write_bytes(b"\0" * 256)

    def again(known: object, python: object, target: Path, *_: object) -> environment.ToolkitEnv:
        install(target)
        intact.record(target)
        env = environment._read(target)
        assert env is not None
        return env

    monkeypatch.setattr(environment, "_install", again)
    monkeypatch.setattr(environment, "_unfit", lambda _: None)
    monkeypatch.setattr(
        environment.interpreter,
        "find",
        lambda _: environment.interpreter.Interpreter("python3", RELEASES[0].pythons[-1] + (0,)),
    )
    environment.ensure("2.5.0", report=ProgressBars())
    assert f"{folder / 'lib/rknn/api/base.so'} in rkzoo's cache is damaged" in (
        capsys.readouterr().err
    )
    environment.ensure("2.5.0", report=ProgressBars())
    assert capsys.readouterr().err == ""
