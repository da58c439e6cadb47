"""The middle of a picture, as classifiers are tested on it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from rkzoo.contract.inputs import ImageInput
from rkzoo.vision.letterbox import fit, plan

SPEC = ImageInput(size=(224, 224), fit="crop", short=256)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.booleans())
def test_the_crop_is_the_middle_and_lies_inside(height: int, width: int, wide: bool) -> None:
    spec = ImageInput(size=(96, 128), fit="crop", short=140) if wide else SPEC
    box = plan((height, width), spec)
    for side in (0, 1):
        offset = -(box.top, box.left)[side]
        rest = box.scaled[side] - spec.size[side] - offset
        assert offset >= 0
        assert 0 <= rest - offset <= 1
    assert min(box.scaled) == spec.short
    # The centre of the input is the centre of the picture, to half a pixel of either.
    centre = box.to_source(np.array([[spec.size[1] / 2, spec.size[0] / 2]]))[0]
    assert abs(centre[0] - width / 2) <= box.scale[0]
    assert abs(centre[1] - height / 2) <= box.scale[1]


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (256, 256), (2000, 1500), (100, 80)])
def test_it_is_what_pillow_gives(shape: tuple[int, int]) -> None:
    """Upstream's figures are made with Pillow: scale the short side to 256, take the middle."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(x / width * 9 + c) * np.cos(y / height * 7) for c in range(3)]
    image = np.stack(waves, axis=-1).astype(np.uint8)
    scale = 256 / min(shape)
    size = (round(width * scale), round(height * scale))
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    scaled = Pillow.fromarray(image[..., ::-1]).resize(size, Pillow.Resampling.BILINEAR)
    wanted = np.asarray(scaled.crop((left, top, left + 224, top + 224)))
    got, _ = fit(image, SPEC)
    assert np.abs(got[0].astype(int) - wanted).max() <= 4


def test_blue_stays_blue_where_the_model_wants_bgr() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    image[..., 0] = 255
    assert (fit(image, SPEC)[0] == [0, 0, 255]).all()
    bgr = ImageInput(size=(224, 224), fit="crop", short=256, color="BGR")
    assert (fit(image, bgr)[0] == [255, 0, 0]).all()


@pytest.mark.parametrize("shape", [(2, 3_000_000), (3_000_000, 2), (1, 1), (300, 20_000)])
def test_a_ribbon_of_a_picture_costs_no_memory(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2 :, shape[1] // 2 :] = 255
    start = time.perf_counter()
    canvas, _ = fit(image, SPEC)
    assert time.perf_counter() - start < 2
    assert canvas.shape == (1, 224, 224, 3)
    if min(shape) > 1:
        # The middle is in the middle still.
        assert canvas[0, 200, 200, 0] == 255
        assert canvas[0, 20, 20, 0] == 0


def test_short_must_cover_the_input() -> None:
    with pytest.raises(ValueError, match="less than the size"):
        ImageInput(size=(224, 224), fit="crop", short=200)
    with pytest.raises(ValueError, match="crop only"):
        ImageInput(size=(224, 224), short=256)
