"""Cutting out by points and boxes, on graphs whose masks are discs around the first point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sam_graphs import BEST, RADII, decoder, encoder

from rkzoo.cli.main import main
from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.prompt.segmenter import PromptableSegmenter
from rkzoo.vision import image as pictures
from rkzoo.zoo.catalogue import card

PLAIN = TensorsHead()
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.fixture(scope="module")
def parts():
    picture = card("mobilesam-encoder").input
    assert picture is not None
    return (
        (
            Contract(family="mobilesam", picture=picture, head=PLAIN),
            OnnxSession(encoder(), picture),
        ),
        (
            Contract(family="mobilesam", head=PLAIN, others=card("mobilesam-decoder").arrays),
            OnnxSession(decoder()),
        ),
    )


def disc(size: tuple[int, int], x: float, y: float) -> np.ndarray:
    """The mask by its definition: pixel by pixel, its middle against the circle."""
    height, width = size
    scale = 448 / max(size)
    radius = RADII[BEST] * 4 / scale
    rows = []
    for row in range(height):
        middle = [(column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 for column in range(width)]
        rows.append([square < radius**2 for square in middle])
    return np.array(rows)


@pytest.mark.parametrize("size", [(300, 400), (640, 200), (448, 448)])
def test_a_mask_lies_where_the_point_is_in_a_picture_of_any_form(parts, size) -> None:
    height, width = size
    x, y = width * 0.6, height * 0.4
    found = PromptableSegmenter(*parts, points=[(x, y, 1)])(np.full((*size, 3), 90, np.uint8))
    assert len(found) == 1
    wrong = found.dense()[0] != disc(size, x, y)
    # Bilinear between cells moves an edge by less than a pixel of the input.
    edge = 2 * np.pi * RADII[BEST] * 4 * max(size) / 448
    assert wrong.sum() < edge * max(size) / 448


def test_the_best_of_the_masks_is_taken_and_scored_with_what_the_encoder_saw(parts) -> None:
    grey = np.full((448, 448, 3), 90, np.uint8)
    mean = np.mean([(90 - m) / s for m, s in zip(MEAN, STD, strict=True)])
    _, score = PromptableSegmenter(*parts, points=[(200, 200, 1)]).segment(
        PromptableSegmenter(*parts, points=[(1, 1, 1)]).embed(grey), [(200, 200, 1)]
    )
    assert score == pytest.approx(0.9 + mean, abs=1e-3)


def test_points_are_one_object_each_box_is_one_more_and_the_picture_is_encoded_once(
    parts, monkeypatch
) -> None:
    runs = []
    session = parts[0][1]
    run = session.run
    monkeypatch.setattr(session, "run", lambda arrays: runs.append(1) or run(arrays))
    boxes = [(60.0, 60.0, 120.0, 120.0), (300.0, 200.0, 380.0, 280.0)]
    cut = PromptableSegmenter(*parts, points=[(200, 150, 1), (10, 10, 0)], boxes=boxes)
    found = cut(np.full((300, 400, 3), 90, np.uint8))
    assert len(found) == 3
    assert len(runs) == 1
    corners = [(200, 150), (60, 60), (300, 200)]
    for mask, (x, y) in zip(found.dense(), corners, strict=True):
        assert mask[y, x]
    assert [record["label"] for record in found.to_json()] == ["object"] * 3


def test_what_the_decoder_is_fed(parts) -> None:
    """Scaled places, the labels of a box's corners, and -1 where nothing is."""
    cut = PromptableSegmenter(*parts, boxes=[(10, 20, 110, 220)])
    letterbox = cut.embed(np.zeros((224, 112, 3), np.uint8)).letterbox
    places, labels = cut._point_arrays([(10, 20, 2), (110, 220, 3)], letterbox)
    assert places.tolist() == [[[20, 40], [220, 440]]]
    assert labels.tolist() == [[2, 3]]
    places, labels = cut._point_arrays([(10, 20, 1)], letterbox)
    assert places.tolist() == [[[20, 40], [0, 0]]]
    assert labels.tolist() == [[1, -1]]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "There is no point or box"),
        ({"points": [(1, 1, 1)] * 3}, "3 points were given"),
        ({"boxes": [(50, 10, 40, 20)]}, "is empty"),
    ],
)
def test_prompts_that_cannot_be(parts, asked, said: str) -> None:
    with pytest.raises(RkzooError, match=said):
        PromptableSegmenter(*parts, **asked)


def test_a_point_outside_the_picture_is_refused(parts) -> None:
    with pytest.raises(RkzooError, match="outside the picture"):
        PromptableSegmenter(*parts, points=[(500, 10, 1)])(np.zeros((100, 100, 3), np.uint8))


def test_run_takes_the_prompts_from_the_command_line(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The zoo's own cards, with these graphs in place of the files."""
    from rkzoo.zoo import catalogue

    for role, data in (("encoder", encoder()), ("decoder", decoder())):
        (tmp_path / f"{role}.onnx").write_bytes(data)
        text = catalogue.path_of(f"mobilesam-{role}").read_text("utf-8")
        before, _, rest = text.partition("sources:")
        _, _, after = rest.partition("\n    unverified: ")
        after = after.partition("\n")[2]
        sources = f"sources:\n  - {{url: 'file:{role}.onnx', sha256: null, unverified: a test}}\n"
        (tmp_path / f"mobilesam-{role}.yaml").write_text(before + sources + after)
    monkeypatch.setenv("RKZOO_CARDS", str(tmp_path))
    picture = tmp_path / "p.png"
    pictures.write(picture, np.full((300, 400, 3), 90, np.uint8))
    assert main(["run", "mobilesam", str(picture), "--json", "--point", "200,150"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["images"]
    (record,) = answer["results"]
    assert abs(record["area"] - disc((300, 400), 200, 150).sum()) < 0.02 * record["area"]
    assert main(["run", "mobilesam", str(picture), "--json"]) == 2
    assert "--point" in capsys.readouterr().err


def test_an_input_that_the_cards_name_is_one_of_the_interface() -> None:
    names = {one.name for one in card("mobilesam-decoder").arrays}
    assert names == {spec.name for spec in OnnxSession(decoder()).inputs}
    assert all(isinstance(one, ArrayInput) for one in card("mobilesam-decoder").arrays)
    assert isinstance(card("mobilesam-encoder").input, ImageInput)
