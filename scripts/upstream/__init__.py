"""Networks of other projects, made with random weights by those projects' own code.

A module lists some: `NETWORKS`, by name. It imports nothing heavy before `make` is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Network:
    """A network that another project's code makes and exports.

    Attributes:
        make: writes the ONNX file of the network, its weights random, into the path it is given.
        needs: packages on PyPI, as pip takes them, whose code it is.
        licence: SPDX identifier of that code.
        origin: where the network was published.
    """

    make: Callable[[Path], None]
    needs: tuple[str, ...]
    licence: str
    origin: str
