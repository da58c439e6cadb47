"""The stand-in for torch: what it has does what torch does, what it lacks says so."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import rkzoo

FOLDER = Path(rkzoo.__file__).parent / "toolkit/torch_stub/torch"


@pytest.fixture
def torch() -> Iterator[ModuleType]:
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torch"}
    finders = list(sys.meta_path)
    for name in kept:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        "torch", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["torch"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.meta_path[:] = finders
        for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
            del sys.modules[name]
        sys.modules.update(kept)


def test_indices_are_reordered_as_by_torch(torch: ModuleType) -> None:
    # By hand: 0..7 as two rows of four, split into columns 0-1 and 2-3, the parts swapped.
    table = torch.arange(8).reshape(2, 4)
    left, right = torch.split(table, 2, dim=1)
    joined = torch.cat([right, left], dim=1)
    assert joined.numpy().tolist() == [[2, 3, 0, 1], [6, 7, 4, 5]]
    assert joined.numpy().dtype == np.int64
    assert type(joined.numpy()) is np.ndarray
    assert [part.tolist() for part in torch.split(torch.arange(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [p.tolist() for p in torch.split(torch.arange(5), [1, 4])] == [[0], [1, 2, 3, 4]]
    assert table.permute(1, 0).shape == (4, 2)


@pytest.mark.parametrize("name", ["jit", "load", "einsum"])
def test_what_is_missing_names_the_full_environment(torch: ModuleType, name: str) -> None:
    with pytest.raises(AttributeError, match="rkzoo toolkit install --full"):
        getattr(torch, name)
    with pytest.raises(AttributeError, match="rkzoo toolkit install --full"):
        _ = torch.arange(3).softmax
