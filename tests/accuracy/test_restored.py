"""PSNR and SSIM of pictures in pairs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_maps

from rkzoo.accuracy.restored import psnr, ssim
from rkzoo.errors import RkzooError
from rkzoo.workflow.evaluation.evaluate import evaluate
from rkzoo.workflow.request.request import Request


def test_both_are_what_scikit_image_says() -> None:
    """skimage.metrics 0.26 of these pictures: peak_signal_noise_ratio(a, b, data_range=255), and
    structural_similarity with gaussian_weights=True, sigma=1.5, use_sample_covariance=False."""
    random = np.random.default_rng(8)
    first = random.integers(0, 256, (20, 30, 3), np.uint8)
    noise = random.integers(-20, 21, first.shape)
    second = np.clip(first.astype(int) + noise, 0, 255).astype(np.uint8)
    pair = first.astype(np.float64), second.astype(np.float64)
    assert psnr(*pair) == pytest.approx(27.04789770460191, abs=1e-9)
    assert ssim(*pair) == pytest.approx(0.9875574975928152, abs=1e-9)
    assert psnr(pair[0], pair[0]) == 100
    assert ssim(pair[0], pair[0]) == pytest.approx(1)


def pairs(folder: Path, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """A small picture and a large one, in lr/ and hr/ as DIV2K calls them."""
    random = np.random.default_rng(9)
    small = random.integers(0, 256, (24, 24, 3), np.uint8)
    large = random.integers(0, 256, (24 * scale, 24 * scale, 3), np.uint8)
    for name, image in (("lr/0801x3", small), ("hr/0801", large)):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
    return small, large


def test_eval_measures_the_luma_of_larger_pictures_without_the_border(tmp_path: Path) -> None:
    model = tiny_maps.super_resolution()
    onnx.save(model, tmp_path / "net.onnx")
    small, large = pairs(tmp_path / "data", 3)
    found = evaluate(
        str(tmp_path / "net.onnx"), str(tmp_path / "data"), request=Request(), workers=1
    )
    fed = small[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    (made,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": fed})
    made = np.rint(made[0] * 255).transpose(1, 2, 0)

    def luma(rgb: np.ndarray) -> np.ndarray:
        """MATLAB's rgb2ycbcr, pixel by pixel."""
        rows = [[16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255 for r, g, b in row]
                for row in rgb.tolist()]  # fmt: skip
        return np.rint(np.array(rows))[3:-3, 3:-3]

    error = ((luma(made) - luma(large[..., ::-1])) ** 2).mean()
    assert found.main.name == "PSNR-Y"
    assert found.main.value == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
    assert {metric.name for metric in found.metrics} == {"PSNR-Y", "SSIM-Y"}


def test_pairs_that_do_not_fit_the_model_are_named(tmp_path: Path) -> None:
    onnx.save(tiny_maps.super_resolution(), tmp_path / "net.onnx")
    pairs(tmp_path / "data", 2)
    with pytest.raises(RkzooError, match=r"0801\.png is 48x48, which is not what the model makes"):
        evaluate(str(tmp_path / "net.onnx"), str(tmp_path / "data"), request=Request(), workers=1)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    onnx.save(tiny_maps.denoiser(), tmp_path / "net.onnx")
    for name in ("noisy", "clean"):
        (tmp_path / "data" / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data/noisy/a.png"), np.zeros((30, 30, 3), np.uint8))
    with pytest.raises(RkzooError, match="no pairs of pictures"):
        evaluate(str(tmp_path / "net.onnx"), str(tmp_path / "data"), request=Request(), workers=1)
