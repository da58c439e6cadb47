"""What is judged before the NPU's library is asked, and what its answers stand for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from board_trees import board as tree
from test_board import Bus

from graph.rknn_writer import Sample
from npu_standin import build
from rkzoo.errors import RkzooError
from rkzoo.graph.rknn import reader as rknn
from rkzoo.graph.rknn.reader import RknnFile
from rkzoo.runtime.npu_api import failure
from rkzoo.soc.machine import Machine, read_machine
from rkzoo.workflow.inference import board
from rkzoo.workflow.inference.board import BoardBackend, contract_of, open_board
from rkzoo.workflow.inference.board_refusals import cause, needed, refuse

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A sound RK3588 board."""
    return read_machine(tree(tmp_path / "tree", "rk3588").root)


@pytest.fixture
def file(tmp_path: Path) -> RknnFile:
    """Built for rk3588."""
    path = tmp_path / "model.rknn"
    path.write_bytes(Sample().write())
    return rknn.read(path)


# ---- before -------------------------------------------------------------------------


def test_a_model_for_another_chip_is_refused(machine: Machine, file: RknnFile) -> None:
    refuse("model.rknn", file, machine)
    with pytest.raises(RkzooError, match="built for rk3588, and this is rk3568") as caught:
        refuse("model.rknn", file, replace(machine, chip="rk3568"))
    assert caught.value.fix.endswith("rkzoo convert MODEL --soc rk3568")


@pytest.mark.parametrize(
    ("built_for", "chip", "fits"),
    [
        ("rk3566", "rk3568", True),
        ("RK3566", "rk3566", True),
        ("rv1103", "rv1106", True),
        ("rv1106", "rv1106b", False),
        ("rk3562", "rk3568", False),
    ],
)
def test_chips_of_one_family_run_each_others_models(
    machine: Machine, file: RknnFile, built_for: str, chip: str, fits: bool
) -> None:
    machine = replace(machine, chip=chip, cma_total=None, iommu=None)
    try:
        refuse("model.rknn", replace(file, platforms=(built_for,)), machine)
    except RkzooError:
        assert not fits
    else:
        assert fits


def test_what_is_not_known_is_not_judged(machine: Machine, file: RknnFile) -> None:
    refuse("model.rknn", None, replace(machine, free=0))
    refuse("model.rknn", file, replace(machine, chip=None))
    refuse("model.rknn", replace(file, platforms=()), replace(machine, chip="rk3568"))
    refuse("model.rknn", file, replace(machine, free=None))


def test_a_model_that_cannot_fit_into_memory_is_refused(machine: Machine, file: RknnFile) -> None:
    large = replace(file, weight_bytes=60 * MIB, memory_bytes=8 * MIB)
    assert needed(large) == 68 * MIB
    assert needed(replace(file, weight_bytes=None, file_bytes=5 * MIB)) == 5 * MIB
    refuse("model.rknn", large, replace(machine, free=70 * MIB))
    with pytest.raises(RkzooError, match="needs 68 MiB, and 50 MiB are free"):
        refuse("model.rknn", large, replace(machine, free=50 * MIB))


def test_where_memory_must_be_contiguous_what_is_reserved_counts(
    machine: Machine, file: RknnFile
) -> None:
    large = replace(file, weight_bytes=30 * MIB, platforms=("rv1106",))
    tiny = replace(machine, chip="rv1106", iommu=None, cma_total=24 * MIB, free=100 * MIB)
    with pytest.raises(RkzooError, match="24 MiB is all that is reserved"):
        refuse("model.rknn", large, tiny)
    # With an IOMMU the NPU takes memory from anywhere.
    refuse("model.rknn", large, replace(tiny, iommu=True))


# ---- afterwards ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [-1, -6])
def test_one_code_is_told_by_its_true_cause(machine: Machine, file: RknnFile, number: int) -> None:
    """-1 is all that librknnmrt answers, -6 is for several things."""
    error = failure(number, "model.rknn cannot be opened on the NPU.", ["failed to open"])
    assert cause(error, file, machine) is error
    for state, words in (
        ({"nodes": ()}, "shows no device"),
        ({"nodes": tuple(replace(n, allowed=False) for n in machine.nodes)}, "may not open /dev/"),
        ({"free": needed(file)}, "hardly enough memory"),
    ):
        told = cause(error, file, replace(machine, **state))  # type: ignore[arg-type]
        assert words in told.why
        assert 'The library says: "failed to open".' in told.why
        assert told.why.endswith(f"(error {number})")
        assert "rkzoo doctor" in told.fix


def test_other_codes_and_other_machines_are_left_alone(machine: Machine, file: RknnFile) -> None:
    for number, state in (
        (-13, {"nodes": ()}),
        (-6, {"nodes": (), "compatible": (), "chip": None}),
    ):
        error = failure(number, "It failed.")
        assert cause(error, file, replace(machine, **state)) is error  # type: ignore[arg-type]


# ---- the whole way ------------------------------------------------------------------


@pytest.fixture
def npu(tmp_path: Path) -> str:
    return str(build.compiled(tmp_path))


@pytest.fixture(scope="module")
def bus(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Bus:
    return Bus(assets, tmp_path_factory.mktemp("bus"))


@pytest.mark.parametrize("keep", [0, 40, 300])
def test_a_file_that_is_cut_short_does_not_reach_the_library(
    npu: str, bus: Bus, tmp_path: Path, keep: int
) -> None:
    """An empty one would end the process."""
    path = tmp_path / "short.rknn"
    path.write_bytes(bus.before[:keep])
    with pytest.raises(RkzooError, match=r"not a \.rknn file|cut short"):
        open_board(BoardBackend(path, npu), bus.contract)


def test_an_encrypted_file_is_the_librarys_to_judge(npu: str, bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "secret.rknn"
    path.write_bytes(b"RKCE" + bytes(200))
    with pytest.raises(RkzooError, match="this is no recording"):
        open_board(BoardBackend(path, npu), bus.contract)
    path.write_bytes(b"RKCE" + bus.recording.bytes())
    open_board(BoardBackend(path, npu), bus.contract).close()


def test_the_chip_is_judged_before_the_library_is_loaded(
    bus: Bus, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "read_machine", lambda: replace(machine, chip="rk3562"))
    assert contract_of(bus.rknn) is not None
    with pytest.raises(RkzooError, match="this is rk3562"):
        open_board(BoardBackend(bus.rknn, "no such library"), bus.contract)


def test_the_librarys_own_line_reaches_the_reader(
    npu: str, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_CHIP", "rk3568")
    with pytest.raises(RkzooError, match="the model is for rk3588, and this is rk3568"):
        open_board(BoardBackend(bus.rknn, npu), bus.contract)


def test_the_second_worker_of_a_small_board_is_told_what_it_lacks(
    tmp_path: Path, bus: Bus, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library opens the model anew, and answers -1 to everything."""
    small = str(build.compiled(tmp_path, name="librknnmrt.so"))
    free = needed(rknn.read(bus.rknn)) * 3 // 2
    monkeypatch.setattr(board, "read_machine", lambda: replace(machine, free=free))
    monkeypatch.setenv("STANDIN_FAIL", "init:2:-1")
    model = BoardBackend(bus.rknn, small)
    with open_board(model, bus.contract):
        with pytest.raises(RkzooError, match="hardly enough memory") as caught:
            open_board(model, bus.contract)
        assert "--workers 1" in caught.value.fix
        assert "init was told to fail" in caught.value.why
