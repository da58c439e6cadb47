"""ONNX of TensorFlow's files: .tflite, and frozen graphs (.pb)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.progress import Reporter


def tensorflow(files: Mapping[str, Path], target: Path, report: Reporter) -> None:
    """A float ONNX that takes pictures of 0..255, channels first, where the file takes bytes.

    A quantised file's weights become the floats that they stand for. Raises RkzooError where
    there is no environment with TensorFlow.
    """
    _make(files["model"], target, report)


def deeplab(files: Mapping[str, Path], target: Path, report: Reporter) -> None:
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
    report: Reporter,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
) -> None:
    import onnx

    from rkzoo.graph.read import load
    from rkzoo.graph.rewrite import bytes_as_floats
    from rkzoo.toolkit import environment
    from rkzoo.toolkit.process import ToolkitProcess

    env = environment.there("tensorflow")
    if env is None:
        raise RkzooError(
            f"{source.name} is a TensorFlow file, and TensorFlow is not installed.",
            "rkzoo reads such files with TensorFlow, in an environment apart (about 1.8 GB).",
            "Install it once with: rkzoo toolkit install --with tensorflow",
        )
    with ToolkitProcess(env, report=report) as process:
        try:
            process.translate(source, target, inputs=inputs, outputs=outputs)
        except RkzooError as error:
            raise RkzooError(
                f"{source.name} cannot be made into ONNX.",
                error.why,
                "It must be a complete .tflite or frozen graph; else export the model to ONNX.",
                code=1,
                log=error.log,
            ) from error
    model = load(target)
    bytes_as_floats(model)
    onnx.save(model, target)
