"""A board at the other end of a cable that is none: fake_ssh.py runs fake_board.py here."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph.rknn_writer import Sample
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.remote import boards
from rkzoo.session import Array
from rkzoo.workflow.inference.board import LIBRARY

HERE = Path(__file__).parent
ADDRESS = "ssh://me@board"


@dataclass(frozen=True)
class Small:
    """A model of two outputs that the stand-in plays back for each of `fed`."""

    rknn: Path
    fed: tuple[Array, ...]
    outputs: tuple[tuple[Array, Array], ...]


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    random = np.random.default_rng(3)
    fed = tuple(random.integers(0, 256, (1, 32, 48, 3), np.uint8) for _ in range(4))
    outputs = tuple(
        (
            random.integers(-128, 128, (1, 6, 4, 4), np.int8),
            random.random((1, 5), np.float32).astype(np.float16),
        )
        for _ in fed
    )
    outs = (
        Out("boxes", (1, 6, 4, 4), scale=0.5, zero_point=3),
        Out("scores", (1, 5), dtype="float16"),
    )
    recording = Recording((In("images", (1, 32, 48, 3), w_stride=64),), outs)
    for one, answer in zip(fed, outputs, strict=True):
        recording.answer([one], answer)
    rknn = tmp_path_factory.mktemp("small") / "small.rknn"
    # Larger than a piece, so that it is sent in several.
    rknn.write_bytes(recording.bytes(Sample().write() + bytes(9 << 20)))
    return Small(rknn, fed, outputs)


class Cable:
    """What the board does wrong, and which calls it saw."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._log = folder / "calls"
        self.files = folder / "files"
        self.files.mkdir()
        for name, value in {
            "RKZOO_SSH": shlex.join([sys.executable, str(HERE / "fake_ssh.py")]),
            "RKZOO_BOARD_COMMAND": shlex.join([sys.executable, str(HERE / "fake_board.py")]),
            "RKZOO_CONFIG": str(folder / "config"),
            "FAKE_BOARD_LOG": str(self._log),
            "FAKE_BOARD_FILES": str(self.files),
        }.items():
            monkeypatch.setenv(name, value)

    def fault(self, **faults: Any) -> None:
        self._monkeypatch.setenv("FAKE_BOARD", json.dumps(faults))

    def says(self, text: str) -> None:
        """ssh fails and says this."""
        self._monkeypatch.setenv("FAKE_SSH_SAYS", text)

    def calls(self) -> list[str]:
        return [line.rstrip() for line in self._log.read_text().splitlines()]


@pytest.fixture
def cable(standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cable]:
    """Nothing of a connection stays behind."""
    monkeypatch.setenv(LIBRARY, str(standin))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    yield Cable(tmp_path, monkeypatch)
    boards.close_boards()
