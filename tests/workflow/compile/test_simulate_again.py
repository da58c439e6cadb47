"""A .rknn is simulated from its sidecar even when the cache has forgotten the build."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir

pytestmark = pytest.mark.toolkit


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of builds of its own, with the toolkits and weights of the usual one."""
    usual, mine = cache_dir(), tmp_path / "cache"
    mine.mkdir()
    for shared in ("toolkits", "weights", "wheels"):
        (usual / shared).mkdir(exist_ok=True)
        (mine / shared).symlink_to(usual / shared)
    monkeypatch.setenv("RKZOO_CACHE", str(mine))
    return mine


@pytest.fixture
def pictures(assets: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in sorted((assets / "data/coco128_val/images").glob("*.jpg"))[:3]:
        shutil.copy(file, folder)
    return folder


def test_a_file_is_built_again_and_its_changes_are_noticed(
    assets: Path, own_cache: Path, pictures: Path, tmp_path: Path
) -> None:
    source = tmp_path / "yolox.onnx"
    shutil.copy(assets / "models/yolox_nano.onnx", source)
    (made,) = rkzoo.convert(source, "rv1106", calibration=str(pictures), output=tmp_path / "x.rknn")
    photo = assets / "data/images/bus_640.jpg"
    with rkzoo.load(made.rknn, confidence=0.1) as model:
        first = model(photo).to_json()["results"]
    shutil.rmtree(own_cache / "builds")
    with rkzoo.load(made.rknn, confidence=0.1) as model:
        assert model(photo).to_json()["results"] == first
    assert first

    shutil.rmtree(own_cache / "builds")
    picture = next(pictures.iterdir())
    kept = picture.read_bytes()
    picture.unlink()
    with pytest.raises(RkzooError, match="calibration pictures are gone"):
        rkzoo.load(made.rknn)
    picture.write_bytes(kept)
    source.write_bytes((assets / "models/yolov8n.onnx").read_bytes())
    with pytest.raises(RkzooError, match="changed since the conversion"):
        rkzoo.load(made.rknn)
    source.unlink()
    with pytest.raises(RkzooError, match="cannot be simulated any more"):
        rkzoo.load(made.rknn)


@pytest.mark.network
def test_a_card_is_built_again_with_the_pages_that_rkzoo_made(
    own_cache: Path, tmp_path: Path
) -> None:
    (made,) = rkzoo.convert("ppocr-v4-cls", "rk3588", dtype="fp16", output=tmp_path / "x.rknn")
    shutil.rmtree(own_cache / "builds")
    from rkzoo.workflow.compile.simulate import open_rknn

    contract, session = open_rknn(made.rknn)
    with session:
        assert contract.family == "ppocr-cls"
        assert session.outputs[0].shape == (1, 2)
