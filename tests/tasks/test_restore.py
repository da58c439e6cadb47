"""Pictures made of pictures: tiles against the network on the whole picture in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_maps

import rkzoo
from rkzoo.cli.main import main
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.restore import RestoreHead
from rkzoo.errors import RkzooError
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.restore.task import Restorer, spans

SIDE = 24


def whole(model: onnx.ModelProto, planes: np.ndarray) -> np.ndarray:
    """The network on a whole picture (C, H, W) of 0..255: its input's size is freed, so it needs no
    tiles. Gives (C, sH, sW) uint8."""
    free = onnx.ModelProto.FromString(model.SerializeToString())
    sides = free.graph.input[0].type.tensor_type.shape.dim[2:]
    for side, name in zip(sides, "hw", strict=True):
        side.dim_param = name
    session = onnxruntime.InferenceSession(free.SerializeToString())
    (made,) = session.run(None, {"images": planes[None].astype(np.float32) / 255})
    return np.clip(np.rint(made[0] * 255), 0, 255).astype(np.uint8)


def picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(2).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def restorer(model: onnx.ModelProto, head: RestoreHead, **fed) -> Restorer:
    image = ImageInput(size=(SIDE, SIDE), fit="stretch", **fed)
    contract = Contract(family="restore", picture=image, head=head)
    return Restorer(contract, OnnxSession(model.SerializeToString(), image))


@pytest.mark.parametrize("size", [(24, 24), (24, 25), (40, 61), (97, 30)])
@pytest.mark.parametrize("make", [tiny_maps.super_resolution, tiny_maps.denoiser])
def test_tiles_are_the_whole_picture(make, size) -> None:
    """Both networks see 4 pixels around each at most, so with a margin of 4 no seam is left."""
    model = make()
    scale = 3 if make is tiny_maps.super_resolution else 1
    source = picture(*size)
    wanted = whole(model, source[..., ::-1].transpose(2, 0, 1)).transpose(1, 2, 0)[..., ::-1]
    found = restorer(model, RestoreHead(scale=scale, margin=4))(source)
    assert found.picture.shape == (size[0] * scale, size[1] * scale, 3)
    # Two orders of adding floats may round a pixel to its neighbour.
    assert np.abs(found.picture.astype(int) - wanted).max() <= 1


def test_a_margin_too_small_leaves_seams() -> None:
    model, source = tiny_maps.denoiser(), picture(48, 48)
    without = restorer(model, RestoreHead(scale=1, margin=0))(source)
    wanted = whole(model, source[..., ::-1].transpose(2, 0, 1)).transpose(1, 2, 0)[..., ::-1]
    assert (without.picture != wanted).any()


def test_a_small_picture_goes_on_as_its_mirror_image() -> None:
    model, source = tiny_maps.super_resolution(), picture(10, 30)
    mirrored = np.concatenate([source, source[::-1], source[:4]])
    wanted = whole(model, mirrored[..., ::-1].transpose(2, 0, 1)).transpose(1, 2, 0)[..., ::-1]
    found = restorer(model, RestoreHead(scale=3, margin=4))(source)
    assert found.size == (30, 90)
    assert np.abs(found.picture.astype(int) - wanted[:30, :90]).max() <= 1


def test_a_network_of_luma_leaves_the_colours_to_a_bicubic_filter() -> None:
    model, source = tiny_maps.super_resolution(1), picture(30, 40)
    head = RestoreHead(scale=3, margin=4)
    found = restorer(model, head, color="GRAY", mean=(0,), std=(255,))(source).picture
    luma = whole(model, cv2.cvtColor(source, cv2.COLOR_BGR2GRAY)[None])[0]
    parts = cv2.cvtColor(source, cv2.COLOR_BGR2YCrCb)
    colours = cv2.resize(parts, (120, 90), interpolation=cv2.INTER_CUBIC)
    wanted = cv2.cvtColor(np.dstack([luma, colours[..., 1:]]), cv2.COLOR_YCrCb2BGR)
    assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("length", [24, 25, 44, 45, 100, 1000])
@pytest.mark.parametrize("margin", [0, 3, 11, 40])
def test_tiles_cover_a_side_once_and_have_their_margins(length: int, margin: int) -> None:
    tiles = spans(length, 24, margin)
    assert [*range(length)] == [i for tile in tiles for i in range(tile.first, tile.stop)]
    for tile in tiles:
        assert 0 <= tile.start <= length - 24
        assert tile.first == 0 or tile.first - tile.start >= min(margin, 11)
        assert tile.stop == length or tile.start + 24 - tile.stop >= min(margin, 11)


def test_values_of_another_range() -> None:
    """Networks of -1..1 say so in their head."""
    head = RestoreHead(scale=1, mean=127.5, std=127.5)
    task = restorer(tiny_maps.denoiser(), head)
    spec = TensorSpec(name="o", shape=(1, 3, SIDE, SIDE), dtype="float32", layout="NCHW")
    output = np.broadcast_to(np.float32([-1, 0, 2]).reshape(1, 3, 1, 1), spec.shape)
    assert task._pixels(output, spec)[0, 0].tolist() == [255, 128, 0]  # as BGR
    with pytest.raises(RkzooError, match="not finite"):
        task._pixels(np.full_like(output, np.nan), spec)
    with pytest.raises(RkzooError, match="gave an output of 1x1"):
        task._pixels(output[:, :1], spec)


def test_run_writes_the_picture_that_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(tiny_maps.super_resolution(), tmp_path / "net.onnx")
    cv2.imwrite(str(tmp_path / "in.png"), picture(30, 40))
    out = tmp_path / "out.png"
    assert main(["run", str(tmp_path / "net.onnx"), str(tmp_path / "in.png"), "-o", str(out)]) == 0
    assert "a picture of 120x90, 3 times larger" in capsys.readouterr().out
    with rkzoo.load(tmp_path / "net.onnx") as model:
        result = model(tmp_path / "in.png")
    assert result.to_json()["results"] == [{"width": 120, "height": 90, "scale": 3}]
    assert (cv2.imread(str(out)) == result.prediction.picture).all()
