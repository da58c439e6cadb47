"""What people type by mistake: one error in sentences, before any work is done."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
import pytest
from tiny_yolo import stock

from rkzoo.cli.main import main
from rkzoo.cli.tune import _next


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "m.onnx", "--data", "d", "--workers", "0"], "--workers 0"),
        (["eval", "m.onnx", "--data", "d", "--workers", "-2"], "--workers -2"),
        (["eval", "m.onnx", "--data", "d", "--workers", "1000"], "--workers 1000"),
        (["eval", "m.onnx", "--data", "d", "--limit", "-3"], "--limit -3"),
        (["eval", "m.onnx", "--data", "d", "--max-boxes", "-2"], "limit of -2 boxes"),
        (["tune", "m.onnx", "--soc", "rk3588", "--data", "d", "--workers", "0"], "--workers 0"),
        (["tune", "m.onnx", "--soc", "rk3588", "--data", "d", "--max-drop", "nan"], "nan"),
        (["tune", "m.onnx", "--soc", "rk3588", "--data", "d", "--dtype", "fp16"], "float16"),
        (["convert", "made.rknn", "--soc", "rk3588"], "made.rknn"),
    ],
)
def test_numbers_that_make_no_sense(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err.splitlines()[0]


@pytest.mark.parametrize(
    ("model", "inputs", "output", "said"),
    [
        ("silero-vad", ("a.wav",), "talk.srt", "talk.srt cannot be written"),
        ("piper-joe", ("a.txt",), "said.m4a", "said.m4a cannot be written"),
        ("u2netp", ("a.png",), "cut.csv", "cut.csv cannot be written"),
        ("u2netp", ("a.png", "b.png"), "cut.png", "2 results do not fit"),
        ("minilm", ("a.wav",), "out", "a.wav is no file of text"),
        ("piper-joe-flow", ("Hello.",), "out", "are no sample of this model"),
    ],
)
def test_a_result_of_another_kind_is_refused_before_a_folder_is_called_that(
    model: str,
    inputs: tuple[str, ...],
    output: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in inputs:
        (tmp_path / name).touch()
    assert main(["run", model, *inputs, "-o", output]) == 2
    # Weights that are not kept yet are fetched first, and that is told, too.
    assert said in capsys.readouterr().err
    assert not (tmp_path / output).exists()


def test_tune_looks_at_its_folder_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "file"
    place.write_text("")
    words = ["tune", "m.onnx", "--soc", "rk3588", "--data", "d", "-o", str(place)]
    assert main(words) == 2
    assert "Nothing can be written into" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [("yolov8n.pt", "yolo export model="), ("net.h5", "Export"), ("nets", "Export")],
)
def test_a_model_of_another_format_is_told_what_to_do(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "my models" / name
    place.parent.mkdir()
    if place.suffix:
        place.write_bytes(b"weights")
    else:
        place.mkdir()
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"")
    assert main(["run", str(place), str(picture)]) == 2
    told = capsys.readouterr().err
    assert "not a model that rkzoo can read" in told
    assert said in told


def test_info_of_a_file_names_the_verb_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "my nets/a.onnx"]) == 2
    assert "rkzoo inspect 'my nets/a.onnx'" in capsys.readouterr().err


def test_the_page_of_the_zoo_is_not_made_of_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "zoo.html"
    assert main(["report", "zoo", "--results", str(tmp_path / "no"), "--page", str(page)]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert not page.exists()


def test_run_does_not_draw_over_the_pictures_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "photos" / "a.jpg"
    picture.parent.mkdir()
    picture.write_bytes(b"mine")
    beside = f"{picture.parent}/../photos"
    onnx.save(stock(), tmp_path / "m.onnx")
    assert main(["run", str(tmp_path / "m.onnx"), str(picture.parent), "-o", beside]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert picture.read_bytes() == b"mine"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_labels_that_cannot_be_read(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.txt"
    if content is not None:
        labels.write_bytes(content)
    assert main(["eval", "m.onnx", "--data", "d", "--labels", str(labels)]) == 2
    told = capsys.readouterr().err
    assert "The labels" in told
    assert "Errno" not in told
    assert "codec" not in told


def test_the_command_that_tune_names_says_again_what_the_model_is() -> None:
    args = argparse.Namespace(
        model="my nets/a.onnx", size="640", labels="my names.txt", calib="photos"
    )
    assert _next(args, "rk3588", Path("out dir/a.yaml")) == (
        "rkzoo convert 'my nets/a.onnx' --soc rk3588 --recipe 'out dir/a.yaml' "
        "--size 640 --labels 'my names.txt'"
    )


def test_an_empty_file_of_tensorflow_is_told_without_tensorflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.tflite").touch()
    assert main(["inspect", str(tmp_path / "net.tflite")]) == 2
    assert "The file is empty." in capsys.readouterr().err
