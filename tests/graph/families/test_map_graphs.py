"""Depth estimators and networks that make pictures, by their graphs alone: true ones of other
projects, and small ones for what they must not be taken for."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import tiny_maps

import rkzoo
from rkzoo.contract.depth import DepthHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.restore import RestoreHead
from rkzoo.graph.families.depth import depth
from rkzoo.graph.families.recognition import ImageSource
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.families.restore import restore
from rkzoo.graph.onnx.view import prepared
from upstream_networks import network

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
GREY = ((127.5,) * 3, (127.5,) * 3)


@pytest.mark.parametrize(
    ("name", "family", "head", "pixels"),
    [
        ("depth-anything-v2-small", "depth-anything", DepthHead(), IMAGENET),
        pytest.param(
            *("depth-anything-v2-metric", "depth-anything"),
            DepthHead(inverse=False, metric=True),
            IMAGENET,
            marks=pytest.mark.sweep,
        ),
        pytest.param(
            *("midas-swin2-tiny", "dpt", DepthHead(), GREY),
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_the_depth_estimators_of_transformers(name, family, head, pixels) -> None:
    found = recognise(network(name))
    assert (found.family, found.contract.head) == (family, head)
    assert (found.contract.input.mean, found.contract.input.std) == pixels
    assert found.contract.input.fit == "stretch"
    assert any("is assumed" in sentence for sentence in found.assumed)


@pytest.mark.parametrize(("name", "scale"), [("realesr-general-x4v3", 4), ("dncnn-color", 1)])
def test_the_networks_of_spandrel_that_make_pictures(name: str, scale: int) -> None:
    found = recognise(network(name))
    assert (found.family, found.contract.head) == ("restore", RestoreHead(scale=scale))
    assert found.contract.input.std == (255, 255, 255)


def test_a_depth_map_is_what_onnx_runtime_says(tmp_path) -> None:
    """Without a card; the picture has the network's own size, so nothing is scaled."""
    model = network("depth-anything-v2-small")
    file = tmp_path / "depth.onnx"
    file.write_bytes(model.SerializeToString())
    picture = np.random.default_rng(1).integers(0, 256, (252, 252, 3), np.uint8)
    mean, std = (np.array(row, np.float32) for row in IMAGENET)
    fed = ((picture[..., ::-1] - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(file).run(None, {"pixel_values": fed})
    with rkzoo.load(file) as opened:
        found = opened(picture).prediction
    assert not found.metric
    np.testing.assert_allclose(found.values, wanted[0], atol=1e-4)
    assert found.values.std() > 0.01


def test_metres_are_told_by_how_far_the_map_reaches() -> None:
    assert recognise(tiny_maps.depth("metric")).contract.head == DepthHead(False, True)
    assert recognise(tiny_maps.depth()).contract.head == DepthHead()
    assert recognise(tiny_maps.depth()).family == "midas"


@pytest.mark.parametrize(
    "other", [{"end": "mask"}, {"end": "logits"}, {"scalings": 1}, {"mode": "nearest"}]
)
def test_other_maps_are_not_taken_for_depth(other) -> None:
    view = prepared(tiny_maps.depth(**other), {"images": (1, 3, 64, 64)})
    assert isinstance(depth(view, ImageSource(ImageInput(size=(64, 64)))), str)


def test_a_picture_of_one_channel_is_fed_its_luma() -> None:
    found = recognise(tiny_maps.super_resolution(1))
    assert found.contract.head == RestoreHead(scale=3)
    assert (found.contract.input.color, found.contract.input.std) == ("GRAY", (255,))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("opset", [10, 17])
def test_pixels_of_bytes_in_and_out(tmp_path, scaled: bool, opset: int) -> None:
    """By ONNX Runtime, which is given the picture's bytes as floats in either case."""
    model = tiny_maps.stylised(scaled=scaled, opset=opset)
    file = tmp_path / "style.onnx"
    file.write_bytes(model.SerializeToString())
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    fed = picture[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(file)
    (wanted,) = session.run(None, {session.get_inputs()[0].name: fed})
    assert wanted.std() > 5
    with rkzoo.load(file) as opened:
        found = opened(picture).prediction
    np.testing.assert_allclose(found.picture[..., ::-1].transpose(2, 0, 1)[None], wanted, atol=0.51)


def test_what_ends_elsewhere_is_not_taken_for_bytes() -> None:
    view = prepared(tiny_maps.stylised(end=6.0), {"images": (1, 3, 64, 64)})
    assert isinstance(restore(view, ImageSource(ImageInput(size=(64, 64)))), str)


def test_metres_grow_with_the_distance() -> None:
    with pytest.raises(ValueError, match="inverse: false"):
        DepthHead(metric=True)
