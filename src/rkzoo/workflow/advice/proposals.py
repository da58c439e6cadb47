"""What could be changed of a model for a chip: a table of small functions, each of which looks at
the model as it is built now and names changes. Nothing is built here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import TensorsHead
from rkzoo.files import atomic_output, os_errors_explained
from rkzoo.graph.lowering.variants import (
    SAME_NUMBERS,
    at_size,
    before_arithmetic,
    folded,
    require_equal,
    with_relu,
)
from rkzoo.graph.onnx.read import load_structure
from rkzoo.graph.onnx.summary import summarise
from rkzoo.soc.chips import chips
from rkzoo.speed.latency import chip_model, cpu_price
from rkzoo.toolkit.recipe import DEFAULT_VERSION, Dtype
from rkzoo.workflow.performance.estimate import Estimate, EstimateSubject, subject_of
from rkzoo.workflow.request.quantization import QuantizationConfig, TunedRecipe, write_recipe
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.workflow.request.resolved import ResolvedModel, inputs_of

if TYPE_CHECKING:
    import onnx

Numbers = Literal["same", "rounded", "other size", "needs training", "needs an export"]
NUMBERS: dict[Numbers, str] = {
    "same": "yes",
    "rounded": "rounded in another way",
    "other size": "no, another size",
    "needs training": "no, needs training",
    "needs an export": "no, needs an export",
}
"""Whether a change keeps the model's numbers, as it is told."""

_SIZES = (0.8, 0.6, 0.5)  # of each side
_LARGE, _FEW_LAYERS = 0.2, 10  # share of the time; layers
_STRIDE = 32  # of most networks


@dataclass(frozen=True)
class Situation:
    """A model as it is built now.

    Attributes:
        ready: The model with its contract.
        subject: Its graph as the toolkit is given it.
        soc: The chip.
        base: What it costs now.
        request: What was asked of it.
    """

    ready: ResolvedModel
    subject: EstimateSubject
    soc: str
    base: Estimate
    request: Request

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs."""
        return {plan.name: plan.shape for plan in self.subject.inputs}


@dataclass(frozen=True)
class Candidate:
    """A change that is to be built and estimated.

    Attributes:
        name: Its kind.
        what: What is changed.
        numbers: Whether the answers stay.
        dtype: The number format that it is built in.
        make: Makes the graph that is built; raises RkzooError where that cannot be.
        note: What else is to be known of it, in one sentence.
        options: Options of `rkzoo convert` that have it done; empty for none.
        trial: What measures its accuracy: a request, and the model's settings; None for nothing.
        suffix: What `write` writes, ".onnx" or ".yaml"; "" where nothing can be written.
        write: Writes it, verified, and returns the files.
    """

    name: str
    what: str
    numbers: Numbers
    dtype: Dtype
    make: Callable[[], EstimateSubject] = field(repr=False)
    note: str = ""
    options: tuple[str, ...] = ()
    trial: tuple[Request, ResolvedModel] | None = field(default=None, repr=False)
    suffix: str = ""
    write: Callable[[Path], list[Path]] | None = field(default=None, repr=False)


Candidates = Iterator[Candidate]


def _data_types(now: Situation) -> Candidates:
    """The other number formats that chip and model have."""
    if now.subject.quantised is not None:
        return
    able = chips()[now.soc].dtypes
    for dtype in get_args(Dtype):
        known = dtype in able and _is_offered(dtype, now.ready.dtypes)
        if dtype == now.base.dtype or not known:
            continue
        yield Candidate(
            f"dtype-{dtype}",
            f"{dtype} in place of {now.base.dtype}",
            "rounded",
            dtype,
            lambda: now.subject,
            options=("--dtype", dtype),
            trial=(replace(now.request, dtype=dtype), now.ready),
        )


def _is_offered(dtype: str, dtypes: Sequence[str]) -> bool:
    """4-bit weights go with float16: what that is between the layers, it is there too."""
    return dtype in dtypes or (dtype.startswith("w4") and "fp16" in dtypes)


def _head_forms(now: Situation) -> Candidates:
    """What leaves a detector: its boxes, what they are computed from, scores as logits."""
    ready, head = now.ready, now.ready.contract.head
    if ready.recognition is None or not isinstance(head, DetectHead):
        return
    if ready.quantise.head == "uncut":
        cut = ready.quantised(QuantizationConfig())
        yield Candidate(
            "head-cut",
            "head cut off, boxes computed on the processor",
            "same",
            now.base.dtype,
            lambda: subject_of(cut),
            note="convert proves it equal; leave --no-cut out.",
            options=(),
            trial=(replace(now.request, cut=True), cut),
        )
        return
    if not head.activated or now.base.dtype != "int8" or now.subject.quantised is not None:
        return
    logits = ready.quantised(msgspec.structs.replace(ready.quantise, head="logits"))

    def write(path: Path) -> list[Path]:
        recipe = TunedRecipe(
            model=ready.name,
            sha256=ready.source.sha256,
            toolkit=now.request.toolkit or DEFAULT_VERSION,
            quantise=logits.quantise,
        )
        write_recipe(path, recipe)
        return [path]

    yield Candidate(
        "head-logits",
        "scores leave as logits, their sigmoid on the processor",
        "rounded",
        "int8",
        lambda: subject_of(logits),
        trial=(now.request, logits),
        suffix=".yaml",
        write=write,
    )


def _same_numbers(now: Situation) -> Candidates:
    """Operators in others that give the same numbers."""
    start = folded(now.ready.original, now.shapes)
    for name, (words, change) in SAME_NUMBERS.items():
        changed, count = change(start)
        if not count:
            continue
        variant = replace(now.ready, original=changed)

        def write(path: Path, changed: onnx.ModelProto = changed) -> list[Path]:
            require_equal(now.ready.original, changed)
            return [_written(path, changed)]

        yield Candidate(
            name,
            words.format(count=count),
            "same",
            now.base.dtype,
            lambda variant=variant: subject_of(variant),  # type: ignore[misc]
            trial=(now.request, variant),
            suffix=".onnx",
            write=write,
        )


def _end(now: Situation) -> Candidates:
    """The arithmetic behind the last weights left to the processor, which does part of it
    anyway."""
    ready = now.ready
    plain = isinstance(ready.contract.head, TensorsHead) and ready.contract.picture is not None
    if not now.base.on_cpu or not plain or (ready.card is not None and ready.card.outputs):
        return
    inputs = inputs_of(ready.original, ready.contract)

    def write(path: Path) -> list[Path]:
        first, rest = before_arithmetic(ready.original, inputs)
        require_equal(ready.original, first, rest)
        return [_written(path, first), _written(path.with_suffix(".rest.onnx"), rest)]

    yield Candidate(
        "end-at-weights",
        "the model ends at its last weights, what follows runs in ONNX Runtime",
        "same",
        now.base.dtype,
        lambda: subject_of(ready, before_arithmetic(ready.original, inputs)[0]),
        note="Two files are written: one for the NPU, and .rest.onnx for the processor.",
        suffix=".onnx",
        write=write,
    )


def _activations(now: Situation) -> Candidates:
    """ReLU, which costs nothing behind a convolution."""
    changed, counts = with_relu(now.ready.original)
    if not counts:
        return
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    variant = replace(now.ready, original=changed)
    yield Candidate(
        "relu",
        f"ReLU in place of {listed}",
        "needs training",
        now.base.dtype,
        lambda: subject_of(variant),
        note="Train the network with ReLU, and export it again: these weights are of no use then.",
    )


def _sizes(now: Situation) -> Candidates:
    """Smaller pictures."""
    ready, image = now.ready, now.ready.contract.picture
    if image is None or now.request.shapes:
        return
    head = ready.contract.head
    stride = max(head.strides) if isinstance(head, DetectHead) and head.strides else _STRIDE
    seen = {image.size}
    for factor in _SIZES:
        size = (_step(image.size[0], factor, stride), _step(image.size[1], factor, stride))
        if size in seen or min(size) < 2 * stride:
            continue
        seen.add(size)
        text = f"{size[0]}x{size[1]}"
        words = f"pictures of {text} in place of {image.size[0]}x{image.size[1]}"
        if _is_free(now):
            request = replace(now.request, size=size)
            name = ready.source.card or ready.source.file
            yield Candidate(
                f"size-{text}",
                words,
                "other size",
                now.base.dtype,
                lambda name=name, request=request: subject_of(resolve(name, request)),  # type: ignore[misc]
                note="Things are smaller then, by as much.",
                options=("--size", text),
            )
            continue
        picture = msgspec.structs.replace(image, size=size)
        sized = replace(ready, contract=msgspec.structs.replace(ready.contract, picture=picture))
        yield Candidate(
            f"size-{text}",
            words,
            "needs an export",
            now.base.dtype,
            lambda sized=sized, size=size: subject_of(sized, at_size(ready.graph(), size)),  # type: ignore[misc]
            note=f"Export it again with an input of {text}; things are smaller then, by as much.",
        )


def _is_free(now: Situation) -> bool:
    """Whether the model takes pictures of any size: its file leaves it free."""
    file = Path(now.ready.source.file)
    graph = load_structure(file) if file.suffix.lower() == ".onnx" else now.ready.original
    shape = summarise(graph).inputs[0].shape
    return len(shape) == 4 and all(isinstance(side, str) for side in shape[2:])


def _step(side: int, factor: float, stride: int) -> int:
    return max(stride, round(side * factor / stride) * stride)


PROPOSALS: dict[str, Callable[[Situation], Candidates]] = {
    "number format": _data_types,
    "form of the head": _head_forms,
    "same numbers by other operators": _same_numbers,
    "end of the model": _end,
    "activation": _activations,
    "input size": _sizes,
}
"""What is tried, by what it changes."""


def _written(path: Path, model: onnx.ModelProto) -> Path:
    with os_errors_explained(f"{path} cannot be written."), atomic_output(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return path


# ---- hints --------------------------------------------------------------------------


def _cores(now: Situation) -> Iterator[str]:
    cores = chips()[now.soc].cores or 1
    if cores > 1:
        yield (
            f"{now.soc} has {cores} NPU cores, and the estimate is of one: stream, serve and the"
            f" pool of bench keep {cores} frames in flight, a core each. That raises the frames a"
            " second, up to what the memory carries, and not the speed of one frame."
        )


def _memory(now: Situation) -> Iterator[str]:
    fit = now.base.fit
    if fit is not None and fit.verdict != "yes":
        words = "does not fit" if fit.verdict == "no" else "fits barely"
        yield (
            f"It needs {fit.need / 2**20:.0f} MiB of the {fit.memory / 2**20:.0f} MiB inside"
            f" {now.soc}, so it {words}: a smaller size, or a smaller network."
        )


def _processor(now: Situation) -> Iterator[str]:
    by_kind: dict[str, list[float]] = {}
    for layer in now.base.on_cpu:
        by_kind.setdefault(layer.op, []).append(layer.rw_kb * 1024 / 1e6)
    if not by_kind:
        return
    kinds = sorted(by_kind.items(), key=lambda pair: -sum(pair[1]))
    listed = ", ".join(f"{len(reads)} {kind} ({sum(reads):.1f} MB)" for kind, reads in kinds)
    yield f"On the processor instead of the NPU, by what they read: {listed}."
    if now.base.latency is not None and now.base.latency.unpriced:
        chip, price = cpu_price(now.soc)
        yield (
            f"Their time is not in the estimate, for no published speed of {now.soc} in"
            f" {now.base.dtype} covers them. The proposals are ranked as if it were {price:.0f} ms"
            f" a megabyte, as on {chip}."
        )


def _hybrid(now: Situation) -> Iterator[str]:
    kept = now.ready.quantise.float_layers
    if now.base.dtype == "int8" and (kept or now.ready.quantise.auto_hybrid):
        count = f"{len(kept)} tensors" if kept else "layers of the toolkit's choice"
        yield (
            f"The recipe of its card keeps {count} in float16, which the estimate leaves out: it"
            " takes longer than that. --plain leaves the recipe out."
        )


def _largest(now: Situation) -> Iterator[str]:
    """One layer that takes a fifth of the time, as the last of a network with many classes does."""
    table, told = now.base.table, now.base.latency
    if table is None or told is None or len(table.work) < _FEW_LAYERS:
        return
    total = sum(told.layers)
    layer, ms = max(zip(table.work, told.layers, strict=True), key=lambda pair: pair[1])
    if total and ms / total >= _LARGE:
        outputs = layer.output_shape[1] if len(layer.output_shape) > 1 else 0
        yield (
            f"{layer.name} alone takes {ms / total:.0%} of the time, for {outputs} channels of"
            " output: a network with fewer (classes, words) saves nearly as much of it."
        )


def _uncalibrated(now: Situation) -> Iterator[str]:
    table = now.base.table
    if table is not None and chip_model(table) is None:
        yield (
            f"For {now.base.dtype} on {now.soc} no speeds are published that an estimate could be"
            " fitted to: times that say at least are those of the compiler's cycles. What has none"
            " (joins, resizes, most activations) costs nothing there, and a change of it shows no"
            " gain."
        )


HINTS: tuple[Callable[[Situation], Iterator[str]], ...] = (
    _processor,
    _memory,
    _hybrid,
    _largest,
    _cores,
    _uncalibrated,
)
"""What is said beside the proposals, without being built."""
