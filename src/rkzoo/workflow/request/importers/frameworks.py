"""ONNX of another framework's file, made in the environment that has the framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.progress import ProgressReporter
from rkzoo.toolkit.versions import KINDS


@dataclass(frozen=True)
class Framework:
    """`kind` of environment (KINDS) that reads its files, `install` the option that brings it;
    `fix` what to look at where a file cannot be translated."""

    name: str
    kind: str
    install: str
    file: str
    fix: str


TENSORFLOW = Framework(
    name="TensorFlow",
    kind="tensorflow",
    install="--with tensorflow",
    file="a TensorFlow file",
    fix="It must be a complete .tflite or frozen graph; else export the model to ONNX.",
)
PYTORCH = Framework(
    name="PyTorch",
    kind="full",
    install="--full",
    file="a TorchScript file",
    fix="Give the size of its pictures with --size HxW; else export the model to ONNX.",
)


def translated(
    framework: Framework,
    source: Path,
    target: Path,
    report: ProgressReporter,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
) -> None:
    """Writes the ONNX `target`; `inputs` and `outputs` as for ToolkitProcess.translate. Raises
    RkzooError, also where there is no environment with the framework."""
    from rkzoo.toolkit import environment
    from rkzoo.toolkit.process import ToolkitProcess

    env = environment.newest_installed(framework.kind)
    if env is None:
        raise RkzooError(
            f"{source.name} is {framework.file}, and {framework.name} is not installed.",
            f"rkzoo reads such files with {framework.name}, in an environment apart"
            f" ({KINDS[framework.kind].size}).",
            f"Install it once with: rkzoo toolkit install {framework.install}",
        )
    with ToolkitProcess(env, report=report) as process:
        try:
            process.translate(source, target, inputs=inputs, outputs=outputs)
        except RkzooError as error:
            raise RkzooError(
                f"{source.name} cannot be made into ONNX.",
                error.why,
                framework.fix,
                code=1,
                log=error.log,
            ) from error
