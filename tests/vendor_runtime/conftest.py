"""The emulated board and the models that it is shown, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from built import Built, build_all
from emulated import Emulated, Missing, emulated
from nets import MODELS

from rkzoo.toolkit import environment


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    try:
        return emulated(tmp_path_factory.mktemp("board"))
    except Missing as why:
        pytest.skip(f"Rockchip's library cannot be run here: {why}")


@pytest.fixture(scope="session")
def models(
    board: Emulated, assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Built]:
    """Every model, built and simulated. Dear: a minute."""
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    pictures = sorted((assets / "data/coco128_val/images").glob("*.jpg"))[:2]
    folder = tmp_path_factory.mktemp("models")
    return build_all(MODELS, assets, pictures, environment.ensure(), folder)
