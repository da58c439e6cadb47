"""How a model was, or is to be, converted: the data that travels with a .rknn."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.contract.schema_base import Strict

DEFAULT_VERSION = "2.5.0"

Dtype = Literal["int8", "fp16"]
Algorithm = Literal["normal", "kl_divergence", "mmse"]
Method = Literal["channel", "layer"]


class InputPlan(Strict, frozen=True):
    """One input of the graph as the toolkit is told about it.

    `shape` is NCHW (or the graph's own order when it is no picture), without free
    dimensions. `mean` and `std` in 0..255 units; empty for an input that is no picture, which
    is fed as `dtype`.
    """

    name: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: Literal["float32", "int64", "int32"] = "float32"


class Recipe(Strict, frozen=True):
    """Everything that decides the numbers of the built model, the graph and the
    calibration set apart.

    `method`: INT8 weights have a scale for each channel, or one a layer. `auto_hybrid`: the
    toolkit itself looks for layers that INT8 hurts and keeps them in float16. `float_layers`:
    tensors (as `ToolkitProcess.quantised_tensors` names them) that are computed in float16;
    a convolution and the activation behind it are two tensors, and share one layer of the NPU
    only when both are named. `quantised`: the graph carries its own INT8 scales (QDQ nodes),
    which are kept; `dtype` is "int8" then, and there is nothing to calibrate. `scores`: outputs
    of the graph that are scores in 0..1, and are stored so whatever calibration saw of them;
    with another algorithm than normal, or `auto_hybrid`, calibration decides all the same.
    """

    soc: str
    dtype: Dtype
    inputs: tuple[InputPlan, ...]
    toolkit: str = DEFAULT_VERSION
    algorithm: Algorithm = "normal"
    method: Method = "channel"
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=3)] = 3
    auto_hybrid: bool = False
    float_layers: tuple[str, ...] = ()
    quantised: bool = False
    scores: tuple[str, ...] = ()


class Source(Strict, frozen=True):
    """Where the graph came from. `card` is the card's name when there is one."""

    file: str
    sha256: str
    card: str = ""


class Calibration(Strict, frozen=True):
    """The pictures that set the INT8 ranges: their paths, and a digest of the arrays
    that they became (uint8 NHWC, in the model's colour order)."""

    files: tuple[str, ...] = ()
    sha256: str = ""


class Sidecar(Strict, frozen=True):
    """`OUT.rknn.json`: enough to run, to simulate and to build `OUT.rknn` again.

    `build` is the key under which the graph as it was given to the toolkit and the
    calibration arrays lie in the cache (`builds/<key>/model.onnx`, `calibration-<i>.npy`).
    `head` says what became of a detection head.
    """

    source: Source
    recipe: Recipe
    contract: Contract
    calibration: Calibration
    build: str
    rkzoo: str
    head: Literal["uncut", "sigmoid", "logits", "bounded"] = "sigmoid"
    warnings: tuple[str, ...] = ()
    format: Literal[1] = 1
