"""`Request`: everything that a user can say about a model and its answers, in one record.

The command line, `rkzoo.load` and every function of the public page make one of it, so that what
one of them obeys, all obey.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from rkzoo.contract.inputs import Color
from rkzoo.errors import RkzooError
from rkzoo.session import Label
from rkzoo.spelling import unknown
from rkzoo.tasks.prompt.words import Words, words
from rkzoo.tasks.spec import TaskOptions
from rkzoo.toolkit.recipe import MOST_AT_ONCE, ComputeOrder, MemoryChoice, MemoryPlan
from rkzoo.workflow.request.options import Anchors, Feed, Fit, parse_anchors
from rkzoo.workflow.request.quantization import Choice, TunedRecipe, choose

if TYPE_CHECKING:
    from rkzoo.workflow.request.calibration import CalibrationImages

PathName = str | os.PathLike[str]
Point = tuple[float, float] | tuple[float, float, int]
Box = tuple[float, float, float, float]


class ModelOptions(TypedDict, total=False):
    """Keyword arguments of `load`, `convert`, `evaluate` and the others: the fields of `Request`,
    which says what each means."""

    runtime: str | None
    on: str | None
    chip: str | None
    dtype: str | None
    algorithm: str | None
    toolkit: str | None
    calibration: str | CalibrationImages | None
    calibration_count: int | None
    batch: int
    memory_plan: str | None
    compute_order: str | None
    cut: bool
    recipe: PathName | TunedRecipe | None
    plain: bool
    size: tuple[int, int] | None
    sizes: Sequence[tuple[int, int]]
    shapes: Mapping[str, Sequence[int]] | None
    raw: bool
    fit: Fit | None
    labels: Sequence[str] | None
    color: Color | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    anchors: str | Anchors | None
    prompts: Sequence[str] | None
    text_model: PathName | None
    embeddings: PathName | None
    language: str | None
    translate: bool
    speed: float
    points: Sequence[Point]
    boxes: Sequence[Box]
    against: Sequence[PathName]
    known: PathName | None
    confidence: float | None
    iou: float | None
    max_boxes: int | None
    multi_label: bool | None
    classes: Sequence[str | int] | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a model is run or converted, and what is wanted of its answers.

    All fields may be left out. They are checked, and files among them read, when the record is
    made; an option that the model does not know is refused when the model is opened.

    Attributes:
        runtime: "onnx" (the default for cards and .onnx), "board" (this machine's NPU: the
            default for a .rknn where there is one) or "simulator" (the toolkit's simulation of
            the NPU on a PC: the default for a .rknn elsewhere).
        on: Address of a board whose NPU runs the model, while all else is done here:
            "ssh://user@board", "adb:SERIAL" or "http://board:8000". What is no .rknn is built for
            its chip first, and kept.
        chip: The chip of the board `on`, where it tells none that is known.
        dtype: "int8", "fp16" or "w4a16" (4-bit weights), for the simulator, for what is built for
            `on`, and for `convert`; None is the model's first.
        algorithm: How INT8 ranges are found, "mse" (rkzoo's own), "normal", "kl_divergence" or
            "mmse", or 4-bit weights: "normal" (rounded) or "gdq"; in place of what was tuned for
            the model.
        toolkit: Version of RKNN-Toolkit2, for the simulator and for `convert`.
        calibration: Pictures that set the INT8 ranges: a folder, a glob or a list in a file.
        calibration_count: How many of them, at equal distances; None is what the model's card
            says, or 100.
        batch: How many pictures the built model takes at once, 1 to 64: for the simulator and for
            `convert`.
        memory_plan: How `convert` has the compiler lay out the working memory, "BestFit" (the
            default), "GreedyBySize", "GreedyByLifetime" or "SlowPeakGrowth"; no number depends on
            it.
        compute_order: In which order it computes branches, "WidthFirst" (the default) or
            "DepthFirst", likewise.
        cut: False leaves a detection head's postprocessing in the graph.
        recipe: A file that `TuningResult.save` or `rkzoo tune` wrote; in place of the card's.
        plain: Leave out what was tuned for the model's card (its key `int8`), and rkzoo's own INT8
            ranges: what the toolkit does.
        size: (height, width) of an input whose size the model leaves free; of a .rknn that was
            built for several, which of them.
        sizes: (height, width) of all pictures that a .rknn of several takes, for `convert` and the
            simulator.
        shapes: Shapes of inputs by name, whose dimensions the model leaves free.
        raw: Leave the outputs plain tensors where the head is known too.
        fit: How a picture gets the input's size: "letterbox" (ratio kept, padded on all sides),
            "pad" (on the right and below), "stretch", "crop" (its middle); "none": the input is
            no picture and is fed as an array.
        labels: Class names in place of the model's own.
        color: Colour order that the model was trained with, "RGB" or "BGR"
            (GRAY, RGBA and BGRA for pictures of one or four channels).
        mean: Subtracted from the pixels of 0..255, one number a channel in the order of
            `color`, or one for all.
        std: What they are divided by then.
        anchors: Of a YOLOv5 or v7 whose graph does not hold them: (width, height) pairs in
            input pixels, the finest level first, or text or a file with the numbers.
        prompts: Class names for a model that takes text (YOLO-World, CLIP).
        text_model: What makes embeddings of the prompts: a card's name or an .onnx.
        embeddings: The prompts embedded already: an .npy of (number of prompts, width).
        language: Code of the language of a speech, a voice or a page of text, for example "de".
        translate: Speech in any language to English text.
        speed: Of a synthetic voice; 1 is as trained.
        points: (x, y) or (x, y, label) in source pixels on the object to be segmented; label 0
            marks a point beside it.
        boxes: (x1, y1, x2, y2) in source pixels around the object to be segmented.
        against: Pictures (files, folders, globs) that each embedding is compared with.
        known: Folder of known faces, NAME.jpg or NAME/*.jpg, which those found are compared with.
        confidence: Confidence threshold in 0..1; None is 0.25, of text and of
            faces by name 0.5.
        iou: IoU threshold for NMS in 0..1; None is 0.45.
        max_boxes: Most boxes (or classes) of a picture; None is 300.
        multi_label: One box for every class of a cell that reaches the confidence, as the
            standard protocol of evaluation has it; None is True there, and False elsewhere.
        classes: Only these classes of a detector, by name or number from 0; None is all. The
            others are dropped before NMS and `max_boxes`. Not for an evaluation, whose score
            counts every class of the data.
    """

    runtime: str | None = None
    on: str | None = None
    chip: str | None = None
    dtype: str | None = None
    algorithm: str | None = None
    toolkit: str | None = None
    calibration: str | CalibrationImages | None = None
    calibration_count: int | None = None
    batch: int = 1
    memory_plan: str | None = None
    compute_order: str | None = None
    cut: bool = True
    recipe: PathName | TunedRecipe | None = None
    plain: bool = False
    size: tuple[int, int] | None = None
    sizes: Sequence[tuple[int, int]] = ()
    shapes: Mapping[str, Sequence[int]] | None = None
    raw: bool = False
    fit: Fit | None = None
    labels: Sequence[str] | None = None
    color: Color | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    anchors: str | Anchors | None = None
    prompts: Sequence[str] | None = None
    text_model: PathName | None = None
    embeddings: PathName | None = None
    language: str | None = None
    translate: bool = False
    speed: float = 1.0
    points: Sequence[Point] = ()
    boxes: Sequence[Box] = ()
    against: Sequence[PathName] = ()
    known: PathName | None = None
    confidence: float | None = None
    iou: float | None = None
    max_boxes: int | None = None
    multi_label: bool | None = None
    classes: Sequence[str | int] | None = None

    def __post_init__(self) -> None:
        _check_runtime(self.runtime)
        _check_on(self.on, self.runtime)
        spoken = words(self.prompts, self.text_model, self.embeddings)
        checked: dict[str, Any] = {
            "prompts": spoken.prompts or None,
            "shapes": None
            if self.shapes is None
            else {name: tuple(shape) for name, shape in self.shapes.items()},
            "sizes": tuple((int(height), int(width)) for height, width in self.sizes),
            "labels": None if self.labels is None else tuple(self.labels),
            "classes": None if self.classes is None else _classes(self.classes),
            "recipe": choose(self.cut, self.recipe, self.plain, self.algorithm).recipe,
            "mean": _floats("--mean", self.mean),
            "std": _floats("--std", self.std),
            "points": tuple(
                (point[0], point[1], int((*point, 1)[2]))
                for point in _numbers("--point", self.points, (2, 3))
            ),
            "boxes": tuple(_numbers("--box", self.boxes, (4,))),
            "against": tuple(os.fspath(name) for name in self.against),
            "known": None if self.known is None else os.fspath(self.known),
        }
        if isinstance(self.anchors, str):
            checked["anchors"] = parse_anchors(self.anchors)
        if isinstance(self.calibration, str):
            from rkzoo.workflow.request.calibration import find

            checked["calibration"] = find(self.calibration)
        if not 1 <= self.batch <= MOST_AT_ONCE:
            raise RkzooError(
                f"A batch of {self.batch} cannot be built.",
                f"It is 1 to {MOST_AT_ONCE} pictures.",
                "Give for example --batch 4.",
            )
        if self.algorithm is not None and self.dtype == "fp16":
            raise RkzooError(
                f"--algorithm {self.algorithm} does not go with fp16.",
                "Nothing of it is quantised.",
                "Leave one of them out.",
            )
        _check_count(self.calibration_count, self.calibration, checked["recipe"])
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        _ = self.feed, self.memory  # checks them
        if self.thresholds:
            _ = self.task_options  # checks them

    @property
    def feed(self) -> Feed:
        """What is said about how pictures are fed."""
        mean, std = (None if v is None else tuple(v) for v in (self.mean, self.std))
        return Feed(self.color, mean, std, self.fit)

    @property
    def memory(self) -> MemoryChoice:
        """How a build lays out its working memory. Raises RkzooError for a way that is none."""
        asked = {
            "plan": (MemoryPlan, self.memory_plan),
            "order": (ComputeOrder, self.compute_order),
        }
        given: dict[str, Any] = {name: word for name, (_, word) in asked.items() if word}
        for name, word in given.items():
            known = get_args(asked[name][0])
            if word not in known:
                raise unknown(
                    f"There is no {name} of the memory called {word!r}.",
                    f"There are {', '.join(known)}.",
                    word,
                    known,
                    "Leave it out for the usual one.",
                )
        return MemoryChoice(**given)

    @property
    def words(self) -> Words:
        """The prompts and what makes embeddings of them."""
        return words(self.prompts, self.text_model, self.embeddings)

    @property
    def choice(self) -> Choice:
        """How the model is quantised."""
        return choose(self.cut, self.recipe, self.plain, self.algorithm)

    @property
    def pictures(self) -> CalibrationImages | None:
        """Calibration pictures: those given, else those of the recipe. Raises RkzooError when
        some of the recipe are gone."""
        if self.calibration is None or isinstance(self.calibration, str):
            return self.choice.pictures()
        return self.calibration

    @property
    def pairs(self) -> tuple[tuple[float, float], ...] | None:
        """The anchors as (width, height) in input pixels."""
        if self.anchors is None or isinstance(self.anchors, str):
            return None
        return tuple((width, height) for width, height in self.anchors)

    @property
    def task_options(self) -> TaskOptions:
        """What is wanted of the answers. Raises RkzooError for a threshold out of 0..1."""
        from rkzoo.tasks.detect.task import DetectOptions
        from rkzoo.tasks.text.page import PageOptions

        return TaskOptions(
            language=self.language,
            translate=self.translate,
            speed=self.speed,
            points=self.points,  # type: ignore[arg-type]  # labelled when the record was made
            boxes=tuple(self.boxes),
            prompts=tuple(self.prompts or ()),
            against=self.against,  # type: ignore[arg-type]  # texts, likewise
            known=self.known,  # type: ignore[arg-type]  # likewise
            detect=DetectOptions(**self.thresholds) if self.thresholds else None,
            page=None if self.confidence is None else PageOptions(self.confidence),
        )

    @property
    def thresholds(self) -> dict[str, Any]:
        """Those fields of DetectOptions that were given."""
        inputs = {field: getattr(self, name) for name, field in _THRESHOLDS.items()}
        return {field: value for field, value in inputs.items() if value is not None}

    def of_parts(self, *, sized: bool = False) -> Request:
        """The request for one part of a pipeline, without what is asked of the whole; `sized`
        where the part sees the whole picture, whose size may be another."""
        return replace(
            self,
            size=self.size if sized else None,
            language=None,
            translate=False,
            speed=1.0,
            points=(),
            boxes=(),
            against=(),
            known=None,
            confidence=None,
            iou=None,
            max_boxes=None,
            multi_label=None,
            classes=None,
        )

    def refuse_all_but(self, used: Set[str], what: str) -> None:
        """Raises RkzooError for a field that was given and that `what` does not use."""
        extra = sorted(self.given() - used)
        if extra:
            raise RkzooError(
                f"{extra[0]} does not go with {what}.",
                f"It uses {', '.join(sorted(used))}.",
                "Leave it out.",
            )

    def given(self) -> set[str]:
        """Names of the fields that differ from their default."""
        return {f.name for f in fields(self) if getattr(self, f.name) != f.default}


# Fields of DetectOptions, by those of the request.
_THRESHOLDS = {
    "confidence": "confidence",
    "iou": "iou",
    "max_boxes": "limit",
    "multi_label": "multi_label",
    "classes": "classes",
}


_ALIASES = {"limit": "max_boxes"}  # as `load` called it


def request_of(request: Request | None, options: Mapping[str, Any]) -> Request:
    """`request` with single options in its place. Raises TypeError for an unknown option."""
    options = {_ALIASES.get(name, name): value for name, value in options.items()}
    for name in options.keys() - ModelOptions.__annotations__:
        raise TypeError(f"unexpected keyword argument {name!r}: see rkzoo.Request")
    return replace(request or Request(), **options)


def _classes(classes: Sequence[str | int]) -> tuple[str | int, ...]:
    """Raises RkzooError for none at all, and for numbers below 0."""
    words = (classes,) if isinstance(classes, str) else tuple(classes)
    if not words or any(isinstance(word, int) and word < 0 for word in words):
        raise RkzooError(
            f"--classes {' '.join(map(str, words))} selects nothing.".replace("  ", " "),
            "It has names of classes, or their numbers from 0.",
            "Give for example --classes person,car.",
        )
    return words


def _numbers(
    option: str, rows: Sequence[Sequence[float]], counts: tuple[int, ...]
) -> list[tuple[float, ...]]:
    for row in rows:
        if len(row) not in counts or not all(map(isfinite, row)):
            raise RkzooError(
                f"{option} {','.join(map(str, row))} cannot be used.",
                f"It is {' or '.join(map(str, counts))} finite numbers.",
                f"Give for example {option} {','.join(['100'] * counts[0])}.",
            )
    return [tuple(row) for row in rows]


def _floats(option: str, values: Sequence[float] | float | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        return tuple(map(float, [values] if isinstance(values, int | float) else values))
    except (TypeError, ValueError) as error:
        raise RkzooError(
            f"{option} {values!r} is not numbers.",
            "It has one for each channel.",
            f"Give for example {option} {'0,0,0' if option == '--mean' else '255,255,255'}.",
        ) from error


def _check_count(count: int | None, calibration: object, recipe: TunedRecipe | None) -> None:
    if count is not None and count < 1:
        raise RkzooError(f"--calib-count {count} leaves no picture.", "", "Give at least 1.")
    if count is not None and calibration is None and recipe is not None and recipe.calibration:
        raise RkzooError(
            "--calib-count does not go with this recipe.",
            "It names the very pictures that its INT8 ranges were found with.",
            "Leave it out, or give other pictures with --calib.",
        )


def _check_runtime(runtime: str | None) -> None:
    if runtime not in (None, *get_args(Label)):
        raise unknown(
            f"There is no runtime called {runtime!r}.",
            "rkzoo runs models on onnx, on the simulator and on a board's NPU.",
            str(runtime),
            get_args(Label),
            "Use --runtime onnx, --runtime simulator or --runtime board.",
        )


def _check_on(on: str | None, runtime: str | None) -> None:
    if on is None:
        return
    from rkzoo.remote.address import parse_address

    parse_address(on)
    if runtime not in (None, "board"):
        raise RkzooError(
            f"--on does not go with --runtime {runtime}.",
            "The NPU of the board that it names runs the model.",
            "Leave one of them out.",
        )
