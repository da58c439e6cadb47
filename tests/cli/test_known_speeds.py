"""What is known of a card's speed, as `info`, `estimate` and `bench` tell it."""

from __future__ import annotations

from rkzoo.cli.known_speeds import known_speeds


def test_each_figure_says_who_it_is_of() -> None:
    """Rockchip's table has 73.5 for yolov8n; PhotonVision 17.3 ms, Q-engineering 53.2 FPS."""
    (line,) = [text for text in known_speeds("yolov8n", ["rk3588"]) if "int8" in text]
    assert line.startswith("rk3588 int8: 73.5 frames/s published by Rockchip; ")
    assert " estimated (" in line
    assert "53.2 measured by Q-engineering" in line
    assert "57.8 measured by PhotonVision" in line


def test_fp16_has_its_own_figures_and_an_unknown_model_none() -> None:
    lines = known_speeds("ppocr-v4-rec", ["rk3566"])
    (half,) = [text for text in lines if text.startswith("rk3566 fp16")]
    assert "19.5 frames/s published by Rockchip" in half
    assert "17.2 measured by go-rknnlite" in half
    assert known_speeds("no-such-card") == []
    assert known_speeds("font-cjk") == []
