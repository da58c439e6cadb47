"""Lines that were cut from pages are kept whole, or cut again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rkzoo.vision.image import read
from rkzoo.workflow.compile import text_calibration


def test_damaged_lines_are_cut_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    line = np.arange(3 * 10 * 40, dtype=np.uint8).reshape(10, 40, 3)
    cut = []

    def lines_on(*_: object) -> list[np.ndarray]:
        cut.append(1)
        return [line, line[:, ::-1].copy()]

    monkeypatch.setattr(text_calibration, "_lines_on", lines_on)
    page = tmp_path / "page.png"
    cv2.imwrite(str(page), np.zeros((90, 60, 3), np.uint8))
    first = text_calibration.line_pictures("ppocr-v4-rec", [page])
    assert len(first) == 2
    assert text_calibration.line_pictures("ppocr-v4-rec", [page]) == first
    assert len(cut) == 1
    first[1].write_bytes(first[0].read_bytes())
    again = text_calibration.line_pictures("ppocr-v4-rec", [page])
    assert len(cut) == 2
    assert np.array_equal(read(again[1]), line[:, ::-1])
