"""Everything that is settled, checked and proved before a build."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.custom_operator import CustomOperator
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import BoxHead, Contract, TensorsHead
from rkzoo.contract.query_detect import QueryDetectHead
from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir, require_space
from rkzoo.graph.lowering.checks import NO_SIGMOID, bare_scores, quantization_info, stops
from rkzoo.graph.lowering.custom import uncarried, with_custom_operators
from rkzoo.graph.lowering.cut_head import bounded_away, keep_head
from rkzoo.graph.lowering.rewrites.rewriting import AppliedRewrite, Rewritten, drawn, rewrite
from rkzoo.graph.lowering.verify import (
    Decode,
    EquivalenceReport,
    drawn_pictures,
    input_tensor,
    verify_equivalence,
)
from rkzoo.graph.lowering.verify_embedding import verify_embedding
from rkzoo.graph.onnx.summary import summarise
from rkzoo.graph.onnx.view import declared
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.soc.chips import chips
from rkzoo.tasks.detect.postprocess import DetectDecoder
from rkzoo.tasks.detect.query import QueryDecoder
from rkzoo.tasks.prompt.prompted import fill_slots
from rkzoo.toolkit import builds, checks
from rkzoo.toolkit.process import is_calibrated
from rkzoo.toolkit.recipe import (
    DEFAULT_VERSION,
    USUAL_MEMORY,
    Calibration,
    Dtype,
    InputPlan,
    MemoryChoice,
    Method,
    Recipe,
    offered,
)
from rkzoo.workflow.compile.ranges import with_own_ranges
from rkzoo.workflow.compile.scores import score_outputs
from rkzoo.workflow.compile.text_calibration import pictures_for
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.calibration_sampling import picked
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.zoo.schema import CalibrationHint

if TYPE_CHECKING:
    import onnx

# Of a graph that was arranged anew: a network of 70 layers adds up its float32 in another order.
_MAX_PROBABILITY = 1e-4


# 32 weights of a channel share a scale: of yolov8n's outputs, found by gdq, scores move by 0.27 at
# most, where one scale a channel lets them move by 0.77 (one picture, 4 of calibration).
_W4A16_METHOD: Method = "group32"


@dataclass(frozen=True)
class Prepared:
    """Everything the toolkit needs, checked; `key` finds it in the cache of builds, where it takes
    `size` bytes. `outputs` are the names of those of the graph, `samples` counts what calibrates
    it, `parameters` its weights. `rewritten` are operators that became others for the toolkit."""

    ready: ResolvedModel
    recipe: Recipe
    calibration: Calibration
    key: str
    proof: EquivalenceReport | None
    outputs: tuple[str, ...] = ()
    samples: int = 0
    size: int = 0
    parameters: int = 0
    rewritten: tuple[AppliedRewrite, ...] = ()


def prepare(
    ready: ResolvedModel,
    socs: Sequence[str],
    dtype: Dtype,
    pictures: calib.CalibrationImages | None,
    toolkit: str | None,
    report: ProgressReporter,
    *,
    count: int | None = None,
    batch: int = 1,
    sizes: Sequence[tuple[int, int]] = (),
    memory: MemoryChoice = USUAL_MEMORY,
    keep: bool = True,
) -> Prepared:
    """Checks everything that can be checked before a build, then proves it, and unless `keep` is
    False stores it in the cache. `count` is how many calibration pictures are wanted of many,
    `batch` how many pictures the model takes at once, `sizes` (height, width) of all pictures
    that it takes where there are several; `memory` is heeded by the build alone.

    Raises one RkzooError that lists all problems.
    """
    ready = _for_chips(ready, socs)
    own = quantization_info(ready.original)
    if own is not None:
        report.note("The model came quantised: its own scales are kept, and nothing is calibrated.")
        pictures = None
    elif dtype == "int8" or ready.quantise.algorithm == "gdq":
        pictures = _pictures(ready, pictures, count, report)
    if not offered(ready.dtypes, dtype):
        raise RkzooError(
            f"{ready.name} is not offered in {dtype}.",
            f"Its card allows {', '.join(ready.dtypes)}.",
            f"Use --dtype {ready.dtypes[0]}, or give the .onnx file itself to insist.",
        )
    if batch > 1 and (ready.contract.picture is None or ready.contract.others):
        raise RkzooError(
            f"{ready.name} cannot be built with --batch {batch}.",
            "It is for models whose only input is a picture.",
            "Leave it out.",
        )
    kept = ready.graph()
    rewritten = rewritten_for(ready, kept, socs, report)
    graph, custom = _carried(rewritten.model, report)
    summary = summarise(graph)
    shapes = {
        tensor.name: tuple(n if isinstance(n, int) else -1 for n in tensor.shape)
        for tensor in summary.inputs
    }
    if ready.contract.texts and dtype == "int8" and ready.prompts is None:
        raise RkzooError(
            f"{ready.name} needs words to be calibrated with.",
            "INT8 ranges depend on what it is told to look for, too.",
            'Give what you will look for, for example --prompt "a red bus" --prompt dog, or use '
            "--dtype fp16.",
        )
    recipe = Recipe(
        soc=socs[0],
        dtype=dtype,
        inputs=input_plans(ready.contract, next(iter(shapes))),
        toolkit=toolkit or DEFAULT_VERSION,
        batch=batch,
        sizes=_sizes(ready, sizes, batch, report),
        memory_plan=memory.plan,
        compute_order=memory.order,
        quantised=own is not None,
        scores=score_outputs(ready.contract, [output.name for output in graph.graph.output])
        if dtype == "int8" and own is None
        else (),
        custom=custom,
        **(_numbers(ready, dtype) if dtype != "fp16" and own is None else {}),
    )
    calibrates = is_calibrated(recipe)
    # Of the graph as it goes to the toolkit: a cut may have freed an output.
    cut = quantization_info(graph) if own is not None else None
    samples = len(pictures) if pictures and calibrates else 0
    problems = dict.fromkeys(
        (*_stopped(ready, graph), *_without_kernel(ready, rewritten.model, graph, socs))
    )
    for soc in socs:
        found = checks.check(
            recipe=msgspec.structs.replace(recipe, soc=soc),
            opset=summary.opset,
            shapes=shapes,
            samples=samples,
            integer_operators=cut.integer if cut else (),
            outputs_read_inside=cut.read_inside if cut else (),
        )
        problems.update(dict.fromkeys(found))
    checks.refuse(list(problems))
    for problem in problems:
        report.note(f"warning: {problem.what} {problem.why} {problem.fix}")
    if dtype == "int8" and ready.quantise.head == "uncut":
        report.note(
            "warning: With its head left on, the model keeps boxes (0..640) and scores (0..1) in "
            "one INT8 tensor: expect that no detection survives. Leave --no-cut out, or use "
            "--dtype fp16."
        )
    if _bare(ready):
        report.note(NO_SIGMOID)
    if dtype == "int8" and isinstance(ready.contract.head, QueryDetectHead):
        report.note(
            "warning: In INT8 such a network picks other queries than in float, and loses objects: "
            "use --dtype fp16, or see with rkzoo compare."
        )
    proof = _proof(ready, kept, report)
    arrays = []
    stored = Calibration()
    if calibrates and pictures is not None:
        arrays = _calibration(ready, pictures, report)
        stored = Calibration(files=pictures.names, sha256=builds.calibration_digest(arrays))
    # Custom operators have the same tensors, and ONNX Runtime does not know them.
    recipe = with_own_ranges(recipe, rewritten.model, arrays if keep else (), report)
    content = graph.SerializeToString()
    size = len(content) + sum(array.nbytes for array in arrays)
    # Kept in the cache, and once more in the toolkit's scratch folder.
    require_space(cache_dir(), 2 * size, "The graph and its calibration")
    key = builds.store(content, arrays, recipe, report=report) if keep else ""
    outputs = tuple(tensor.name for tensor in summary.outputs)
    return Prepared(
        ready,
        recipe,
        stored,
        key,
        proof,
        outputs,
        samples,
        size,
        summary.parameters,
        rewritten.applied,
    )


def rewritten_for(
    ready: ResolvedModel,
    graph: onnx.ModelProto,
    socs: Sequence[str] | None,
    report: ProgressReporter = SILENT,
) -> Rewritten:
    """The graph of a model as the toolkit takes it for these chips, proved equal with drawn
    pictures where it is fed with pictures, and told what was done. Raises RkzooError where its
    opset cannot be lowered."""
    feed, feeds = drawn(graph), []
    image = ready.contract.picture
    for name, info in ((info.name, info) for info in graph.graph.input):
        shape = (1, image.channels, *image.size) if image is not None else ()
        sides = declared(info) or ()
        if name not in feed or feed[name].dtype != np.float32 or len(sides) != len(shape):
            continue
        if image is not None and all(a in (None, b) for a, b in zip(sides, shape, strict=True)):
            pictures = drawn_pictures(image.size, 0)
            feeds = [{**feed, name: input_tensor(picture, image)} for picture in pictures]
            break
    rewritten = rewrite(graph, socs, feeds or [feed])
    for applied in rewritten.applied:
        report.note(applied.sentence())
    for sentence in rewritten.left_out:
        report.note(f"warning: {sentence}")
    return rewritten


def _sizes(
    ready: ResolvedModel, sizes: Sequence[tuple[int, int]], batch: int, report: ProgressReporter
) -> tuple[tuple[int, int], ...]:
    """All sizes of the picture, that of the graph first; none where there is one, which is told.
    Raises RkzooError where the head cannot be read at another size."""
    if not sizes:
        return ()
    head = ready.contract.head
    alone = ready.contract.picture is not None and not ready.contract.others and batch == 1
    if not isinstance(head, DetectHead) or ready.quantise.head == "uncut" or not alone:
        raise RkzooError(
            f"{ready.name} cannot be built with --sizes.",
            "It is for detectors of one picture at a time, whose head is cut.",
            "Leave it out, or convert once for each size.",
        )
    if ready.quantise.float_layers:
        raise RkzooError(
            f"{ready.name} cannot be built with --sizes by its recipe.",
            "The toolkit keeps no layers in float16 in a model of several shapes.",
            "Leave the recipe out with --plain.",
        )
    stride = max(head.strides)
    odd = [size for size in sizes if size[0] % stride or size[1] % stride]
    if odd:
        raise RkzooError(
            f"{ready.name} cannot take pictures of {odd[0][0]}x{odd[0][1]}.",
            f"Its coarsest cells are {stride} pixels wide, and must fill the input.",
            f"Give multiples of {stride}.",
        )
    own = ready.contract.input.size
    every = tuple(dict.fromkeys((own, *sizes)))
    for height, width in dict.fromkeys(size for size in sizes if sizes.count(size) > 1):
        report.note(f"--sizes names {height}x{width} more than once: it is built once.")
    if len(every) == 1:
        report.note(f"--sizes names only {own[0]}x{own[1]}, the model's own: one size is built.")
        return ()
    return every


def _for_chips(ready: ResolvedModel, socs: Sequence[str]) -> ResolvedModel:
    """The model without what a recipe keeps in float16, where a chip has no such numbers."""
    known, how = chips(), ready.quantise
    integer = [soc for soc in socs if soc in known and "fp16" not in known[soc].dtypes]
    if ready.tuned is None or not integer or not (how.float_layers or how.auto_hybrid):
        return ready
    how = msgspec.structs.replace(how, float_layers=(), auto_hybrid=False)
    why = f"Nothing of it stays in float16: {', '.join(integer)} computes in integers only."
    return replace(ready.quantised(how), left_out=f"{ready.left_out} {why}".strip())


def _pictures(
    ready: ResolvedModel,
    pictures: calib.CalibrationImages | None,
    count: int | None,
    report: ProgressReporter,
) -> calib.CalibrationImages | None:
    """What calibrates: of those given, else of those that the card names, as its recipe takes them.
    Says what is tuned."""
    card, tuned = ready.card, ready.tuned
    hint = card.calibration if card else CalibrationHint()
    if pictures is None and hint.folder:
        pictures = calib.find(hint.folder)
    if tuned is not None:
        said = f"{ready.name}: INT8 as tuned for its card: {tuned.words()}; --plain leaves it out."
        report.note(f"{said} {ready.left_out}".rstrip())
        if pictures is not None and count is None:
            pictures = picked(tuned, pictures, report)
    if pictures is not None:
        pictures = calib.choose(pictures, ready.contract, count, hint.count, report)
    return pictures_for(card.name, pictures, report) if card else pictures


def _stopped(ready: ResolvedModel, graph: onnx.ModelProto) -> list[checks.Problem]:
    """What the toolkit refuses in the graph, or leaves out."""
    there = {name for node in ready.original.graph.node for name in node.output}
    problems = []
    for stop in stops(graph):
        ends = [name for name in stop.outputs if name in there]
        fix = end_before(ready, ends) if ends else "Export the model without it."
        if stop.operator is None:
            what = f"The output {stop.where} does not depend on any input."
            why = "The toolkit leaves such an output out without a word."
        else:
            what = f"The toolkit refuses the operator {stop.operator} ({stop.where})."
            why = "It takes no branches, no loops, and nothing whose shape depends on the numbers."
            if stop.operator == "LSTM":
                why = (
                    "It crashes on peepholes (P) and on input_forget, which rkzoo writes out for "
                    "at most 64 steps."
                )
        problems.append(checks.Problem(what, why, fix))
    return problems


def _carried(
    graph: onnx.ModelProto, report: ProgressReporter
) -> tuple[onnx.ModelProto, tuple[CustomOperator, ...]]:
    """A graph with custom operators for what has no kernel, which are told."""
    graph, custom = with_custom_operators(graph)
    for operator in custom:
        report.note(f"warning: {operator.sentence()}")
    return graph, custom


def _without_kernel(
    ready: ResolvedModel, before: onnx.ModelProto, graph: onnx.ModelProto, socs: Sequence[str]
) -> list[checks.Problem]:
    """Operators that nothing computes on one of these chips: `graph` is the model with custom
    operators, `before` without."""
    there = {name for node in ready.original.graph.node for name in node.output}
    small = [soc for soc in socs if not chips()[soc].takes_custom]
    nodes, other = uncarried(graph), "rkzoo cannot carry it as a custom operator"
    if small:
        nodes = uncarried(before)
        other = f"the library of {', '.join(small)} takes no custom operators"
    why = f"RKNN-Toolkit2 has no kernel for it, and {other}."
    first: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        first.setdefault(node.op_type, node)
    problems = []
    for operator, node in first.items():
        ends = [name for name in node.input if name in there]
        fix = end_before(ready, ends) if ends else "Export the model without it."
        what = f"Nothing computes the operator {operator} ({node.name or node.output[0]})."
        problems.append(checks.Problem(what, why, fix))
    return problems


def end_before(ready: ResolvedModel, outputs: Sequence[str]) -> str:
    """How to end a model at inner tensors."""
    listed = f"`outputs: [{', '.join(outputs)}]`"
    if ready.card is not None:
        return f"End the model before it, with {listed} in its card."
    file = shlex.quote(ready.source.file)
    return (
        f"End the model before it: rkzoo card new {file} --raw writes a card, which takes {listed}."
    )


def _calibration(
    ready: ResolvedModel, pictures: calib.CalibrationImages, report: ProgressReporter
) -> list[Any]:
    """What calibrates each input, stacked."""
    contract = ready.contract
    if isinstance(contract.head, TensorsHead):
        return calib.sample_arrays(pictures, contract, report)
    stacks: list[Any] = []
    if contract.picture is not None:
        stacks.append(calib.arrays(pictures, contract.picture, report))
    return [*stacks, *(_repeated(ready, other, len(pictures)) for other in contract.others)]


def input_plans(contract: Contract, picture: str) -> tuple[InputPlan, ...]:
    """The inputs as the toolkit is told about them; `picture` is the name of the first, where
    that is a picture."""
    image = contract.picture
    others = [
        InputPlan(name=other.name, shape=other.shape, dtype=other.dtype)
        for other in contract.others
    ]
    if image is None:
        return tuple(others)
    shape = (1, image.channels, *image.size)
    return (InputPlan(name=picture, shape=shape, mean=image.mean, std=image.std), *others)


def _numbers(ready: ResolvedModel, dtype: Dtype) -> dict[str, Any]:
    """The part of a recipe that only what is quantised has. What was found for INT8 says nothing
    of 4-bit weights."""
    how = ready.quantise
    if dtype == "w4a16":
        method = how.method if how.method.startswith("group") else _W4A16_METHOD
        return {"algorithm": how.algorithm or "normal", "method": method}
    return {
        "algorithm": how.algorithm or ready.algorithm,
        "method": how.method,
        "auto_hybrid": how.auto_hybrid,
        "float_layers": how.float_layers,
    }


def _repeated(ready: ResolvedModel, other: ArrayInput, count: int) -> NDArray[Any]:
    """What goes into an input beside the picture, for each of `count` calibration pictures."""
    if other.role != "texts" or ready.prompts is None:
        raise RkzooError(f"Nothing is known to calibrate the input {other.name} with.", code=1)
    values = fill_slots(ready.prompts, other)
    return np.broadcast_to(values, (count, *values.shape[1:]))


def _bare(ready: ResolvedModel) -> bool:
    """Whether the scores leave the user's own graph before their sigmoid."""
    return ready.recognition is not None and bare_scores(ready.recognition)


def _proof(
    ready: ResolvedModel, graph: onnx.ModelProto, report: ProgressReporter
) -> EquivalenceReport | None:
    recognition, picture = ready.recognition, ready.contract.picture
    if recognition is not None and recognition.difference is not None:
        return arranged(recognition.difference, report)
    if isinstance(ready.contract.head, VectorHead) and picture is not None:
        return arranged(lambda: verify_embedding(ready.original, graph, picture), report)
    if not ready.is_cut or recognition is None or recognition.uncut is None:
        return None
    with report.task("Proving the cut equal to the whole graph"):
        return verify_equivalence(
            ready.original,
            graph,
            recognition,
            _reader(ready.contract, graph),
            _reader(recognition.uncut, keep_head(ready.original, recognition)),
            allowed=bounded_away(ready.contract.head) if ready.quantise.head == "bounded" else 0.0,
        )


def arranged(
    difference: Callable[[], float | None], report: ProgressReporter
) -> EquivalenceReport | None:
    """The proof of a graph that was arranged anew or ends at its embedding, by how far its scores,
    or numbers in shares of the largest, differ; None where it is the file's own. Raises
    RkzooError."""
    with report.task("Proving the graph equal to the one in the file"):
        score = difference()
    if score is None:
        return None
    if not score <= _MAX_PROBABILITY:
        raise RkzooError(
            "The graph that would be built does not compute what the file computes.",
            f"Their outputs differ by {score:.1e}, on the same numbers in ONNX Runtime.",
            "Add --raw for plain tensors, and report the file.",
        )
    return EquivalenceReport(0.0, score, 2, 0, 1.0)


def _reader(contract: Contract, graph: onnx.ModelProto) -> Decode:
    """What the outputs of a graph mean, cell by cell."""
    head = contract.head
    if not isinstance(head, BoxHead):
        raise RkzooError(f"{contract.family} has no detection head.", code=1)
    with OnnxSession(graph.SerializeToString(), contract.input) as session:
        by_name = {spec.name: spec for spec in session.outputs}
    specs = [by_name[output.name] for output in head.outputs]
    if isinstance(head, DetectHead):
        return DetectDecoder(head, contract.input.size, specs).dense
    return QueryDecoder(head, contract.input.size, specs).dense
