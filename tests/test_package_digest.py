"""What is kept goes by the whole package: whatever changes in it, the key changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rkzoo
from rkzoo.files import package_digest

PACKAGE = Path(rkzoo.__file__).parent


def _digest(root: Path) -> str:
    code = "from rkzoo.files import package_digest; print(package_digest())"
    return subprocess.run(
        [sys.executable, "-B", "-c", code],
        env=os.environ | {"PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, root / "rkzoo", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_it_is_the_same_wherever_the_package_lies(copy: Path) -> None:
    assert _digest(copy) == package_digest()


@pytest.mark.parametrize("suffix", [".py", ".yaml"])
def test_every_changed_moved_or_new_file_changes_it(copy: Path, suffix: str) -> None:
    before = _digest(copy)
    folder = copy / "rkzoo" / "accuracy"
    new = folder / f"new{suffix}"
    new.write_text("# 1\n")
    added = _digest(copy)
    new.write_text("# 2\n")
    edited = _digest(copy)
    moved = _digest_moved(copy, new, folder.parent / new.name)
    assert len({before, added, edited, moved}) == 4
    assert _digest(copy) == before


def _digest_moved(copy: Path, source: Path, target: Path) -> str:
    source.rename(target)
    try:
        return _digest(copy)
    finally:
        target.unlink()
