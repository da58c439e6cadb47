"""ONNX of TensorFlow's files: .tflite, and frozen graphs in .pb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.progress import Reporter


def tensorflow(files: Mapping[str, Path], target: Path, report: Reporter) -> None:
    """A float ONNX that takes pictures of 0..255, channels first, where the file takes bytes.

    A quantised file's weights become the floats that they stand for. Raises RkzooError where
    there is no environment with TensorFlow.
    """
    import onnx

    from rkzoo.graph.read import load
    from rkzoo.graph.rewrite import bytes_as_floats
    from rkzoo.toolkit import environment
    from rkzoo.toolkit.process import ToolkitProcess

    source = files["model"]
    env = environment.there("tensorflow")
    if env is None:
        raise RkzooError(
            f"{source.name} is a TensorFlow file, and TensorFlow is not installed.",
            "rkzoo reads such files with TensorFlow, in an environment apart (about 1.8 GB).",
            "Install it once with: rkzoo toolkit install --with tensorflow",
        )
    with ToolkitProcess(env, report=report) as process:
        try:
            process.translate(source, target)
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
