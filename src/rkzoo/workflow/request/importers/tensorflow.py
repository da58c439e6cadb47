"""ONNX of TensorFlow's files: .tflite, and frozen graphs (.pb)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rkzoo.progress import ProgressReporter
from rkzoo.workflow.request.importers.frameworks import TENSORFLOW, translated


def tensorflow(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """A float ONNX that takes pictures of 0..255, channels first, where the file takes bytes.

    A quantised file's weights become the floats that they stand for. Raises RkzooError where
    there is no environment with TensorFlow.
    """
    _make(files["model"], target, report)


def deeplab(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """As `tensorflow`, for the frozen graphs of DeepLab's model zoo: from the scaled picture to
    the logits. What stands before and behind scales pictures of any size."""
    _make(
        files["model"],
        target,
        report,
        {"sub_7:0": (1, 513, 513, 3)},
        ("logits/semantic/BiasAdd:0",),
    )


def _make(
    source: Path,
    target: Path,
    report: ProgressReporter,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
) -> None:
    from rkzoo.graph.onnx.read import load
    from rkzoo.graph.onnx.rewrite import bytes_as_floats
    from rkzoo.graph.onnx.writer import save

    translated(TENSORFLOW, source, target, report, inputs, outputs)
    model = load(target)
    bytes_as_floats(model)
    save(model, target)
