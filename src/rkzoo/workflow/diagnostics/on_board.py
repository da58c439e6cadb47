"""`rkzoo doctor` of a board at the other end of a cable: what it says of itself, told here."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, open_file, os_errors_explained
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.remote.boards import board, note_version
from rkzoo.workflow.diagnostics.doctor import Diagnosis, diagnosis_from_json


def diagnose_on(
    address: str, model: Path | None = None, report: ProgressReporter = SILENT
) -> Diagnosis:
    """Examine a board, and whether it can run a model. Changes nothing but what rkzoo keeps there.

    Args:
        address: The board's, as of `Request`.
        model: A file, which is sent.
        report: Is shown what is sent.

    Raises:
        RkzooError: The board cannot be reached, or the file not be read.
    """
    if model is not None:  # before a board is waited for
        with os_errors_explained(f"{model} cannot be read."), open_file(model):
            pass
    connected = board(address)
    note_version(connected, report)
    client = connected.client
    told: dict[str, Any] = (
        client.doctor(client.put(model, report), model.name) if model else client.doctor()
    )
    try:
        return diagnosis_from_json(msgspec.json.encode(told))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(address, str(error)) from error


def capture_on(address: str, target: Path) -> tuple[str, ...]:
    """Write a capture of a board.

    Args:
        address: The board's.
        target: The .tar to write.

    Returns:
        The captured paths, sorted.

    Raises:
        RkzooError: The board cannot be reached, or the file not be written.
    """
    data = board(address).client.capture()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            paths = tuple(sorted(f"/{name}" for name in tar.getnames()))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _unreadable(address, "It is no tar file") from error
    with atomic_output(target) as part:
        part.write_bytes(data)
    return paths


def _unreadable(address: str, why: str) -> RkzooError:
    return RkzooError(
        f"What {address} tells of itself cannot be read.", f"{why}.", "Update rkzoo there.", code=1
    )
