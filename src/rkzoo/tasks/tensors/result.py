"""The raw outputs of a model, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.files import atomic_output, os_errors_explained

_RECORD = "output"


@dataclass(frozen=True)
class Tensors:
    """Outputs without postprocessing.

    Attributes:
        arrays: Each output by its name, in the graph's own shape and order: floats dequantised
            to float32, integers as they are.
    """

    suffix = ".npz"

    arrays: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def to_json(self) -> list[dict[str, Any]]:
        """One record an output: name, shape, dtype and the range and mean of its finite
        numbers; the numbers themselves are in `arrays`, and saved as .npz."""
        return [_summary(name, array) for name, array in self.arrays.items()]

    def lines(self) -> list[str]:
        """One line an output."""
        return [_line(row) for row in self.to_json()]

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture itself: numbers without a meaning cannot be drawn."""
        return image

    def record(self) -> dict[str, NDArray[Any]]:
        """The arrays as they are kept for scoring, one row each: `output000:NAME` and so on, in
        the graph's order when sorted."""
        named = enumerate(self.arrays.items())
        return {f"{_RECORD}{index:03d}:{name}": array[None] for index, (name, array) in named}

    @classmethod
    def of_record(cls, record: Mapping[str, NDArray[Any]]) -> Tensors:
        """The outputs that `record` gave, in their order."""
        keys = sorted(key for key in record if key.startswith(_RECORD))
        return cls({key.partition(":")[2]: record[key][0] for key in keys})

    def save(self, path: Path) -> None:
        """Writes all outputs by name as .npz, or a single one as .npy where the suffix says so.
        Raises RkzooError when the disk refuses."""
        single = path.suffix.lower() == ".npy" and len(self.arrays) == 1
        with (
            atomic_output(path) as part,
            os_errors_explained(f"{path} cannot be written."),
            part.open("wb") as file,
        ):
            if single:
                np.save(file, next(iter(self.arrays.values())))
            else:
                # Positional names would be arr_0; a name such as "file" is a parameter of savez.
                _savez(file, self.arrays)


def _savez(file: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """numpy.savez for any names: its own parameter is called `file`, as an output may be."""
    import zipfile

    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name.replace('/', '_')}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def _summary(name: str, array: NDArray[Any]) -> dict[str, Any]:
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array.ravel()
    row: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
    values = (finite.min(), finite.max(), finite.mean(dtype=np.float64)) if finite.size else ()
    row |= dict(zip(("min", "max", "mean"), map(float, values), strict=False))
    if finite.size != array.size:
        row["not_finite"] = int(array.size - finite.size)
    return row


def _line(row: dict[str, Any]) -> str:
    shape = "x".join(map(str, row["shape"])) or "scalar"
    text = f"{row['name']}  {shape}  {row['dtype']}"
    if "min" in row:
        text += f"  {row['min']:.6g} to {row['max']:.6g}, mean {row['mean']:.6g}"
    if "not_finite" in row:
        text += f"  ({row['not_finite']} not finite)"
    return text
