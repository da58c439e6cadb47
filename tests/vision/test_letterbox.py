from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.contract.inputs import ImageInput
from rkzoo.vision.letterbox import Letterbox, fit, plan

sides = st.integers(1, 3000)
sizes = st.tuples(
    st.integers(1, 40).map(lambda n: 32 * n), st.integers(1, 40).map(lambda n: 32 * n)
)


@given(sides, sides, sizes, st.sampled_from(["center", "top-left"]))
def test_the_picture_lies_inside_and_keeps_its_aspect(
    height: int, width: int, size: tuple[int, int], place: str
) -> None:
    box = plan((height, width), ImageInput(size=size, place=place))  # type: ignore[arg-type]
    assert 0 <= box.top <= size[0] - box.scaled[0]
    assert 0 <= box.left <= size[1] - box.scaled[1]
    assert box.scaled[0] == size[0] or box.scaled[1] == size[1]
    ratio = min(size[0] / height, size[1] / width)
    assert abs(box.scaled[0] - max(1, height * ratio)) <= 0.5 + 1e-9
    assert abs(box.scaled[1] - max(1, width * ratio)) <= 0.5 + 1e-9


@given(sides, sides, sizes, st.sampled_from(["letterbox", "stretch"]))
def test_corners_map_back_to_the_corners(
    height: int, width: int, size: tuple[int, int], how: str
) -> None:
    box = plan((height, width), ImageInput(size=size, fit=how))  # type: ignore[arg-type]
    corners = np.array(
        [[box.left, box.top, box.left + box.scaled[1], box.top + box.scaled[0]]], np.float32
    )
    np.testing.assert_allclose(box.boxes_to_source(corners), [[0, 0, width, height]], atol=1e-2)


def test_boxes_are_clipped_to_the_picture() -> None:
    box = Letterbox((100, 200), (640, 640), (320, 640), 0, 160)
    got = box.boxes_to_source(np.array([[-10, 0, 700, 640]], np.float32))
    np.testing.assert_array_equal(got, [[0, 0, 200, 100]])


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_fit_pads_orders_channels_and_reuses_the_canvas(color: str) -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[:] = (1, 2, 3)  # B, G, R
    spec = ImageInput(size=(40, 40), color=color, pad=114)  # type: ignore[arg-type]
    canvas = np.full((1, 40, 40, 3), 7, np.uint8)
    out, box = fit(image, spec, canvas)
    assert out is canvas
    assert (box.top, box.left, box.scaled) == (10, 0, (20, 40))
    assert (out[0, :10] == 114).all()
    assert (out[0, 30:] == 114).all()
    assert tuple(out[0, 20, 20]) == ((3, 2, 1) if color == "RGB" else (1, 2, 3))


@pytest.mark.parametrize(("width", "filled"), [(34, 16), (2000, 320)])
def test_a_line_keeps_its_aspect_and_is_padded_on_the_right(width: int, filled: int) -> None:
    image = np.full((100, width, 3), 9, np.uint8)
    spec = ImageInput(size=(48, 320), fit="line", pad=127)
    out, box = fit(image, spec)
    assert box.scaled == (48, filled)
    assert (out[0, :, :filled] == 9).all()
    assert (out[0, :, filled:] == 127).all()


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([1, 3, 5, 7, 9]),
    st.integers(0, 2**32 - 1),
)
def test_an_odd_whole_ratio_gives_what_bilinear_gives(
    size: tuple[int, int], ratio: int, seed: int
) -> None:
    shape = (size[0] * ratio, size[1] * ratio, 3)
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    canvas, _ = fit(image, ImageInput(size=size, color="BGR"))
    np.testing.assert_array_equal(canvas[0], cv2.resize(image, size[::-1]))
