"""Arguments that make a `Request`, the same for every verb."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.cli.console import add_anchors, add_feed, add_prompts
from rkzoo.errors import RkzooError

if TYPE_CHECKING:
    from rkzoo.workflow.request.request import Request


DTYPES = ("int8", "fp16", "w4a16")
PLAIN = "leave out what was tuned for the model's card (rkzoo info says it)"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Labels, size, how the model is fed, and what the simulator needs."""
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line")
    parser.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    add_inputs(parser)
    parser.add_argument("--no-cut", action="store_true", help="leave the detection head on")
    add_feed(parser)
    add_anchors(parser)
    add_prompts(parser)
    simulator = parser.add_argument_group("for the simulator, when MODEL is no .rknn")
    add_calibration(simulator, "pictures that set INT8 ranges")
    simulator.add_argument("--recipe", metavar="YAML", help="what rkzoo tune found for this model")
    simulator.add_argument("--plain", action="store_true", help=PLAIN)
    simulator.add_argument("--dtype", choices=DTYPES)
    add_algorithm(simulator)
    add_batch(simulator)
    add_sizes(simulator)
    simulator.add_argument("--toolkit", metavar="VERSION", help="version of RKNN-Toolkit2")


def add_calibration(parser: argparse._ActionsContainer, what: str) -> None:
    """--calib and --calib-count."""
    parser.add_argument("--calib", metavar="FOLDER|LIST", help=what)
    parser.add_argument(
        "--calib-count",
        type=int,
        metavar="N",
        help="how many of them, evenly (default: what the model's card says, or 100)",
    )


def add_algorithm(parser: argparse._ActionsContainer) -> None:
    """--algorithm."""
    parser.add_argument(
        "--algorithm",
        choices=("mse", "normal", "kl_divergence", "mmse", "gdq"),
        help="how ranges (gdq: 4-bit weights) are found, in place of what was tuned for the model: "
        "mse is rkzoo's own, and usual for detectors and classifiers; the others are the "
        "toolkit's",
    )


def add_batch(parser: argparse._ActionsContainer) -> None:
    """--batch."""
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="pictures that it takes at once"
    )


def add_sizes(parser: argparse._ActionsContainer) -> None:
    """--sizes."""
    parser.add_argument(
        "--sizes",
        metavar="HxW,HxW,...",
        help="build one file for several input sizes; rkzoo run X.rknn --size HxW chooses",
    )


def add_inputs(parser: argparse._ActionsContainer) -> None:
    """--shape, --raw and --fit, for any model."""
    parser.add_argument(
        "--shape",
        action="append",
        metavar="NAME=N,N,...",
        help="shape of an input whose dimensions the model leaves free",
    )
    parser.add_argument(
        "--raw", action="store_true", help="outputs as plain tensors, where the head is known too"
    )
    parser.add_argument(
        "--fit",
        choices=("letterbox", "pad", "stretch", "crop", "none"),
        help="how a picture gets the input's size; none: the input is an array, no picture",
    )


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """What is wanted of the answers of speech, voices and promptable models."""
    group = parser.add_argument_group("for models of speech, voices, and prompts")
    group.add_argument("--language", metavar="CODE", help="of the speech or text, for example en")
    group.add_argument("--translate", action="store_true", help="speech to English text")
    group.add_argument("--speed", type=float, default=1.0, help="of a voice (default 1)")
    group.add_argument(
        "--point", metavar="X,Y[,0]", action="append", help="on the object; with ,0 beside it"
    )
    group.add_argument("--box", metavar="X1,Y1,X2,Y2", action="append", help="around the object")
    group.add_argument(
        "--against",
        nargs="+",
        metavar="FILE",
        help="pictures that an embedding (of faces, of people) is compared with, by its cosine",
    )
    add_known(group)


def add_known(parser: argparse._ActionsContainer) -> None:
    """--known."""
    parser.add_argument(
        "--known",
        metavar="FOLDER",
        help="pictures of faces by name, NAME.jpg or NAME/*.jpg, with which faces are compared",
    )


def add_thresholds(parser: argparse._ActionsContainer) -> None:
    """--conf and --iou."""
    parser.add_argument(
        "--conf",
        type=float,
        help="confidence threshold in 0..1 (default 0.25; text and faces by name 0.5)",
    )
    parser.add_argument("--iou", type=float, help="IoU threshold for NMS (default 0.45)")


def add_classes(parser: argparse._ActionsContainer) -> None:
    """--classes."""
    parser.add_argument(
        "--classes",
        action="append",
        metavar="CLASS,...",
        help="only these classes of a detector, by name or number: person,car or 0,2",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """--runtime."""
    parser.add_argument(
        "--runtime",
        choices=("onnx", "simulator", "board"),
        help="onnx: float, on this PC; simulator: the toolkit's simulation of the NPU, near to it"
        " but not the same (docs/board.md); board: this machine's NPU, the usual one for a .rknn"
        " where there is an NPU",
    )


def add_on(
    parser: argparse._ActionsContainer,
    what: str = "a board whose NPU runs the model, which is built for its chip first",
) -> None:
    """--on, which names `what`."""
    parser.add_argument(
        "--on",
        metavar="ADDRESS",
        help=f"{what}: ssh://user@board, adb:SERIAL or http://board:8000",
    )


def request(args: argparse.Namespace) -> Request:
    """The arguments of a verb as a request; what it has no argument for is left as it is.
    Raises RkzooError."""
    from rkzoo.cli.console import parse_numbers, parse_shape, parse_size
    from rkzoo.workflow.request.options import read_labels
    from rkzoo.workflow.request.request import Request

    inputs = vars(args)
    fields: dict[str, Any] = {
        name: inputs[argument]
        for name, argument in _SAME.items()
        if inputs.get(argument) is not None
    }
    if inputs.get("labels"):
        fields["labels"] = read_labels(Path(args.labels))
    if inputs.get("classes"):
        fields["classes"] = [name for word in args.classes for name in word.split(",") if name]
    if inputs.get("shape"):
        fields["shapes"] = dict(parse_shape(text) for text in args.shape)
    for name in ("mean", "std"):
        fields[name] = parse_numbers(inputs.get(name), name)
    if inputs.get("point") or inputs.get("box"):
        fields["points"] = _numbers(args.point, "--point", (2, 3))
        fields["boxes"] = _numbers(args.box, "--box", (4,))
    cut = not inputs.get("no_cut")
    multi_label = False if inputs.get("one_label") else None
    if inputs.get("sizes"):
        fields["sizes"] = [parse_size(word) for word in args.sizes.split(",") if word]
    return Request(size=parse_size(inputs.get("size")), cut=cut, multi_label=multi_label, **fields)


# Fields of Request, and the argument of the command line that holds the same.
_SAME = {
    "runtime": "runtime",
    "on": "on",
    "dtype": "dtype",
    "algorithm": "algorithm",
    "batch": "batch",
    "memory_plan": "memory_plan",
    "compute_order": "compute_order",
    "toolkit": "toolkit",
    "calibration": "calib",
    "calibration_count": "calib_count",
    "recipe": "recipe",
    "plain": "plain",
    "raw": "raw",
    "fit": "fit",
    "color": "color",
    "anchors": "anchors",
    "prompts": "prompt",
    "text_model": "text_model",
    "embeddings": "embeddings",
    "against": "against",
    "known": "known",
    "language": "language",
    "translate": "translate",
    "speed": "speed",
    "confidence": "conf",
    "iou": "iou",
    "max_boxes": "max_boxes",
}


def _numbers(
    inputs: list[str] | None, option: str, counts: tuple[int, ...]
) -> list[tuple[float, ...]]:
    from math import isfinite

    groups = []
    for text in inputs or ():
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in counts or not all(map(isfinite, numbers)):
            raise RkzooError(
                f"{option} {text} cannot be read.",
                f"It is {' or '.join(map(str, counts))} numbers with commas between.",
                f"Give for example {option} {','.join(['100'] * counts[0])}.",
            )
        groups.append(numbers)
    return groups
