"""Everything that is settled, checked and proved before a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.graph.lowering.checks import NO_SIGMOID, bare_scores, quantisation
from rkzoo.graph.lowering.cut_head import BOUNDED_AWAY, whole
from rkzoo.graph.lowering.verify import Decode, Proof, prove
from rkzoo.graph.onnx.summary import summarise
from rkzoo.progress import Reporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.detect.decode import DetectDecoder
from rkzoo.tasks.prompt.prompted import filled
from rkzoo.toolkit import builds, checks
from rkzoo.toolkit.recipe import DEFAULT_VERSION, Calibration, Dtype, InputPlan, Recipe
from rkzoo.workflow.compile.scores import score_outputs
from rkzoo.workflow.compile.text_calibration import pictures_for
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.resolved import Resolved

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Prepared:
    """Everything the toolkit needs, checked; `key` finds it in the cache of builds."""

    ready: Resolved
    recipe: Recipe
    calibration: Calibration
    key: str
    proof: Proof | None


def prepare(
    ready: Resolved,
    socs: Sequence[str],
    dtype: Dtype,
    pictures: calib.Pictures | None,
    toolkit: str | None,
    report: Reporter,
) -> Prepared:
    """Checks everything that can be checked before a build, then proves and stores it.

    Raises one RkzooError that lists all problems.
    """
    own = quantisation(ready.original)
    if own is not None:
        report.note("The model came quantised: its own scales are kept, and nothing is calibrated.")
        pictures = None
    elif dtype == "int8" and ready.card is not None:
        pictures = pictures_for(ready.card.name, pictures, report)
    if dtype not in ready.dtypes:
        raise RkzooError(
            f"{ready.name} is not offered in {dtype}.",
            f"Its card allows {', '.join(ready.dtypes)}.",
            f"Use --dtype {ready.dtypes[0]}, or give the .onnx file itself to insist.",
        )
    graph = ready.graph()
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
        quantised=own is not None,
        scores=score_outputs(ready.contract, [one.name for one in graph.graph.output])
        if dtype == "int8" and own is None
        else (),
        **(_numbers(ready) if dtype == "int8" and own is None else {}),
    )
    # Of the graph as it goes to the toolkit: a cut may have freed an output.
    cut = quantisation(graph) if own is not None else None
    samples = len(pictures) if pictures and dtype == "int8" else 0
    problems: dict[checks.Problem, None] = {}
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
    proof = _proof(ready, graph, report)
    arrays = []
    stored = Calibration()
    if dtype == "int8" and pictures is not None:
        arrays = _calibration(ready, pictures, report)
        stored = Calibration(files=pictures.names, sha256=builds.calibration_digest(arrays))
    key = builds.store(graph.SerializeToString(), arrays, recipe)
    return Prepared(ready, recipe, stored, key, proof)


def _calibration(ready: Resolved, pictures: calib.Pictures, report: Reporter) -> list[Any]:
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
    others = [InputPlan(name=one.name, shape=one.shape, dtype=one.dtype) for one in contract.others]
    if image is None:
        return tuple(others)
    shape = (1, image.channels, *image.size)
    return (InputPlan(name=picture, shape=shape, mean=image.mean, std=image.std), *others)


def _numbers(ready: Resolved) -> dict[str, Any]:
    """The part of a recipe that INT8 alone has."""
    how = ready.quantise
    return {
        "algorithm": how.algorithm or ready.algorithm,
        "method": how.method,
        "auto_hybrid": how.auto_hybrid,
        "float_layers": how.float_layers,
    }


def _repeated(ready: Resolved, other: ArrayInput, count: int) -> NDArray[Any]:
    """What goes into an input beside the picture, for each of `count` calibration pictures."""
    if other.role != "texts" or ready.prompts is None:
        raise RkzooError(f"Nothing is known to calibrate the input {other.name} with.", code=1)
    values = filled(ready.prompts, other)
    return np.broadcast_to(values, (count, *values.shape[1:]))


def _bare(ready: Resolved) -> bool:
    """Whether the scores leave the user's own graph before their sigmoid."""
    return ready.recognition is not None and bare_scores(ready.recognition)


def _proof(ready: Resolved, graph: onnx.ModelProto, report: Reporter) -> Proof | None:
    found = ready.recognition
    if not ready.is_cut or found is None or found.uncut is None:
        return None
    with report.task("Proving the cut equal to the whole graph"):
        return prove(
            ready.original,
            graph,
            found,
            _reader(ready.contract, graph),
            _reader(found.uncut, whole(ready.original, found)),
            allowed=BOUNDED_AWAY if ready.quantise.head == "bounded" else 0.0,
        )


def _reader(contract: Contract, graph: onnx.ModelProto) -> Decode:
    """What the outputs of a graph mean, cell by cell."""
    if not isinstance(contract.head, DetectHead):
        raise RkzooError(f"{contract.family} has no detection head.", code=1)
    with OnnxSession(graph.SerializeToString(), contract.input) as session:
        by_name = {spec.name: spec for spec in session.outputs}
    specs = [by_name[output.name] for output in contract.head.outputs]
    return DetectDecoder(contract.head, contract.input.size, specs).dense
