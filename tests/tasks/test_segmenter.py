"""Cutting out by points and boxes, on graphs whose masks are discs around the first point."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from sam_graphs import BEST, RADII, decoder, encoder

import rkzoo
from rkzoo.cli.main import main
from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.contract.segmentation import PromptableSegmentHead
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.prompt.segmenter import PromptableSegmenter
from rkzoo.vision import image as pictures
from rkzoo.zoo.catalogue import card
from upstream_networks import network

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


# ---- decoders that are called otherwise, and encoders with more than one output -------


def renamed(content: bytes, names: dict[str, str]) -> bytes:
    """A graph whose inputs and outputs are called otherwise."""
    model = onnx.ModelProto.FromString(content)
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for info in (*model.graph.input, *model.graph.output):
        info.name = names.get(info.name, info.name)
    return model.SerializeToString()


def test_inputs_and_outputs_are_known_by_their_roles(parts) -> None:
    """As EdgeSAM's files call them, which have no earlier mask."""
    names = {"low_res_masks": "masks", "iou_predictions": "quality", "point_coords": "where"}
    called = (parts[1][0], OnnxSession(renamed(decoder(), names)))
    head = PromptableSegmentHead(points="where", masks="masks", scores="quality")
    grey = np.full((300, 400, 3), 90, np.uint8)
    found = PromptableSegmenter(parts[0], called, points=[(200, 150, 1)], head=head)(grey)
    wanted = PromptableSegmenter(*parts, points=[(200, 150, 1)])(grey)
    assert (found.dense() == wanted.dense()).all()
    assert found.to_json() == wanted.to_json()
    with pytest.raises(RkzooError, match="The decoder has no iou_predictions, low_res_masks"):
        PromptableSegmenter(parts[0], called, points=[(1, 1, 1)])


def test_graphs_of_two_exports_are_refused(parts) -> None:
    other = renamed(decoder(), {"mask_input": "high_res_feats"})
    with pytest.raises(RkzooError, match=r"gives embedding, .* takes .*high_res_feats"):
        PromptableSegmenter(parts[0], (parts[1][0], OnnxSession(other)), points=[(1, 1, 1)])


@pytest.mark.sweep
def test_sam2_cuts_out_what_a_plain_loop_does(tmp_path, monkeypatch) -> None:
    """The true network with random weights: both graphs in ONNX Runtime, as SAM 2's own predictor
    uses them (sam2/sam2_image_predictor.py): the picture stretched, the best of three masks, its
    logits scaled bilinear and cut at 0."""
    monkeypatch.chdir(tmp_path)
    for name in ("encoder", "decoder"):
        model = network(f"sam2-tiny-{name}")
        Path(f"sam2-tiny-{name}.onnx").write_bytes(model.SerializeToString())
    picture = np.random.default_rng(3).integers(0, 256, (1024, 1024, 3), np.uint8)
    with rkzoo.load("sam2-tiny", points=[(300, 500, 1)]) as opened:
        found = opened(picture).prediction
    fed = ((picture[..., ::-1] - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)[None]
    encode = onnxruntime.InferenceSession("sam2-tiny-encoder.onnx")
    names = [output.name for output in encode.get_outputs()]
    seen = dict(zip(names, encode.run(None, {"image": fed}), strict=True))
    prompt = {
        "point_coords": np.array([[[300, 500], [0, 0]]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    decode = onnxruntime.InferenceSession("sam2-tiny-decoder.onnx")
    masks, scores = decode.run(["masks", "iou_predictions"], {**seen, **prompt})
    best = int(scores[0].argmax())
    wanted = cv2.resize(masks[0, best], (1024, 1024), interpolation=cv2.INTER_LINEAR) > 0
    assert wanted.any()
    assert not wanted.all()
    assert found.boxes.score[0] == pytest.approx(scores[0, best], abs=1e-4)
    assert (found.dense()[0] != wanted).mean() < 1e-3
