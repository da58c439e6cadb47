"""What is kept is whole or not there: any damage is seen, dropped, and made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkzoo import kept
from rkzoo.accuracy import answers
from rkzoo.progress import SILENT

DATA = bytes(range(256)) * 3
EACH = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))


@st.composite
def damages(draw: st.DrawFn) -> Callable[[Path], None]:
    """Bytes changed anywhere, cut off, added, all gone, a folder, a pipe or a dead link."""
    share, change = draw(st.floats(0, 0.999)), draw(st.binary(min_size=1, max_size=14))
    how = draw(st.sampled_from(["change", "cut", "add", "empty", "folder", "pipe", "link"]))

    def damage(path: Path) -> None:
        data = path.read_bytes()
        at = int(share * len(data))
        if how == "change":
            new = data[:at] + change + data[at + len(change) :]
            new = new if new != data else bytes([data[0] ^ 1]) + data[1:]
        else:
            new = {"cut": data[:at], "add": data + change}.get(how, b"")
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "pipe":
            os.mkfifo(path)
        elif how == "link":
            path.symlink_to(path.with_name("nowhere"))
        else:
            path.write_bytes(new)

    return damage


class Told:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def task(self, *args: object, **options: object) -> object:
        return SILENT.task("")

    def note(self, message: str) -> None:
        self.notes.append(message)


@EACH
@given(damage=damages())
def test_a_damaged_file_is_told_dropped_and_made_again(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    path, told = tmp_path / "entry", Told()
    kept.keep(path, DATA)
    assert kept.kept(path) == DATA
    damage(path)
    assert kept.kept(path, told) is None  # type: ignore[arg-type]
    assert len(told.notes) == 1
    assert str(path) in told.notes[0]
    assert not os.path.lexists(path)
    assert kept.kept(path, told) is None  # type: ignore[arg-type]
    assert len(told.notes) == 1  # what is missing is no damage
    kept.keep(path, DATA)
    assert kept.kept(path) == DATA


@EACH
@given(damage=damages(), name=st.sampled_from(["model.onnx", "b", kept.DIGESTS]))
def test_a_folder_with_a_damaged_file_is_dropped(
    damage: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "entry"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(DATA)
    (folder / "b").write_bytes(b"b")
    kept.seal(folder)
    assert kept.intact(folder)
    damage(folder / name)
    assert not kept.intact(folder)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["more", "folder/more"])
def test_what_came_into_a_folder_is_damage(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "entry"
    folder.mkdir()
    kept.seal(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    assert not kept.intact(folder)


@EACH
@given(damage=damages())
def test_damaged_records_are_none(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "records.npz"
    record = answers.pack_classes(np.array([0.2, 0.8]), (3, 4))
    answers.save(path, [record])
    damage(path)
    assert answers.load(path) is None
    answers.save(path, [record])
    loaded = answers.load(path)
    assert loaded is not None
    assert loaded[0]["class_id"].tolist() == [1, 0]


def test_a_file_in_place_of_a_folder_of_the_cache_goes(tmp_path: Path) -> None:
    (tmp_path / "cache" / "evals").mkdir(parents=True)
    (tmp_path / "cache" / "evals" / "key").write_bytes(b"x")
    assert kept.kept_folder("evals", "key").is_dir()


def test_what_a_link_leads_to_is_never_dropped(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo.jpg").write_bytes(DATA)
    (mine / kept.DIGESTS).write_bytes(DATA)
    link = tmp_path / "entry"
    link.symlink_to(mine)
    assert not kept.intact(link)
    assert not link.is_symlink()
    assert {path.read_bytes() for path in mine.iterdir()} == {DATA}
