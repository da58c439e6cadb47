"""YOLO-World recognizer for Rockchip's export: an image and text embeddings in, score and box per
level out, the box as four distances.

https://arxiv.org/abs/2401.17270. Each text is a class, so a score has one channel per text slot.
Between the texts and a score there are no weights to stop at, so only the box outputs are probed; a
score must depend on the texts and end in at most one sigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ArrayInput
from rkzoo.graph.families.branches import Float, contract, is_close, probe, stride, times
from rkzoo.graph.families.head_postprocessing import Branch, head_postprocessing
from rkzoo.graph.families.recognition import HeadTensor, ImageSource, Recognition
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

# Operators that only rearrange values, and those that may end a score without sigmoid.
_ARRANGING = frozenset({"Reshape", "Transpose", "Identity", "Cast", "Squeeze", "Unsqueeze"})
_RAW = frozenset({"Add", "Mul", "Div", "Sub", "Einsum", "MatMul", "Conv", "BatchNormalization"})


@dataclass(frozen=True)
class _Output:
    """An output: a box (`bins` per side before the DFL) or a score (0 bins)."""

    branch: Branch
    bins: int = 0
    activated: bool = True


def rockchip(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize score 1xSxhxw and box 1x4xhxw per level, in any order."""
    if len(picture.others) != 1:
        return f"it has {len(picture.others)} inputs beside the image and not only the texts"
    (texts,) = picture.others
    outputs = []
    for output in view.model.graph.output:
        world_output = _output(view, output.name, texts)
        if isinstance(world_output, str):
            return world_output
        outputs.append(world_output)
    levels = _levels(outputs, texts)
    if isinstance(levels, str):
        return levels
    strides = []
    for _, score in levels:
        step = stride(score.branch, picture)
        if isinstance(step, str):
            return step
        strides.append(step)
    sizes = [score.branch.shape[2:] for _, score in levels]
    head = DetectHead(
        outputs=tuple(
            HeadOutput(
                name=output.branch.name,
                role="box" if output.bins else "score",
                level=sizes.index(output.branch.shape[2:]),
            )
            for output in outputs
        ),
        classes=texts.shape[1],
        reg_max=1,
        strides=tuple(strides),
        activated=outputs[0].activated,
        coding="distance",
    )
    return Recognition(
        family="yolo-world",
        form="vendor-6",
        contract=contract("yolo-world", picture, head),
        head_tensors=tuple(
            HeadTensor(
                output.branch.name, "box" if output.bins else "score", level, output.branch.shape
            )
            for level, pair in enumerate(levels)
            for output in pair
        ),
        evidence=_evidence(levels, strides, texts),
    )


def _levels(outputs: list[_Output], texts: ArrayInput) -> list[tuple[_Output, _Output]] | str:
    """(box, score) of each level, the finest first."""
    by_size: dict[tuple[int, ...], list[_Output]] = {}
    for output in outputs:
        by_size.setdefault(output.branch.shape[2:], []).append(output)
    levels = []
    for size in sorted(by_size, key=lambda size: -size[0] * size[1]):
        boxes = [output for output in by_size[size] if output.bins]
        scores = [output for output in by_size[size] if not output.bins]
        if len(boxes) != 1 or len(scores) != 1:
            return (
                f"its {times(size)} level has {len(boxes)} boxes and {len(scores)} scores, where "
                "there would be one of each"
            )
        if scores[0].branch.shape[1] != texts.shape[1]:
            return (
                f"its scores have {scores[0].branch.shape[1]} channels but there are "
                f"{texts.shape[1]} texts"
            )
        levels.append((boxes[0], scores[0]))
    if len({(box.bins, score.activated) for box, score in levels}) != 1:
        return "its levels are not all of one kind"
    return levels


def _output(view: GraphView, name: str, texts: ArrayInput) -> _Output | str:
    shape = view.shape(name)
    if shape is None or len(shape) != 4 or shape[0] != 1:
        return "its outputs are not maps 1xCxhxw of boxes and scores"
    branch = Branch(name, shape)
    bins = _bins(view, branch)
    if bins:
        return _Output(branch, bins)
    last = _last(view, name)
    if last != "Sigmoid" and last not in _RAW:
        return f"its output of {times(shape)} is neither four distances nor scores"
    if not _depends(view, name, texts.name):
        return f"its output of {times(shape)} is not compared with the texts"
    return _Output(branch, activated=last == "Sigmoid")


def _bins(view: GraphView, branch: Branch) -> int:
    """Bins per side of a box output; 0 where the output is no box."""
    if branch.shape[1] != 4:
        return 0
    end = head_postprocessing(view, [branch.name])
    if isinstance(end, str) or len(end.branches) != 1:
        return 0
    source = end.branches[0]
    if len(source.shape) != 4 or source.shape[1] % 4 or source.shape[2:] != branch.shape[2:]:
        return 0
    values = probe(end.branches, seed=0)
    try:
        (answer,) = end(values)
    except CannotRun:
        return 0
    return source.shape[1] // 4 if is_close(answer, _distances(values[source.name])) else 0


def _distances(logits: Array) -> Float:
    """Distances 1x4xhxw in cells: the mean of each side's distribution (DFL)."""
    bins = logits.astype(np.float64).reshape(1, 4, -1, *logits.shape[2:])
    if bins.shape[2] == 1:
        return np.asarray(bins[:, :, 0], np.float64)
    weight = np.exp(bins - bins.max(axis=2, keepdims=True))
    weight /= weight.sum(axis=2, keepdims=True)
    return np.asarray(np.einsum("nsbhw,b->nshw", weight, np.arange(bins.shape[2])), np.float64)


def _last(view: GraphView, name: str) -> str:
    """The operator that computes the values of an output, before any rearranging."""
    while (node := view.producers.get(name)) is not None and node.op_type in _ARRANGING:
        name = node.input[0]
    return node.op_type if node is not None else ""


def _depends(view: GraphView, name: str, source: str) -> bool:
    """Whether `source` enters after the last convolution; the texts reach the features before it
    too, which does not make an output a score.
    """
    todo, known = [name], {name}
    while todo:
        node = view.producers.get(todo.pop())
        for needed in node.input if node is not None and node.op_type != "Conv" else ():
            if needed == source:
                return True
            if needed not in known:
                known.add(needed)
                todo.append(needed)
    return False


def _evidence(
    levels: list[tuple[_Output, _Output]], strides: list[int], texts: ArrayInput
) -> tuple[str, ...]:
    box, score = levels[0]
    text = f"the mean of {box.bins} bins each" if box.bins > 1 else "plain"
    sigmoid = "after" if score.activated else "before"
    return (
        f"A second input takes {texts.shape[1]} text embeddings of {texts.shape[2]} values: the "
        "classes are given as prompts.",
        f"{len(levels)} level{'s' * (len(levels) > 1)} (stride {', '.join(map(str, strides))}), "
        f"each with a box of four distances ({text}) and a score for every text, {sigmoid} its "
        "sigmoid.",
    )
