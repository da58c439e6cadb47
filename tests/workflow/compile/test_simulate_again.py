"""A .rknn is simulated from its sidecar even when the cache has forgotten the build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.progress import SILENT
from rkzoo.toolkit import worker
from rkzoo.workflow.compile.simulate import open_rknn

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


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def task(self, *args: Any, **options: Any) -> Any:
        return SILENT.task(*args, **options)

    def note(self, message: str) -> None:
        self.notes.append(message)


def overwritten(content: bytes) -> bytes:
    return content[:300] + b"\x00rkzoo attack\x00" + content[314:]


def tiny(place: Path) -> tuple[Path, Path]:
    """A network of one convolution, and three pictures."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    random = np.random.default_rng(0)
    weights = random.standard_normal((8, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", 1, [1, 8, 32, 32])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)])
    model.ir_version = 8
    onnx.save(model, place / "tiny.onnx")
    folder = place / "photos"
    folder.mkdir()
    for number in range(3):
        picture = random.integers(0, 60 * (number + 1), (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return place / "tiny.onnx", folder


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("calibration-0.npy", overwritten),
        ("calibration-0.npy", lambda content: content[:2000]),
        ("model.onnx", overwritten),
        ("calibrated-*/chosen.cfg", overwritten),
        ("calibrated-*/hybrid.data", lambda content: content[:-9]),
    ],
)
def test_a_damaged_build_is_made_again_and_the_cache_is_blamed(
    own_cache: Path, tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    source, folder = tiny(tmp_path)
    rkzoo.convert(source, "rv1106", raw=True, calibration=str(folder), output=tmp_path / "x.rknn")
    fed = [np.random.default_rng(5).integers(0, 200, (1, 32, 32, 3), dtype=np.uint8)]
    notes = Notes()
    _, session = open_rknn(tmp_path / "x.rknn", report=notes)
    with session:
        first = session.run(fed)
    assert not notes.notes
    assert len(np.unique(first[0])) > 50
    (file,) = (own_cache / "builds").glob(f"*/{name}")
    content = file.read_bytes()
    file.write_bytes(damage(content))

    _, session = open_rknn(tmp_path / "x.rknn", report=notes)
    with session:
        again = session.run(fed)
    assert all(map(np.array_equal, first, again))
    assert str(file.parent) in notes.notes[0]
    assert "in the cache was damaged" in notes.notes[0]
    assert {path.name for path in file.parent.parent.rglob(file.name)} == {file.name}
    if file.name != "hybrid.data":  # which names its own folder
        assert file.read_bytes() == content


def test_what_convert_calibrated_is_not_calibrated_again(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = tiny(tmp_path)
    rkzoo.convert(source, "rk3566", raw=True, calibration=str(folder), output=tmp_path / "x.rknn")
    stand_in = tmp_path / "worker.py"
    text = Path(worker.__file__).read_text()
    stand_in.write_text(text.replace("def unpack_calibration(", "def unused("))
    monkeypatch.setattr(worker, "__file__", str(stand_in))
    _, session = open_rknn(tmp_path / "x.rknn")
    with session:
        session.run([np.zeros((1, 32, 32, 3), np.uint8)])


@pytest.mark.parametrize("other", [b"", b"text", None])
def test_a_file_that_is_not_its_sidecars_is_refused(
    own_cache: Path, tmp_path: Path, other: bytes | None
) -> None:
    """Its sidecar alone would be simulated, whatever lies beside it."""
    source, folder = tiny(tmp_path)
    target = tmp_path / "x.rknn"
    rkzoo.convert(source, "rk3588", raw=True, calibration=str(folder), output=target)
    content = target.read_bytes()
    target.write_bytes(overwritten(content) if other is None else other)
    with pytest.raises(RkzooError, match="is not the file that"):
        open_rknn(target)
