"""Estimate of latency and memory on each chip, without a board.

The toolkit builds the model, its compiler reports the cost of each layer, and rkzoo.speed.latency
converts that to milliseconds. Costs do not depend on values, so INT8 ranges come from noise, and no
calibration images are needed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir, package_digest, sha256_of
from rkzoo.graph.lowering.checks import QuantizationInfo, quantization_info
from rkzoo.graph.lowering.custom import with_custom_operators
from rkzoo.graph.lowering.rewrites.rewriting import rewrite
from rkzoo.graph.onnx.opset import MAX_OPSET
from rkzoo.graph.onnx.read import load, parse
from rkzoo.graph.onnx.summary import summarise
from rkzoo.json_values import to_json_value
from rkzoo.kept import keep, kept
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.soc.chips import chips, supported
from rkzoo.soc.chips import resolve as chip_name
from rkzoo.speed.latency import (
    ChipModel,
    Latency,
    chip_model,
    cpu_layers,
    latency,
    latency_model,
    traffic,
)
from rkzoo.speed.memory import MemoryFit, fit
from rkzoo.speed.operators import CpuFallback, cpu_fallbacks
from rkzoo.speed.table import CostTable, cost_table
from rkzoo.toolkit import builds, checks, environment
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.toolkit.process import ModelRefused, ToolkitProcess, is_calibrated
from rkzoo.toolkit.recipe import DEFAULT_VERSION, Dtype, InputPlan, Recipe
from rkzoo.workflow.compile.prepare import input_plans
from rkzoo.workflow.request.importers.registry import as_onnx, is_model_file
from rkzoo.workflow.request.options import Anchors
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.workflow.request.resolved import ResolvedModel

if TYPE_CHECKING:
    import onnx

SYNTHETIC = (
    "The INT8 ranges come from noise instead of pictures: they decide no layer's cost, but the"
    " file is of no other use and is thrown away."
)
CALIBRATED = (
    "Estimated from the compiler's table of layers by a model fitted to the vendor's published"
    " speeds, not measured on a board: inference alone, one NPU core, highest clocks, and nothing"
    " else on the memory."
)
UNCALIBRATED = (
    "uncalibrated: the vendor publishes no speed for it, so there are cycles, and a time that it"
    " takes at least"
)
COSTLIEST = 10
_MEAN, _STD = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)


@dataclass(frozen=True)
class Cost:
    """Cost of one layer. `ms` is its share of the estimate (of the lower bound, where
    uncalibrated)."""

    name: str
    op: str
    target: str
    output: tuple[int, ...]
    ms: float


@dataclass(frozen=True)
class Estimate:
    """Estimate for one chip.

    Attributes:
        soc, dtype: target.
        built_for: chip that was built for; chips of a family share it.
        expected: operators known to be unsupported by the NPU.
        problem: why the model cannot be built for the chip; the fields below are then empty.
        table: costs reported by the compiler.
        latency: estimated latency.
        traffic: megabytes per frame.
        fit: memory verdict.
        on_cpu: layers that run on the CPU.
        costliest: the most expensive layers.
    """

    soc: str
    dtype: Dtype
    built_for: str
    expected: tuple[CpuFallback, ...]
    problem: RkzooError | None = None
    table: CostTable | None = None
    latency: Latency | None = None
    traffic: float = 0.0
    fit: MemoryFit | None = None
    on_cpu: tuple[LayerCost, ...] = ()
    costliest: tuple[Cost, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Estimate as JSON types; `error` instead of the figures where the chip has a `problem`."""
        document: dict[str, Any] = to_json_value(self._document())
        return document

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "soc": self.soc,
            "dtype": self.dtype,
            "built_for": self.built_for,
            "expected_on_cpu": [asdict(fallback) for fallback in self.expected],
        }
        if self.table is None or self.latency is None:
            return document | {"error": self.problem.to_json() if self.problem else None}
        latency, table = self.latency, self.table
        return document | {
            "calibrated": latency.ms is not None,
            "ms": _short(latency.ms),
            "ms_low": _short(latency.low),
            "ms_high": _short(latency.high),
            "fps": _short(1000 / latency.ms) if latency.ms else None,
            "mega_cycles": _short(latency.cycles),
            "ms_at_least": _short(latency.bound),
            "cpu_layers_not_in_ms": latency.unpriced,
            "toolkit": table.toolkit,
            "weight_bytes": table.weights,
            "internal_bytes": table.internal,
            "rknn_bytes": table.size,
            "traffic_mb_per_frame": _short(self.traffic),
            "fits_memory": asdict(self.fit) if self.fit else None,
            "layers": len(table.work),
            "on_cpu": [
                {"op": layer_cost.op, "name": layer_cost.name} for layer_cost in self.on_cpu
            ],
            "costliest": [asdict(cost) | {"ms": _short(cost.ms)} for cost in self.costliest],
        }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


class GraphFacts(StrictStruct, frozen=True):
    """What is needed of a graph to look its results up in the cache. `key` digests everything that
    decides them, except for chip, dtype and toolkit.
    """

    name: str
    dtypes: tuple[Dtype, ...]
    operators: tuple[str, ...]
    key: str

    def digest(self, dtype: Dtype, soc: str, toolkit: str) -> str:
        """Cache key of one build."""
        return _digest(self.key, dtype, soc, toolkit)


@dataclass(frozen=True)
class EstimateSubject:
    """The graph, before it is rewritten for a chip. `integer`: which inputs are integer; `opset` as
    the toolkit gets it; `quantised` is set for pre-quantized graphs.
    """

    known: GraphFacts
    graph: bytes
    inputs: tuple[InputPlan, ...]
    integer: tuple[bool, ...]
    opset: int
    shapes: dict[str, tuple[int, ...]]
    quantised: QuantizationInfo | None = None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def estimate(
    model: str | os.PathLike[str],
    socs: Sequence[str],
    request: Request | None = None,
    *,
    report: ProgressReporter = SILENT,
) -> list[Estimate]:
    """Estimate a card's model or an `.onnx` file on each chip.

    The detection head is cut as by `convert`; an unrecognized graph is used as is.

    Args:
        model: card name or file.
        socs: target chips.
        request: its dtype (None for the model's first that the chip supports), toolkit, size,
            shapes and anchors count.
        report: receives progress.

    Raises:
        RkzooError: the model cannot be read, or, for a single chip, not be built; among several
            chips that is the `problem` of one.
    """
    request = request or Request()
    request.refuse_all_but(
        {"dtype", "toolkit", "size", "shapes", "raw", "fit", "anchors"}, "rkzoo estimate"
    )
    names = list(dict.fromkeys(chip_name(name) for name in socs))
    release = request.toolkit or DEFAULT_VERSION
    dtype: Dtype | None = request.dtype  # type: ignore[assignment]
    source = os.fspath(model)
    memo = _memo(source, request.size, request.pairs)
    known = _read(memo, GraphFacts) if memo else None
    subject = None
    if known is None:
        subject = read_subject(source, request, report)
        known = subject.known
        if memo:
            keep(memo, msgspec.json.encode(known))
    pairs = [(soc, dtype or _dtype(known, soc)) for soc in names]
    tables: dict[tuple[str, Dtype], CostTable | RkzooError] = {}
    missing = []
    for soc, kind in dict.fromkeys((_built_for(soc), kind) for soc, kind in pairs):
        table = _read(_place(known.digest(kind, soc, release)), CostTable, report)
        if table is not None:
            tables[soc, kind] = table
        else:
            missing.append((soc, kind))
    if missing:
        for text in _warnings(known, pairs):
            report.note(text)
        subject = subject or read_subject(source, request, report)
        tables |= _build_all(subject, missing, release, report)
    estimates = [_estimate(known, soc, kind, tables[_built_for(soc), kind]) for soc, kind in pairs]
    if len(estimates) == 1 and estimates[0].problem is not None:
        raise estimates[0].problem
    return estimates


def estimate_subject(
    subject: EstimateSubject,
    soc: str,
    dtype: Dtype,
    toolkit: str | None = None,
    report: ProgressReporter = SILENT,
) -> Estimate:
    """Estimate one graph on one chip; where it cannot be built, the estimate's `problem` says why.

    Both are kept in the cache: an estimate, and that the toolkit refused the graph.
    """
    release, built_for = toolkit or DEFAULT_VERSION, _built_for(soc)
    digest = subject.known.digest(dtype, built_for, release)
    value: CostTable | RkzooError | None = _read(_place(digest), CostTable, report)
    if value is None:
        refused = _place(_digest(digest, "refused"))
        words = _read(refused, dict[str, str], report)
        if words:
            value = RkzooError(words["what"], words["why"], words["fix"], code=1)
        if value is None:
            value = _build_all(subject, [(built_for, dtype)], release, report)[built_for, dtype]
            if isinstance(value, ModelRefused):
                said = {"what": value.what, "why": value.why, "fix": value.fix}
                keep(refused, msgspec.json.encode(said))
    return _estimate(subject.known, soc, dtype, value)


def default_dtype(subject: EstimateSubject, soc: str) -> Dtype:
    """The model's first number format that the chip has."""
    return _dtype(subject.known, soc)


def every_chip() -> tuple[str, ...]:
    """The chips that `--soc all` stands for."""
    return supported()


def basis() -> dict[str, Any]:
    """Origin of the estimates: date, toolkit and errors of the fit, by number format and chip."""
    model = latency_model()
    return {
        "source": model.source,
        "toolkit": model.toolkit,
        "date": model.date,
        "chips": _errors(model.chips),
        "fp16": _errors(model.fp16),
    }


def _errors(models: dict[str, ChipModel]) -> dict[str, dict[str, Any]]:
    return {
        soc: {
            "networks": len(chip_model.points),
            "left_out_median_error": chip_model.median_error,
            "left_out_worst_error": chip_model.worst_error,
            "family_left_out_median_error": chip_model.family_median_error,
            "interval_coverage": chip_model.coverage,
            "family_left_out_interval_coverage": chip_model.family_coverage,
        }
        for soc, chip_model in models.items()
    }


def _warnings(known: GraphFacts, pairs: Sequence[tuple[str, Dtype]]) -> list[str]:
    """Warnings from the graph before anything is built, one line per operator."""
    document: dict[CpuFallback, list[str]] = {}
    for soc, dtype in pairs:
        for fallen in cpu_fallbacks(known.operators, soc, dtype):
            document.setdefault(fallen, []).append(soc)
    return [f"warning: {fallen.describe()} (on {', '.join(on)})" for fallen, on in document.items()]


def _dtype(known: GraphFacts, soc: str) -> Dtype:
    able = chips()[soc].dtypes
    return next((dtype for dtype in known.dtypes if dtype in able), known.dtypes[0])


def _built_for(soc: str) -> str:
    """Representative chip of a family: its members share tables and compiled models."""
    family = chips()[soc].family
    return next((name for name, chip in chips().items() if family and chip.family == family), soc)


# ---- the graph ----------------------------------------------------------------------


def read_subject(
    model: str, request: Request | None = None, report: ProgressReporter = SILENT
) -> EstimateSubject:
    """Finds the model, and cuts its head where there is one that is known."""
    if Path(model).suffix.lower() == ".rknn":
        raise RkzooError(
            f"{model} is built already.",
            "The compiler reports costs during the build, and they differ from chip to chip.",
            "Give the .onnx that it was made from.",
        )
    request = request or Request()
    try:
        ready = resolve(model, request, report=report)
    except RkzooError as error:
        if request.pairs is not None or not is_model_file(model):
            raise
        original = load(as_onnx(Path(model), report, size=request.size))
        report.note(f"{error.what} The whole graph is estimated as it stands.")
        return _as_it_stands(Path(model).stem, original, request.size)
    return subject_of(ready)


def subject_of(ready: ResolvedModel, graph: onnx.ModelProto | None = None) -> EstimateSubject:
    """A model, or another `graph` with its inputs; rewritten for a chip when it is built. Raises
    RkzooError."""
    graph = ready.graph() if graph is None else graph
    plans = input_plans(ready.contract, summarise(graph).inputs[0].name)
    return _subject(ready.name, graph, plans, ready.dtypes)


def _as_it_stands(
    name: str, graph: onnx.ModelProto, size: tuple[int, int] | None
) -> EstimateSubject:
    """Use an unrecognized graph as is. Dynamic dimensions become `size`, or 1 for the batch."""
    plans = []
    for tensor in summarise(graph).inputs:
        shape = [n if isinstance(n, int) else -1 for n in tensor.shape]
        picture = len(shape) == 4 and shape[1] == 3
        if shape and shape[0] == -1:
            shape[0] = 1
        if picture and size is not None and -1 in shape:
            shape[2:] = size
        if -1 in shape or not shape:
            raise RkzooError(
                f"The input {tensor.name} of {name} has no fixed shape.",
                f"It is declared as {' x '.join(map(str, tensor.shape))}.",
                "Give --size HxW, or export the model with fixed shapes.",
            )
        plans.append(
            InputPlan(
                name=tensor.name,
                shape=tuple(shape),
                mean=_MEAN if picture else (),
                std=_STD if picture else (),
            )
        )
    return _subject(name, graph, tuple(plans), ("int8", "fp16"))


def _subject(
    name: str, graph: onnx.ModelProto, inputs: tuple[InputPlan, ...], dtypes: tuple[Dtype, ...]
) -> EstimateSubject:
    graph_summary = summarise(graph)
    rewritten = summarise(rewrite(graph, proved=False).model)
    data = graph.SerializeToString(deterministic=True)
    return EstimateSubject(
        known=GraphFacts(
            name=name,
            dtypes=dtypes,
            operators=tuple(operator for operator, _ in rewritten.operators),
            key=_digest(package_digest(), repr(inputs), hashlib.sha256(data).hexdigest()),
        ),
        graph=data,
        inputs=inputs,
        integer=tuple("int" in tensor.dtype for tensor in graph_summary.inputs),
        opset=min(graph_summary.opset, MAX_OPSET),
        shapes={
            tensor.name: tuple(n if isinstance(n, int) else -1 for n in tensor.shape)
            for tensor in graph_summary.inputs
        },
        quantised=quantization_info(graph),
    )


# ---- building -----------------------------------------------------------------------


def _build_all(
    subject: EstimateSubject,
    requested: Sequence[tuple[str, Dtype]],
    toolkit: str,
    report: ProgressReporter,
) -> dict[tuple[str, Dtype], CostTable | RkzooError]:
    """Build in parallel processes; an error that concerns one chip is returned for it."""
    env = environment.ensure(toolkit, report=report)
    running: list[ToolkitProcess] = []
    ended = threading.Event()

    def one(soc: str, dtype: Dtype) -> CostTable | RkzooError:
        try:
            inputs = build_inputs(subject, soc, dtype, toolkit)
            with ToolkitProcess(env, report=report) as process:
                running.append(process)
                build_report = process.build(inputs, process.folder / "estimate.rknn")
                table = cost_table(build_report, dtype)
        except RkzooError as error:
            if ended.is_set():
                raise
            return error
        place = _place(subject.known.digest(dtype, soc, toolkit))
        keep(place, msgspec.json.encode(table))
        return table

    with ThreadPoolExecutor(max(1, min(len(requested), os.cpu_count() or 1))) as pool:
        jobs = {pair: pool.submit(one, *pair) for pair in requested}
        try:
            return {pair: job.result() for pair, job in jobs.items()}
        except BaseException:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()
            raise


def build_inputs(subject: EstimateSubject, soc: str, dtype: Dtype, toolkit: str) -> BuildInputs:
    """Checked and cached build inputs. Raises RkzooError."""
    recipe = Recipe(
        soc=soc,
        dtype=dtype,
        inputs=subject.inputs,
        toolkit=toolkit,
        quantised=subject.quantised is not None,
    )
    own = subject.quantised
    problems = checks.check(
        recipe=recipe,
        opset=subject.opset,
        shapes=subject.shapes,
        # One noise sample suffices here, without a warning.
        samples=checks.FEW_SAMPLES,
        integer_operators=own.integer if own else (),
        outputs_read_inside=own.read_inside if own else (),
    )
    checks.refuse(problems)
    pairs = zip(subject.inputs, subject.integer, strict=True)
    arrays = [_noise(plan, integer) for plan, integer in pairs] if is_calibrated(recipe) else []
    graph = rewrite(parse(subject.graph), [soc], proved=False).model
    if chips()[soc].takes_custom:
        graph, custom = with_custom_operators(graph)
        recipe = msgspec.structs.replace(recipe, custom=custom)
    key = builds.store(graph.SerializeToString(), arrays, recipe)
    build_inputs = builds.find(key)
    if build_inputs is None:
        raise RkzooError("The inputs of the build have gone from the cache.", "", "Run it again.")
    return replace(build_inputs, recipe=recipe)


def _noise(plan: InputPlan, integer: bool) -> NDArray[Any]:
    """One sample: a noise image (1, H, W, 3), else small random numbers, or zeros for integers,
    which are mostly table indices.
    """
    random = np.random.default_rng(0)
    if plan.mean:
        _, channels, height, width = plan.shape
        return random.integers(0, 256, (1, height, width, channels), np.uint8)
    if integer:
        return np.zeros((1, *plan.shape), np.int64)
    return random.standard_normal((1, *plan.shape)).astype(np.float32)


def _place(digest: str) -> Path:
    return cache_dir("estimates") / f"{digest}.json"


def _memo(model: str, size: tuple[int, int] | None, anchors: Anchors | None) -> Path | None:
    """Cache file of what a model file was read to, so that it need not be read again; None for
    anything that is not a readable file.
    """
    path = Path(model)
    if not is_model_file(model) or not path.is_file():
        return None
    key_parts = (package_digest(), repr(size), repr(anchors), path.stem, sha256_of(path))
    return _place(_digest(*key_parts))


T = TypeVar("T")


def _read(path: Path, kind: type[T], report: ProgressReporter = SILENT) -> T | None:
    """A cached result; None where missing or damaged."""
    data = kept(path, report)
    return None if data is None else msgspec.json.decode(data, type=kind)


# ---- the answer ---------------------------------------------------------------------


def _estimate(known: GraphFacts, soc: str, dtype: Dtype, value: CostTable | RkzooError) -> Estimate:
    start = Estimate(soc, dtype, _built_for(soc), cpu_fallbacks(known.operators, soc, dtype))
    if isinstance(value, RkzooError):
        return replace(start, problem=value)
    # Use the clock of the requested chip.
    predicted = latency(msgspec.structs.replace(value, soc=soc), chip_model(value))
    ranked = sorted(zip(value.work, predicted.layers, strict=True), key=lambda pair: -pair[1])
    return replace(
        start,
        table=value,
        latency=predicted,
        traffic=traffic(value),
        fit=fit(value, soc),
        on_cpu=cpu_layers(value),
        costliest=tuple(
            Cost(layer.name, layer.op, layer.target, layer.output_shape, ms)
            for layer, ms in ranked[:COSTLIEST]
        ),
    )
