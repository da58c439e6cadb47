"""Whether the head of a built model can be read on its chip.

A .rknn tells how the NPU lays its outputs out. The decoder that a board would use is bound to
just that, so what a board would refuse is refused here. Nothing is computed.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

from rkzoo.checks import Check
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.rknn.reader import SMALL, RknnFile
from rkzoo.tasks.detect.postprocess import DetectDecoder
from rkzoo.toolkit.recipe import DEFAULT_VERSION

_SHOWN = 3
_TOOLKITS = (DEFAULT_VERSION, "2.3.2")
_MOST_CELLS = 1_000_000  # 640x640 has 8400


def native_specs(file: RknnFile, contract: Contract) -> tuple[TensorSpec, ...]:
    """The outputs as `NpuSession` announces them for this contract on the file's chip.

    Maps of a detection head stay as the NPU writes them where its only input is a picture, in
    blocks of channels or, on chips with the small library, NHWC; all else, batches too, is the
    graph's NCHW.
    """
    pictures = contract.picture is not None and len(file.inputs) == 1
    if not (isinstance(contract.head, DetectHead) and pictures):
        return file.outputs
    if file.container == SMALL:
        return tuple(map(_last, file.outputs))
    native = file.native_outputs or file.outputs
    return tuple(
        own if plain.shape[:1] == (1,) else plain
        for own, plain in zip(native, file.outputs, strict=True)
    )


def _last(spec: TensorSpec) -> TensorSpec:
    """NCHW as NHWC."""
    if spec.layout != "NCHW":
        return spec
    batch, channels, height, width = spec.shape
    return msgspec.structs.replace(spec, shape=(batch, height, width, channels), layout="NHWC")


def bind_native(file: RknnFile, contract: Contract) -> tuple[TensorSpec, ...]:
    """Binds the decoder to the outputs; those, or none where the head is no detection head, which
    alone is read in the NPU's own layout.

    Raises RkzooError where a board would refuse the model.
    """
    head = contract.head
    if not isinstance(head, DetectHead):
        return ()
    specs = native_specs(file, contract)
    size = contract.input.size
    if several := file.shapes.get(file.inputs[0].name):
        size = several[0][2], several[0][3]
    _refuse_endless(head, size)
    DetectDecoder(head, size, specs)
    return specs


def _refuse_endless(head: DetectHead, size: tuple[int, int]) -> None:
    """A file may come from a stranger, and the decoder makes tables of all cells."""
    anchors = max((len(level) for level in head.anchors), default=1)
    cells = anchors * sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in head.strides)
    if not 0 < cells <= _MOST_CELLS:
        raise RkzooError(
            f"The head promises {cells} cells.",
            f"There must be some, and {_MOST_CELLS} at the most.",
            "Look at the model with rkzoo inspect.",
        )


def refuse_unreadable(file: RknnFile, contract: Contract, model: str) -> None:
    """Raises RkzooError where a board would refuse what was just built of `model`, a name or
    a file."""
    try:
        bind_native(file, contract)
    except RkzooError as error:
        chip = file.platforms[0] if file.platforms else "CHIP"
        other = next(version for version in _TOOLKITS if version != file.toolkit)
        raise RkzooError(
            f"{model} was built, but a board could not read it.",
            f"{error.what} {error.why}",
            "Build it with another toolkit, as in "
            f"rkzoo convert {shlex.quote(model)} --soc {chip} --toolkit {other}.",
            code=1,
        ) from error


def refuse_left_out(file: RknnFile, outputs: Sequence[str]) -> None:
    """Raises RkzooError where the toolkit dropped some of the graph's `outputs` in silence."""
    if len(file.outputs) >= len(outputs):
        return
    kept = {spec.name for spec in file.outputs}
    lost = [name for name in outputs if name not in kept] or list(outputs)
    rest = ", ".join(name for name in outputs if name in kept)
    raise RkzooError(
        f"RKNN-Toolkit2 left the output {lost[0]} out of the .rknn.",
        f"It built {len(file.outputs)} of {len(outputs)} outputs and said nothing.",
        f"Write a card with rkzoo card new --raw, and name the others in it: `outputs: [{rest}]`.",
        code=1,
    )


def native_checks(file: RknnFile, contract: Contract) -> list[Check]:
    """What `rkzoo inspect` says of it."""
    try:
        specs = bind_native(file, contract)
    except RkzooError as error:
        return [Check("fail", f"A board would refuse the head: {error.what} {error.why}")]
    if not specs:
        return []
    return [
        Check("ok", f"The head fits its outputs as the NPU keeps them: {_format_specs(specs)}.")
    ]


def _format_specs(specs: Sequence[TensorSpec]) -> str:
    described = [f"{spec.name} {list(spec.shape)}" for spec in specs[:_SHOWN]]
    left = len(specs) - _SHOWN
    return ", ".join(described) + (f" and {left} more" if left > 0 else "")
