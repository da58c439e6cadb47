"""Build recipes and sidecar files: the data that accompany a .rknn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from rkzoo.contract.custom_operator import CustomOperator
from rkzoo.contract.model import Contract
from rkzoo.contract.schema_base import StrictStruct

DEFAULT_VERSION = "2.5.0"
MOST_AT_ONCE = 64
"""Largest batch."""

Dtype = Literal["int8", "fp16", "w4a16"]
Algorithm = Literal["mse", "normal", "kl_divergence", "mmse", "gdq"]
Method = Literal["channel", "layer", "group32", "group64", "group128", "group256"]

MemoryPlan = Literal["BestFit", "GreedyBySize", "GreedyByLifetime", "SlowPeakGrowth"]
ComputeOrder = Literal["WidthFirst", "DepthFirst"]


class MemoryChoice(StrictStruct, frozen=True):
    """How a build lays out its working memory (see `Recipe`)."""

    plan: MemoryPlan = "BestFit"
    order: ComputeOrder = "WidthFirst"


USUAL_MEMORY = MemoryChoice()


def offered(dtypes: Sequence[str], dtype: str) -> bool:
    """Whether a model that comes in `dtypes` may be built in `dtype`. 4-bit weights go with
    float16: what that is between the layers, it is there too."""
    return dtype in dtypes or (dtype == "w4a16" and "fp16" in dtypes)


class InputPlan(StrictStruct, frozen=True):
    """A graph input as described to the toolkit.

    Attributes:
        name: Name of the input.
        shape: NCHW (or the graph's own order for other inputs), without dynamic dimensions.
        mean: In 0..255 units; empty for an input that is not an image.
        std: Likewise.
        dtype: Data type of an input that is not an image.
    """

    name: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: Literal["float32", "int64", "int32"] = "float32"


class Recipe(StrictStruct, frozen=True):
    """Everything that affects the results of the built model, apart from graph and calibration set.

    Attributes:
        soc: The chip.
        dtype: Data type; w4a16 is 4-bit weights, and float16 between the layers.
        inputs: The graph's inputs.
        toolkit: Toolkit version.
        algorithm: Calibration algorithm: mse finds `ranges` with rkzoo, the others are the
            toolkit's; gdq is of w4a16 alone.
        method: Weight scales per channel, or one per layer; of w4a16 also one for so many weights
            of a channel.
        optimization_level: Of the toolkit, 0 to 3.
        auto_hybrid: The toolkit itself keeps layers in float16 that INT8 degrades.
        float_layers: Tensors (as `ToolkitProcess.quantised_tensors` names them) computed in
            float16; a convolution and its activation are two tensors, and stay one fused NPU layer
            only when both are named.
        quantised: The graph has its own INT8 scales (QDQ nodes), which are kept; `dtype` is "int8"
            then, and nothing is calibrated.
        batch: Samples that the built model takes at once.
        sizes: (height, width) of every shape of the picture that the built model takes, that of
            `inputs` first; empty for one.
        memory_plan: How the compiler lays tensors into the working memory; the numbers are the
            same.
        compute_order: In which order it computes branches, likewise.
        scores: Outputs that are scores in 0..1, whose range is set so whatever calibration saw of
            them; with another algorithm than normal, or `auto_hybrid`, calibration decides.
        ranges: (tensor, smallest, largest) to set in the toolkit's table in place of what its
            calibration found, under the same condition; a tensor that it does not know is left out.
        custom: Operators of the graph that whoever runs the model computes.
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
    batch: Annotated[int, msgspec.Meta(ge=1, le=MOST_AT_ONCE)] = 1
    sizes: tuple[tuple[int, int], ...] = ()
    memory_plan: MemoryPlan = "BestFit"
    compute_order: ComputeOrder = "WidthFirst"
    scores: tuple[str, ...] = ()
    ranges: tuple[tuple[str, float, float], ...] = ()
    custom: tuple[CustomOperator, ...] = ()


class Source(StrictStruct, frozen=True):
    """The source of the graph. `card` is the card's name, if any; `part` its role, where the file
    was split."""

    file: str
    sha256: str
    card: str = ""
    part: str = ""


class Calibration(StrictStruct, frozen=True):
    """The calibration images: their paths, and a digest of the arrays made from them (uint8 NHWC,
    in the model's color order).
    """

    files: tuple[str, ...] = ()
    sha256: str = ""


class Sidecar(StrictStruct, frozen=True):
    """`OUT.rknn.json`: enough to run, to simulate and to rebuild `OUT.rknn`.

    Attributes:
        source: The original model.
        recipe: The build settings.
        contract: The contract of the built model.
        calibration: The calibration set.
        build: Key of the build inputs in the cache (`builds/<key>/model.onnx`,
            `calibration-<i>.npy`).
        rkzoo: Version of rkzoo.
        head: How a detection head was cut.
        warnings: Warnings of the build.
        rknn: sha256 of the .rknn; empty in files of older versions.
        format: Version of this format.
    """

    source: Source
    recipe: Recipe
    contract: Contract
    calibration: Calibration
    build: str
    rkzoo: str
    head: Literal["uncut", "sigmoid", "logits", "bounded"] = "sigmoid"
    warnings: tuple[str, ...] = ()
    rknn: str = ""
    format: Literal[1] = 1
