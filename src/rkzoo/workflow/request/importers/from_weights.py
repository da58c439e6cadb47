"""ONNX of weights in another form: `rkzoo.graph.from_weights`, imported when it is used, so that
to ask what a name stands for takes no onnx."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rkzoo.progress import ProgressReporter


def minilm_embedding(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.minilm import make_embedding

    make_embedding(files, target, report)


def minilm_encoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.minilm import make_encoder

    make_encoder(files, target, report)


def whisper_embedding(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.whisper import make_embedding

    make_embedding(files, target, report)


def whisper_encoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.whisper import make_encoder

    make_encoder(files, target, report)


def whisper_decoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.whisper import make_decoder

    make_decoder(files, target, report)


def moonshine_embedding(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.moonshine import make_embedding

    make_embedding(files, target, report)


def moonshine_encoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.moonshine import make_encoder

    make_encoder(files, target, report)


def moonshine_decoder(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.moonshine import make_decoder

    make_decoder(files, target, report)


def kokoro(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    from rkzoo.graph.from_weights.kokoro import make_kokoro

    make_kokoro(files, target, report)
