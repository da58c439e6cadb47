"""Recognises heads without anchors that are not decoded in the graph: NanoDet, NanoDet-Plus,
PicoDet, RTMDet, and YOLOv8's with key points beside box and score.

Every number of an output is then one number of a branch: as it is, after a sigmoid or an
exponential, or in pixels. Which one, random numbers tell; so one convolution may make both box
and classes, an output may hold one level or all, and the rows may stand in any order.

https://github.com/RangiLyu/nanodet, https://arxiv.org/abs/2111.00902 (PicoDet),
https://arxiv.org/abs/2212.07784 (RTMDet).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import msgspec
import numpy as np

from rkzoo.contract.detect import DecodedOutput, DetectHead, HeadOutput, Part
from rkzoo.graph.families.anchor_free import (
    Level,
    extras,
    head,
    head_tensors,
    level_evidence,
    mismatch,
    outputs_of_cut,
)
from rkzoo.graph.families.branches import (
    SCORE_SLACK,
    Float,
    cells,
    contract,
    group_by_size,
    is_table,
    probe,
    sigmoid,
    strides_of,
    times,
)
from rkzoo.graph.families.faces import with_faces
from rkzoo.graph.families.head_postprocessing import Branch, HeadPostprocessing, head_postprocessing
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.families.training import (
    NANODET,
    NANODET_PLUS,
    PICODET,
    RTMDET,
    Training,
    is_picodet,
)
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

_LOOKED_AT = 32  # cells, before all are compared
_PROPORTION = 1e-5
_OTHER = (
    "its outputs are not the numbers of its last convolutions for each cell, one box and its "
    "classes, as they are or after a sigmoid"
)


@dataclass(frozen=True)
class _Rows:
    """The numbers (R, cells) of a level in an output; `whole`: which holds all levels."""

    output: int
    level: int
    numbers: Float
    rows_last: bool
    whole: bool


@dataclass(frozen=True)
class _Run:
    """Neighbouring rows of an output that are neighbouring channels of a branch in one form."""

    rows: _Rows
    branch: Branch
    form: str

    @property
    def width(self) -> int:
        return self.branch.shape[1]


@dataclass(frozen=True)
class _Parts:
    """What the runs of a level mean, in the order in which they stand."""

    runs: Mapping[Part, _Run]

    @property
    def layout(self) -> tuple[object, ...]:
        """What all levels have alike."""
        return tuple((part, r.width, r.form, r.rows.whole) for part, r in self.runs.items())


def undecoded(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Boxes as distances or their distributions, classes, and perhaps key points, as the
    convolutions leave them: one tensor 1xNx(C+B) of all levels, one a level, or one for each."""
    outputs = [output.name for output in view.model.graph.output]
    end = head_postprocessing(view, outputs)
    groups = group_by_size(end) if not isinstance(end, str) else end
    if isinstance(end, str) or isinstance(groups, str):
        return str(groups)
    strides = strides_of(groups, picture)
    if isinstance(strides, str):
        return strides
    values = probe(end.branches, seed=0)
    try:
        answers = end(values)
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    undecoded = _parts(answers, groups, values, strides)
    if isinstance(undecoded, str):
        return undecoded
    if _as_rockchip(undecoded, groups, answers):
        return ""
    return _recognition(end, undecoded, strides, answers, picture)


# ---- which number is which ----------------------------------------------------------


def _parts(
    answers: Sequence[Array],
    groups: Sequence[Sequence[Branch]],
    values: Mapping[str, Array],
    strides: Sequence[int],
) -> list[_Parts] | str:
    runs: list[list[_Run]] = [[] for _ in groups]
    for index, answer in enumerate(answers):
        tables = list(_tables(index, answer, groups))
        for rows in tables:
            level_runs = _runs(rows, groups[rows.level], values, strides[rows.level])
            if level_runs is None:
                return _OTHER
            runs[rows.level] += level_runs
        if not tables:
            return _OTHER
    parts = [_meaning(level) for level in runs]
    good = [part for part in parts if part is not None]
    if len(good) != len(parts) or len({part.layout for part in good}) != 1:
        return _OTHER
    return good


def _tables(index: int, answer: Array, groups: Sequence[Sequence[Branch]]) -> Iterator[_Rows]:
    counts = [cells(group[0]) for group in groups]
    if answer.ndim == 4 and answer.shape[0] == 1:
        for level, group in enumerate(groups):
            if answer.shape[2:] == group[0].shape[2:]:
                flat = answer[0].reshape(answer.shape[1], -1)
                yield _Rows(index, level, flat.astype(np.float64), True, False)
        return
    if not is_table(answer):
        return
    for requested in (sum(counts), *counts):
        if requested in answer.shape[1:]:
            last = answer.shape[2] == requested
            flat = np.asarray(answer[0] if last else answer[0].T, np.float64)
            if requested != sum(counts):
                yield _Rows(index, counts.index(requested), flat, last, False)
                return
            for level, part in enumerate(np.split(flat, np.cumsum(counts)[:-1], axis=1)):
                yield _Rows(index, level, part, last, len(counts) > 1)
            return


def _runs(
    rows: _Rows, group: Sequence[Branch], values: Mapping[str, Array], step: int
) -> list[_Run] | None:
    """None where a row is no number of a branch."""
    channels = [(branch, c) for branch in group for c in range(branch.shape[1])]
    raw = np.concatenate([branch.of(values).astype(np.float64) for branch in group])
    forms = {
        "raw": raw,
        "sigmoid": sigmoid(raw),
        "pixels": raw * step,
        "exp": np.exp(raw),
        "exp pixels": np.exp(raw) * step,
    }
    known = np.concatenate(list(forms.values()))
    apart = np.abs(known[:, None, :_LOOKED_AT] - rows.numbers[None, :, :_LOOKED_AT]).max(axis=2)
    nearest = apart.argmin(axis=0)
    if not np.allclose(known[nearest], rows.numbers, rtol=_PROPORTION, atol=SCORE_SLACK):
        return None
    named = list(forms)
    sources = [(*channels[n % len(channels)], named[n // len(channels)]) for n in nearest]
    runs: list[_Run] = []
    # A run's channels grow as its rows do.
    for (branch, form, _), members in groupby(
        enumerate(sources), key=lambda pair: (pair[1][0], pair[1][2], pair[1][1] - pair[0])
    ):
        own = [channel for _, (_, channel, _) in members]
        part = branch if len(own) == branch.shape[1] else branch.part(own[0], own[-1] + 1)
        runs.append(_Run(rows, part, form))
    return runs


def _meaning(runs: Sequence[_Run]) -> _Parts | None:
    """Scores pass a sigmoid; where none do, they are what is left beside a box."""
    if len(runs) not in (2, 3) or len({run.form for run in runs if run.form != "raw"}) > 2:
        return None
    scores = [run for run in runs if run.form == "sigmoid"]
    rest = [run for run in runs if run.form != "sigmoid"]
    boxes = _boxes(rest)
    if len(scores) > 1 or not boxes:
        return None
    box = boxes[0]
    others = [run for run in rest if run is not box]
    score = scores[0] if scores else others.pop(0)
    if others and (len(others) > 1 or others[0].form != "raw" or score.form == "pixels"):
        return None
    meaning: dict[int, Part] = {id(box): "box", id(score): "score"}
    return _Parts({meaning.get(id(run), "keypoints"): run for run in runs})


def _boxes(runs: Sequence[_Run]) -> list[_Run]:
    """What can be the box, the likeliest first: what is in pixels or came out of an exponential,
    a usual number of bins, four numbers; else the first that four sides divide."""
    possible = [run for run in runs if run.width % 4 == 0]
    usual = (64, 4, 32, 68)
    return sorted(
        possible,
        key=lambda run: (
            run.form == "raw",
            usual.index(run.width) if run.width in usual else len(usual),
        ),
    )


def _as_rockchip(
    parts: Sequence[_Parts], groups: Sequence[Sequence[Branch]], answers: Sequence[Array]
) -> bool:
    """Whether it is Rockchip's form, box and score as maps of convolutions of their own, which
    needs no cut (yolov8_rockchip)."""
    box, score = (parts[0].runs[part] for part in ("box", "score"))
    plain = box.width == 4 and score.form == "raw"
    maps = all(answer.ndim == 4 for answer in answers)
    return (maps and len(parts[0].runs) == 2 and all(len(group) == 2 for group in groups)) and not (
        plain or box.form != "raw"
    )


# ---- the result ---------------------------------------------------------------------


def _recognition(
    end: HeadPostprocessing,
    parts: Sequence[_Parts],
    strides: Sequence[int],
    answers: Sequence[Array],
    picture: ImageSource,
) -> Recognition | str:
    first = parts[0].runs
    logarithms = first["box"].form.startswith("exp")
    levels = [
        Level(
            parts.runs["box"].branch,
            parts.runs["score"].branch,
            step,
            parts.runs["keypoints"].branch if "keypoints" in parts.runs else None,
            logarithms=logarithms,
        )
        for parts, step in zip(parts, strides, strict=True)
    ]
    reason = mismatch(levels)
    possible = extras(levels[0].channels[2], 0)
    named = _outputs(end, parts)
    if reason or not possible or isinstance(named, str):
        return reason or (_OTHER if not possible else str(named))
    # Raw points do not tell where they are measured from: as the family has them.
    plain = levels[0].channels[0] == 4
    extra = next((e for e in possible if e.fields.get("centred_keypoints") == plain), possible[0])
    training = _training(levels, named[0].role == "decoded")
    if training is not None:
        picture = training.over(picture)
        corner = training in (NANODET_PLUS, RTMDET)
        levels = [replace(level, offset=0.0 if corner else 0.5) for level in levels]
    family = training.family if training else f"yolov8{'-pose' * bool(extra.task)}"
    taken = head_tensors(levels, extra, None)
    cut = head(levels, extra, outputs_of_cut(levels, taken))
    recognition = Recognition(
        family=family,
        form="stock",
        contract=contract(family, picture, cut),
        uncut=contract(family, picture, _uncut(cut, parts, named)),
        head_tensors=taken,
        evidence=(
            f"{len(answers)} output{'s' * (len(answers) > 1)} of "
            f"{', '.join(times(answer.shape) for answer in answers)}: "
            f"{' and '.join(_SAID[part] for part in first)}, not decoded.",
            *level_evidence(levels, extra, first["score"].form == "sigmoid"),
        ),
        assumed=(training.assumed if training else _YOLO,),
    )
    return with_faces(recognition, picture.labels)


_SAID: dict[Part, str] = {"box": "boxes", "score": "scores", "keypoints": "key points"}
_YOLO = (
    "Taken for a head of YOLOv8's kind: RGB pixels of 0..255 divided by 255 are assumed, for the "
    "file does not say. Say otherwise with --color, --mean and --std."
)


def _training(levels: Sequence[Level], together: bool) -> Training | None:
    if levels[0].third is not None:
        return None
    if levels[0].box.shape[1] == 4:
        return RTMDET
    if is_picodet(levels):
        return NANODET_PLUS if together else PICODET
    return NANODET if levels[0].box.shape[1] == 32 else None


def _outputs(end: HeadPostprocessing, parts: Sequence[_Parts]) -> tuple[HeadOutput, ...] | str:
    """What the graph's own outputs are."""
    runs = parts[0].runs
    indices = {run.rows.output for run in runs.values()}
    if any(run.rows.whole for run in runs.values()):
        if len(indices) > 1:
            return "it has one output for the boxes of all levels and one for the scores"
        return (HeadOutput(name=end.outputs[indices.pop()], role="decoded"),)
    if len(indices) == 1:
        fused = [
            (next(iter(parts.runs.values())).rows.output, level)
            for level, parts in enumerate(parts)
        ]
        return tuple(
            HeadOutput(name=end.outputs[index], role="fused", level=level)
            for index, level in sorted(fused)
        )
    if len(indices) != len(runs):
        return "some of its outputs hold two things and others one"
    apart = [
        (run.rows.output, HeadOutput(name=end.outputs[run.rows.output], role=part, level=level))
        for level, parts in enumerate(parts)
        for part, run in parts.runs.items()
    ]
    return tuple(output for _, output in sorted(apart, key=lambda pair: pair[0]))


def _uncut(cut: DetectHead, parts: Sequence[_Parts], named: tuple[HeadOutput, ...]) -> DetectHead:
    runs = parts[0].runs
    form = runs["box"].form
    order = tuple(runs)
    return msgspec.structs.replace(
        cut,
        outputs=named,
        activated=runs["score"].form == "sigmoid",
        coding="distance" if form.startswith("exp") else cut.coding,
        decoded=DecodedOutput(
            rows_last=runs["box"].rows.rows_last,
            raw=True,
            pixels=form.endswith("pixels"),
            order=order,
        ),
    )
