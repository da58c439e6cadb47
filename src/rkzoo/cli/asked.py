"""The arguments that say how a model is run, the same for every verb that runs one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.console import add_anchors, add_feed, add_prompts
from rkzoo.errors import RkzooError

if TYPE_CHECKING:
    from rkzoo.tasks.spec import Wishes
    from rkzoo.workflow.inference.plan import Asked


def add_asked(parser: argparse.ArgumentParser) -> None:
    """Labels, size, how the model is fed, and what the simulator needs."""
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line")
    parser.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    parser.add_argument("--no-cut", action="store_true", help="leave the detection head on")
    add_feed(parser)
    add_anchors(parser)
    add_prompts(parser)
    simulator = parser.add_argument_group("for the simulator, when MODEL is no .rknn")
    simulator.add_argument("--calib", metavar="FOLDER|LIST", help="pictures that set INT8 ranges")
    simulator.add_argument("--recipe", metavar="YAML", help="what rkzoo tune found for this model")
    simulator.add_argument("--dtype", choices=("int8", "fp16"))
    simulator.add_argument("--toolkit", metavar="VERSION", help="version of RKNN-Toolkit2")


def add_wishes(parser: argparse.ArgumentParser) -> None:
    """What is wanted of an answer, by models that can be asked."""
    group = parser.add_argument_group("for models of speech, voices, and prompts")
    group.add_argument("--language", metavar="CODE", help="of the speech or text, for example en")
    group.add_argument("--translate", action="store_true", help="speech to English text")
    group.add_argument("--speed", type=float, default=1.0, help="of a voice (default 1)")
    group.add_argument(
        "--point", metavar="X,Y[,0]", action="append", help="on the object; with ,0 beside it"
    )
    group.add_argument("--box", metavar="X1,Y1,X2,Y2", action="append", help="around the object")


def wishes(args: argparse.Namespace) -> Wishes:
    """What add_wishes was told. Raises RkzooError."""
    from rkzoo.tasks.spec import Wishes

    points = [(*numbers, 1.0)[:3] for numbers in _numbers(args.point, "--point", (2, 3))]
    boxes = _numbers(args.box, "--box", (4,))
    return Wishes(
        language=args.language,
        translate=args.translate,
        speed=args.speed,
        points=tuple((x, y, int(label)) for x, y, label in points),
        boxes=tuple((a, b, c, d) for a, b, c, d in boxes),
        words=tuple(args.prompt or ()),
    )


def _numbers(
    given: list[str] | None, option: str, counts: tuple[int, ...]
) -> list[tuple[float, ...]]:
    from math import isfinite

    found = []
    for text in given or ():
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
        found.append(numbers)
    return found


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """--runtime."""
    parser.add_argument(
        "--runtime",
        choices=("onnx", "simulator", "board"),
        help="onnx: float, on this PC; simulator: the toolkit's simulation of the NPU, near to it"
        " but not the same (docs/board.md); board: this machine's NPU, the usual one for a .rknn"
        " where there is an NPU",
    )


def asked(args: argparse.Namespace) -> Asked:
    """The arguments as the workflow takes them. Raises RkzooError."""
    from rkzoo.cli.console import parse_size, parse_triple
    from rkzoo.tasks.prompt.words import words
    from rkzoo.workflow.inference.plan import Asked
    from rkzoo.workflow.request.calibration import find
    from rkzoo.workflow.request.options import Feed, parse_anchors, read_labels
    from rkzoo.workflow.request.quantization import choose

    choice = choose(not args.no_cut, args.recipe)
    return Asked(
        runtime=getattr(args, "runtime", None),
        size=parse_size(args.size),
        labels=read_labels(Path(args.labels)) if args.labels else None,
        feed=Feed(args.color, parse_triple(args.mean, "mean"), parse_triple(args.std, "std")),
        anchors=parse_anchors(args.anchors) if args.anchors else None,
        pictures=find(args.calib) if args.calib else choice.pictures(),
        dtype=args.dtype,
        toolkit=args.toolkit,
        choice=choice,
        words=words(args.prompt, args.text_model, args.embeddings),
        language=getattr(args, "language", None),
    )
