"""Pages that are drawn on the spot."""

from __future__ import annotations

import runpy
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.vision.image import read
from rkzoo.vision.synthetic_pages import Line, pages, photograph, texture, write_line


@pytest.fixture(scope="module")
def font() -> Path:
    from rkzoo.zoo.fetch import asset

    return asset("font-cjk")


@pytest.mark.network
def test_pages_follow_from_the_seed(font: Path) -> None:
    one, again, other = pages(6, 3, font), pages(6, 3, font), pages(6, 4, font)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(
        a.shape == b.shape and np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )
    for page in one:
        assert page.dtype == np.uint8
        assert page.shape[2] == 3
        assert min(page.shape[:2]) >= 400
        assert max(page.shape[:2]) <= 1300
        assert page.std() > 5
    # More pages begin with the same ones.
    assert all(np.array_equal(a, b) for a, b in zip(one, pages(2, 3, font), strict=False))


@pytest.mark.network
@pytest.mark.parametrize("degrees", [0, 180, 37])
def test_a_line_is_written_around_its_middle(font: Path, degrees: float) -> None:
    canvas = np.full((300, 300, 3), 255, np.uint8)
    write_line(canvas, Line("国国国国", 90, 120, 30, (0, 0, 0), degrees), font)
    y, x = np.nonzero(canvas[..., 0] < 128)
    assert len(y) > 300
    assert abs(x.mean() - 150) < 6
    assert abs(y.mean() - 139) < 8


@pytest.mark.network
def test_a_line_beyond_the_edge_is_cut_off(font: Path) -> None:
    canvas = np.full((50, 60, 3), 255, np.uint8)
    for x, y in ((-40, -10), (50, 40), (500, 500), (-500, 0)):
        write_line(canvas, Line("中文 text", x, y, 30, degrees=10), font)
    assert canvas.shape == (50, 60, 3)


@pytest.mark.network
def test_the_bundled_page_is_what_the_script_makes(font: Path) -> None:
    """Within what versions of the font renderer and of JPEG differ by."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "make_page.py"))
    made = photograph(
        script["sheet"](str(font)),
        np.random.default_rng(script["SEED"]),
        margin=0.045,
        tilt=0.014,
        shade=0.3,
    )
    with resources.as_file(resources.files("rkzoo.assets") / "page.jpg") as path:
        bundled = read(path)
    assert made.shape == bundled.shape
    assert np.abs(made.astype(int) - bundled).mean() < 4
    truth = (resources.files("rkzoo.assets") / "page.txt").read_text("utf-8").splitlines()
    assert [line.text for line in script["LINES"]] == truth


def test_a_missing_font_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="cannot be read"):
        pages(1, 0, tmp_path / "none.otf")


def test_a_photo_keeps_the_size_and_shows_the_desk() -> None:
    rng = np.random.default_rng(0)
    page = texture(rng, 200, 300, (250, 250, 250), 1)
    seen = photograph(page, rng, desk=(10, 10, 10), margin=0.2, tilt=0.0, shade=0.0)
    assert seen.shape == page.shape
    assert seen[100, 150].mean() > 200
    assert seen[5, 5].mean() < 80
