"""Fixtures shared by all tests."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

SWEEPS = "RKZOO_SWEEPS"
"""Share of the tests marked `sweep` that run: 0 to 1, or "all"."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the sweeps a sample runs, another each week, so that a suite of minutes comes by all."""
    share = os.environ.get(SWEEPS, "0.25")
    if share == "all":
        return
    week = date.today().strftime("%G-%V")
    for item in items:
        if item.get_closest_marker("sweep"):
            drawn = int(hashlib.sha256(f"{week} {item.nodeid}".encode()).hexdigest()[:8], 16)
            if drawn >= float(share) * (1 << 32):
                item.add_marker(pytest.mark.skip(reason=f"a sweep: {SWEEPS}=all runs it"))


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder with real weights and data; the test is skipped where there is none."""
    root = os.environ.get("RKZOO_TEST_ASSETS")
    if not root or not Path(root).is_dir():
        pytest.skip("RKZOO_TEST_ASSETS does not name the folder with real weights and data")
    return Path(root)


@pytest.fixture(scope="session", autouse=True)
def _boards_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Boards that tests reach are not noted in the list of who runs them."""
    os.environ["RKZOO_CONFIG"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture
def hears_ctrl_c() -> Callable[[], None]:
    """For a child process: a shell that runs the tests in the background makes everything
    below it deaf to Ctrl-C, which this undoes."""

    def undo() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if hasattr(signal, "SIGHUP"):  # which nohup ignores
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

    return undo
