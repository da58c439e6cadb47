"""A segmentation of the zoo on real weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.workflow.inference.load import load
from rkzoo.zoo.catalogue import card
from rkzoo.zoo.fetch import weights


@pytest.mark.network
def test_what_stands_out_is_where_it_is_in_the_picture(assets: Path) -> None:
    """A child on a bicycle fills the middle on the right, grass and trees the rest."""
    try:
        weights(card("u2netp"))
    except RkzooError as error:
        pytest.skip(str(error))
    with load("u2netp") as model:
        found = model(assets / "data/images/bicycle.jpg").prediction
    assert found.classes.shape == (513, 513)
    assert found.classes[200, 350] == 1  # the child
    assert found.classes[420, 230] == 1  # a wheel
    assert not found.classes[:50].any()
    assert not found.classes[:, :150].any()
    assert np.bincount(found.classes.ravel()).argmax() == 0
