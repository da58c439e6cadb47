"""The boards, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from board_over_ssh import boards
from board_over_ssh.openssh import Missing, SshBoard


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> boards.Emulated:
    try:
        return boards.emulated(tmp_path_factory.mktemp("arm"))
    except boards.check_arm64.Missing as why:
        pytest.skip(f"no 64-bit Arm board can be emulated here: {why}")


def _board(
    name: str, arm: boards.Emulated, tree: Path, folder: Path, **how: bool
) -> Iterator[SshBoard]:
    try:
        with boards.logged_into(name, arm, tree, folder, **how) as board:
            yield board
    except Missing as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def vendor_board(
    arm: boards.Emulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SshBoard]:
    """Rockchip's library, and rkzoo on the PATH."""
    folder = tmp_path_factory.mktemp("vendor") / "board"
    yield from _board("vendor-board", arm, boards.vendor_tree(arm), folder)


@pytest.fixture(scope="session")
def standin_board(
    arm: boards.Emulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SshBoard]:
    """The stand-in for that library, and rkzoo on the PATH."""
    folder = tmp_path_factory.mktemp("standin") / "board"
    yield from _board("standin-board", arm, boards.standin_tree(arm), folder)


@pytest.fixture
def bare_board(arm: boards.Emulated, tmp_path: Path) -> Iterator[SshBoard]:
    """Python and the stand-in, and nothing of rkzoo's."""
    yield from _board(
        "bare-board", arm, boards.standin_tree(arm), tmp_path / "board", installed=False
    )
