"""Which pictures calibrate, of more than are needed and of some that are broken."""

from __future__ import annotations

import shutil
import warnings
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_plain import one_picture, tokens

from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, Failure
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

SPEC = ImageInput(size=(8, 8), color="RGB", mean=(0.0,) * 3, std=(1.0,) * 3)


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.left_out: list[str] = []

    task = SILENT.task

    def note(self, message: str) -> None:
        self.notes.append(message)

    def failed(self, failure: Failure) -> None:
        self.left_out.append(Path(failure.file).name)


def folder_of(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:04d}.png"), np.full((4, 4, 3), number % 256, np.uint8))
    return folder


@pytest.fixture
def contract(tmp_path: Path):
    import onnx

    onnx.save(one_picture(), str(tmp_path / "m.onnx"))
    return resolve(str(tmp_path / "m.onnx"), Request(raw=True)).contract


def numbers(chosen: calib.CalibrationImages) -> list[int]:
    return [int(Path(name).stem) for name in chosen.names]


@pytest.mark.parametrize(
    ("there", "count", "usual", "taken"),
    [(250, None, None, 100), (250, 7, None, 7), (250, None, 20, 20), (30, None, None, 30)],
)
def test_some_are_taken_at_equal_distances_and_said(
    tmp_path: Path, contract, there: int, count: int | None, usual: int | None, taken: int
) -> None:
    found = calib.find(str(folder_of(tmp_path / "photos", there)))
    told = Told()
    chosen = calib.choose(found, contract, count, usual, told)
    assert numbers(chosen) == np.linspace(0, there - 1, taken).round().astype(int).tolist()
    assert len(chosen) == taken
    assert not told.left_out
    if taken == there:
        assert told.notes == []
    else:
        (note,) = told.notes
        assert note.startswith(f"{there} pictures found in {tmp_path / 'photos'}; {taken} of them")
        assert "--calib-count" in note


def test_a_broken_one_is_told_and_the_one_beside_it_taken(tmp_path: Path, contract) -> None:
    folder = folder_of(tmp_path / "photos", 300)
    (folder / "0000.png").write_bytes(b"no picture")
    (folder / "0001.png").write_bytes(b"")
    told = Told()
    chosen = calib.choose(calib.find(str(folder)), contract, 3, None, told)
    assert numbers(chosen) == [2, 150, 299]
    assert told.left_out == ["0000.png", "0001.png"]


def test_all_broken_is_an_error_with_the_first_reason(tmp_path: Path, contract) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(RkzooError, match="None of the 2") as caught:
        calib.choose(calib.find(str(folder)), contract, report=Told())
    assert "a.png" in caught.value.why


def test_without_a_reporter_what_is_left_out_is_warned_of(tmp_path: Path, contract) -> None:
    folder = folder_of(tmp_path / "photos", 3)
    (folder / "0001.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"0001\.png was left out"):
        calib.choose(calib.find(str(folder)), contract)


def test_a_sample_of_another_shape_is_left_out(tmp_path: Path) -> None:
    import onnx

    onnx.save(tokens(), str(tmp_path / "m.onnx"))
    contract = resolve(str(tmp_path / "m.onnx"), Request()).contract
    names = [other.name for other in contract.others]
    folder = tmp_path / "samples"
    folder.mkdir()
    for number in range(3):
        shape = (1, 12) if number != 1 else (1, 5)
        np.savez(folder / f"{number}.npz", **{name: np.ones(shape, np.int64) for name in names})
    told = Told()
    chosen = calib.choose(calib.find(str(folder)), contract, report=told)
    assert told.left_out == ["1.npz"]
    assert [stack.shape for stack in calib.sample_arrays(chosen, contract)] == [(2, 1, 12)] * 3


def test_what_the_sidecar_names_gives_the_same_arrays(tmp_path: Path, contract) -> None:
    chosen = calib.choose(calib.find(str(folder_of(tmp_path / "p", 250))), contract, 9)
    again = calib.choose(calib.from_files([Path(name) for name in chosen.names]), contract)
    assert again.names == chosen.names
    assert np.array_equal(calib.arrays(again, SPEC), calib.arrays(chosen, SPEC))


def test_many_lie_on_the_disk_and_the_need_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    found = calib.find(str(folder_of(tmp_path / "photos", 20)))
    small = calib.arrays(found, SPEC)
    monkeypatch.setattr(calib, "_IN_MEMORY", 100)
    told = Told()
    large = calib.arrays(found, SPEC, told)
    assert isinstance(large, np.memmap)
    assert np.array_equal(small, large)
    assert "20 calibration pictures" in told.notes[0]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 100))
    with pytest.raises(RkzooError, match="cannot be stored"):
        calib.arrays(found, SPEC)


def test_nothing_is_opened_before_it_is_chosen(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(calib.find(str(folder))) == 1


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(count: int) -> None:
    with pytest.raises(RkzooError, match="--calib-count"):
        Request(calibration_count=count)
