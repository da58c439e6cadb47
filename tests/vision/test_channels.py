"""Pictures of one, three and four channels: read, and fitted into the model's input."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rkzoo.contract.inputs import ImageInput, fed_as
from rkzoo.errors import RkzooError
from rkzoo.vision.image import expand, read
from rkzoo.vision.letterbox import fit
from rkzoo.workflow.request import calibration

RANDOM = np.random.default_rng(0)
BGRA = RANDOM.integers(0, 256, (40, 60, 4), np.uint8)
GRAY = ImageInput(size=(40, 60), color="GRAY", mean=(0,), std=(255,))


def four(color: str, size: tuple[int, int] = (40, 60), **more: object) -> ImageInput:
    mean, std = (0.0,) * 4, (255.0,) * 4
    return ImageInput(size=size, color=color, mean=mean, std=std, **more)  # type: ignore[arg-type]


def test_mean_and_std_have_a_number_for_each_channel() -> None:
    with pytest.raises(ValueError, match="takes 1"):
        ImageInput(size=(8, 8), color="GRAY")
    with pytest.raises(ValueError, match="takes 4"):
        ImageInput(size=(8, 8), color="RGBA", mean=(0, 0, 0))
    assert (GRAY.channels, four("BGRA").channels, ImageInput(size=(8, 8)).channels) == (1, 4, 3)


def test_what_a_user_says_of_the_channels() -> None:
    rgba = fed_as(four("RGBA"), "BGRA", (1,), (2, 3, 4, 5))
    assert (rgba.color, rgba.mean, rgba.std) == ("BGRA", (1,) * 4, (2, 3, 4, 5))
    assert fed_as(GRAY) == GRAY
    assert fed_as(GRAY, std=(1.0,)).std == (1.0,)
    for wrong in ({"color": "BGR"}, {"mean": (0, 0, 0)}, {"std": (0,)}):
        with pytest.raises(RkzooError) as caught:
            fed_as(GRAY, **wrong)  # type: ignore[arg-type]
        assert caught.value.fix
    with pytest.raises(RkzooError, match="RGB or BGR"):
        fed_as(ImageInput(size=(8, 8)), "GRAY")


def test_grey_is_the_usual_sum_of_the_colours() -> None:
    fitted, _ = fit(BGRA[..., :3].copy(), GRAY)
    expected = BGRA[..., :3] @ np.array([0.114, 0.587, 0.299])
    assert fitted.shape == (1, 40, 60, 1)
    assert np.abs(fitted[0, ..., 0] - expected).max() <= 1


@pytest.mark.parametrize("how", ["letterbox", "stretch", "line", "crop"])
@pytest.mark.parametrize("source", [(40, 60), (33, 97), (200, 80)])
def test_one_channel_is_fitted_as_three_are(how: str, source: tuple[int, int]) -> None:
    """A picture without colours is the same in each of three channels as in the only one."""
    plane = RANDOM.integers(0, 256, (*source, 1), np.uint8)
    spec = ImageInput(size=(48, 64), fit=how)  # type: ignore[arg-type]
    grey = ImageInput(size=(48, 64), fit=how, color="GRAY", mean=(0,), std=(1,))  # type: ignore[arg-type]
    three, box = fit(np.repeat(plane, 3, axis=2), spec)
    for given in (plane, np.repeat(plane, 3, axis=2)):
        one, same = fit(given, grey)
        assert same == box
        np.testing.assert_array_equal(one[..., 0], three[..., 0])


@pytest.mark.parametrize("how", ["letterbox", "stretch", "crop"])
def test_four_channels_are_fitted_each_like_a_plane(how: str) -> None:
    spec = four("RGBA", (48, 64), fit=how)
    got, _ = fit(BGRA, spec)
    for channel, own in enumerate((2, 1, 0, 3)):
        plane = np.repeat(BGRA[..., own : own + 1], 3, axis=2)
        alone, _ = fit(plane, ImageInput(size=(48, 64), fit=how))  # type: ignore[arg-type]
        np.testing.assert_array_equal(got[..., channel], alone[..., 0])
    blue_first, _ = fit(BGRA, four("BGRA", (48, 64), fit=how))
    np.testing.assert_array_equal(blue_first, got[..., [2, 1, 0, 3]])


def test_what_is_left_free_is_filled_in_every_channel() -> None:
    got, box = fit(BGRA, four("RGBA", (64, 64), pad=77))
    assert box.top > 0
    assert (got[0, : box.top] == 77).all()


def test_a_picture_without_alpha_is_opaque() -> None:
    got, _ = fit(BGRA[..., :3].copy(), four("RGBA"))
    assert (got[..., 3] == 255).all()
    np.testing.assert_array_equal(got[0, ..., :3], BGRA[..., 2::-1])


def test_alpha_is_dropped_for_three_channels() -> None:
    got, _ = fit(BGRA, ImageInput(size=(40, 60), color="BGR"))
    np.testing.assert_array_equal(got[0], BGRA[..., :3])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_is_read_from_files_that_have_it(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    more = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(BGRA[..., [2, 1, 0, 3]]).save(file, **more)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read(file, alpha=True), BGRA)
    np.testing.assert_array_equal(read(file), BGRA[..., :3])


def test_files_without_alpha_have_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), BGRA[..., :3])
    cv2.imwrite(str(tmp_path / "a.jpg"), BGRA[..., :3])
    assert read(tmp_path / "a.png", alpha=True).shape == (40, 60, 3)
    assert read(tmp_path / "a.jpg", alpha=True).shape == (40, 60, 3)


def test_a_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 2))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "p.png", transparency=0)
    got = read(tmp_path / "p.png", alpha=True)
    assert got[0, 1].tolist() == [50, 100, 200, 255]
    assert got[1, 3, 3] == 0


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_arrays_are_pictures(channels: int, tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    array = BGRA[..., :channels] if channels else BGRA[..., 0]
    np.save(file, array)
    got = read(file, alpha=True)
    assert got.shape == (40, 60, 4 if channels == 4 else 3)
    assert read(file).shape == (40, 60, 3)
    wanted = np.repeat(BGRA[..., :1], 3, axis=2) if channels < 2 else array
    np.testing.assert_array_equal(got, wanted)
    assert expand([str(tmp_path)]) == [file]


@pytest.mark.parametrize(
    "array", [BGRA.astype(np.float32), BGRA[..., :2], BGRA[:0], np.array([{}], object)]
)
def test_other_arrays_are_none(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(RkzooError):
        read(tmp_path / "a.npy")


def test_calibration_keeps_alpha_for_those_who_take_it(tmp_path: Path) -> None:
    Image.fromarray(BGRA[..., [2, 1, 0, 3]]).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", BGRA)
    (tmp_path / "list.txt").write_text("a.png\nb.npy\n")
    pictures = calibration.find(str(tmp_path / "list.txt"))
    got = calibration.arrays(pictures, four("BGRA"))
    np.testing.assert_array_equal(got, np.stack([BGRA, BGRA]))
    three = calibration.arrays(pictures, ImageInput(size=(40, 60), color="BGR"))
    np.testing.assert_array_equal(three, np.stack([BGRA[..., :3]] * 2))
    assert calibration.arrays(pictures, GRAY).shape == (2, 40, 60, 1)
