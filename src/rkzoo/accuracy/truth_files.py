"""Ground truth that is one file for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rkzoo.accuracy.folders import digest_of

T = TypeVar("T", bound="TruthFiles")


@dataclass(frozen=True)
class TruthFiles:
    """The file of each picture's ground truth; what it holds is its subclass's to say."""

    files: tuple[Path, ...]

    def check(self, labels: tuple[str, ...]) -> None:
        """Nothing to check: such truth names no classes."""

    def take(self: T, kept: Sequence[int]) -> T:
        """The ground truth of some of the items, in their order."""
        return replace(self, files=tuple(self.files[i] for i in kept))

    def digest(self) -> bytes:
        """Digest of the files."""
        return digest_of(self.files)
