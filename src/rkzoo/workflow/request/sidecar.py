"""The .json beside a .rknn: how the model was built."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes, sha256_of
from rkzoo.toolkit.recipe import Sidecar


def read_sidecar(path: Path) -> Sidecar:
    """The sidecar of a .rknn. Raises RkzooError when it is missing, not valid, or another's."""
    beside = path.with_name(path.name + ".json")
    with os_errors_explained(f"{path} cannot be read."):
        path.stat()
    try:
        sidecar = msgspec.json.decode(read_bytes(beside), type=Sidecar)
    except FileNotFoundError:
        raise RkzooError(
            f"{path.name} has no {beside.name} beside it.",
            "A .rknn alone cannot be simulated: rkzoo convert writes that file to say how the "
            "model was built.",
            "Convert the model with rkzoo convert, and keep both files together.",
        ) from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RkzooError(
            f"{beside} is damaged.", f"{error}.", "Convert the model again with rkzoo convert."
        ) from error
    if sidecar.rknn and sidecar.rknn != sha256_of(path):
        raise RkzooError(
            f"{path.name} is not the file that {beside.name} describes.",
            "It is damaged, or another model was put in its place.",
            "Copy both files again, or convert the model again with rkzoo convert.",
        )
    return sidecar
