"""Build input cache: what was given to the toolkit, so that a simulator can build it again.

`builds/<key>/` holds `model.onnx`, `calibration-<i>.npy` and `recipe.json`, and `digests.json`, by
which they are checked whenever they are used. The key is a digest of everything that affects the
results, so two processes that store the same thing write the same thing. The chip is not part of
it, since results do not depend on it.

What the toolkit made of the calibration lies in `calibrated-<settings>/` (see `keep_calibrated`),
with digests of its own. The arrays stay beside it: golden files, the search for INT8 settings and
the comparison layer by layer read them, and the user's pictures may be gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir, locked, os_errors_explained, read_bytes, sha256_of
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.toolkit.recipe import Recipe

LIMIT = 4 * 10**9
"""Size limit of the cache in bytes; least recently used entries are removed first."""
_IN_USE = 3600.0  # seconds since the last use during which an entry is never removed
_DIGESTS = "digests.json"
_CALIBRATED = "calibrated-"


@dataclass(frozen=True)
class BuildInputs:
    """Inputs of a build.

    Attributes:
        onnx: The graph.
        recipe: The build settings.
        calibration: Folder with `calibration-<i>.npy` for input i: stacked samples, uint8 NHWC for
            an image, otherwise in the input's own shape; None for a float model.
        custom_string: Custom string of the .rknn.
    """

    onnx: Path
    recipe: Recipe
    calibration: Path | None = None
    custom_string: str = ""


def store(
    graph: bytes | Path,
    calibration: Sequence[NDArray[Any]],
    recipe: Recipe,
    *,
    limit: int = LIMIT,
    report: ProgressReporter = SILENT,
) -> str:
    """Store a graph with its calibration data.

    Args:
        graph: The ONNX file or its bytes.
        calibration: One array per input; empty for float.
        recipe: The build settings.
        limit: Size limit of the cache in bytes.
        report: Is told of an entry that was damaged.

    Returns:
        The key of the entry.

    Raises:
        RkzooError: The graph cannot be read, or the cache cannot be written.
    """
    if isinstance(graph, Path):
        with os_errors_explained(f"{graph} cannot be read."):
            graph = graph.read_bytes()
    key = _key(graph, calibration, recipe)
    root = cache_dir("builds")
    target = root / key
    if find(key, report) is None:
        part = _part(key)
        with os_errors_explained("The inputs of the build cannot be kept in the cache."):
            try:
                part.mkdir()
                (part / "model.onnx").write_bytes(graph)
                for index, array in enumerate(calibration):
                    np.save(part / f"calibration-{index}.npy", array)
                (part / "recipe.json").write_bytes(msgspec.json.encode(recipe))
                _seal(part)
                _move(part, target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    _prune(root, limit)
    return key


def find(key: str, report: ProgressReporter = SILENT) -> BuildInputs | None:
    """The build inputs stored under `key`; None when they are not (or no longer) there.

    Every file is checked against its digest. An entry that is damaged is removed, so that it is
    made again, and `report` is told; one of before there were digests is removed in silence.

    The recipe's chip is the one of the first `store`.
    """
    folder = cache_dir("builds") / key
    if not key.isalnum() or not folder.is_dir():
        return None
    if not _intact(folder):
        if (folder / _DIGESTS).exists():
            report.note(f"{folder} in the cache was damaged: it is made again.")
        _drop(folder)
        return None
    try:
        os.utime(folder / "recipe.json")  # used now
        recipe = msgspec.json.decode((folder / "recipe.json").read_bytes(), type=Recipe)
    except (OSError, msgspec.MsgspecError):
        return None
    calibrated = (folder / "calibration-0.npy").exists()
    return BuildInputs(folder / "model.onnx", recipe, folder if calibrated else None)


def keep_calibrated(inputs: BuildInputs, toolkit: str, files: Sequence[Path]) -> None:
    """Keep what the toolkit made of the calibration, so that a later build need not calibrate.

    It does not depend on the chip. Keeps nothing for inputs that do not lie in the cache, nor where
    that fails.

    Args:
        inputs: Inputs of the build.
        toolkit: The toolkit version.
        files: The files that it wrote.
    """
    target = _calibrated_folder(inputs, toolkit)
    if target is None or _intact(target):
        return
    part = _part(target.parent.name)
    with contextlib.suppress(OSError, RkzooError):
        try:
            part.mkdir()
            for file in files:
                shutil.copyfile(file, part / file.name)
            _seal(part)
            if target.exists():
                _drop(target)
            os.rename(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def find_calibrated(
    inputs: BuildInputs, toolkit: str, report: ProgressReporter = SILENT
) -> Path | None:
    """The folder of what `keep_calibrated` kept; None where nothing was, or it is damaged."""
    folder = _calibrated_folder(inputs, toolkit)
    if folder is None or not folder.exists():
        return None
    if _intact(folder):
        return folder
    report.note(f"{folder} in the cache was damaged: it is made again.")
    _drop(folder)
    return None


def _calibrated_folder(inputs: BuildInputs, toolkit: str) -> Path | None:
    entry = inputs.onnx.parent
    if inputs.calibration != entry or entry.parent != cache_dir("builds"):
        return None
    settings = msgspec.structs.replace(inputs.recipe, soc="", toolkit=toolkit)
    digest = hashlib.sha256(msgspec.json.encode(settings)).hexdigest()
    return entry / f"{_CALIBRATED}{digest[:16]}"


def calibration_digest(arrays: Sequence[NDArray[Any]]) -> str:
    """Hex sha256 of dtype, shape and bytes of the arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _key(graph: bytes, calibration: Sequence[NDArray[Any]], recipe: Recipe) -> str:
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(recipe, soc="")))
    digest.update(hashlib.sha256(graph).digest())
    digest.update(calibration_digest(calibration).encode())
    return digest.hexdigest()


def _part(key: str) -> Path:
    """A folder for an entry that is not complete."""
    return cache_dir("builds") / f".{key}.{secrets.token_hex(4)}.part"


def _seal(folder: Path) -> None:
    """Write the digest of each file."""
    digests = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    (folder / _DIGESTS).write_bytes(msgspec.json.encode(digests))


def _intact(folder: Path) -> bool:
    """Whether a folder holds just what it was sealed with."""
    try:
        digests = msgspec.json.decode(read_bytes(folder / _DIGESTS), type=dict[str, str])
        names = {path.name for path in folder.iterdir() if not path.name.startswith(_CALIBRATED)}
        return names == {*digests, _DIGESTS} and all(
            sha256_of(folder / name) == digest for name, digest in digests.items()
        )
    except (OSError, msgspec.MsgspecError, UnicodeError, RkzooError):
        return False


def _drop(folder: Path) -> None:
    """Remove a damaged folder, unless another process has put a good one in its place."""
    with contextlib.suppress(OSError, RkzooError), locked(cache_dir("builds") / ".lock"):
        if not _intact(folder):
            rest = _part(folder.name)
            os.rename(folder, rest)
            shutil.rmtree(rest, ignore_errors=True)


def _move(part: Path, target: Path) -> None:
    try:
        os.rename(part, target)
    except OSError:
        if find(target.name) is not None:
            return  # another process stored the same content first
        os.rename(part, target)


def _prune(root: Path, limit: int) -> None:
    """Remove the least recently used entries above `limit`, and incomplete ones."""
    try:
        with locked(root / ".lock"):
            now = time.time()
            for rest in root.glob(".*.part"):
                if now - rest.stat().st_mtime > _IN_USE:
                    shutil.rmtree(rest, ignore_errors=True)
            entries = []
            for mark in root.glob("*/recipe.json"):
                size = sum(path.stat().st_size for path in mark.parent.rglob("*"))
                entries.append((mark.stat().st_mtime, size, mark.parent))
            total = sum(size for _, size, _ in entries)
            for used, size, folder in sorted(entries):
                if total <= limit or now - used < _IN_USE:
                    break
                (folder / "recipe.json").unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                total -= size
    except (OSError, RkzooError):
        pass  # cleaning up must never fail a build
