"""The arguments that say how a model is run, the same for every verb that runs one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.console import add_anchors, add_feed, add_prompts

if TYPE_CHECKING:
    from rkzoo.workflow.plan import Asked


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


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """--runtime."""
    parser.add_argument(
        "--runtime",
        choices=("onnx", "simulator", "board"),
        help="onnx: float, on this PC; simulator: what the NPU will compute, emulated; board: this"
        " machine's NPU, the usual one for a .rknn where there is an NPU",
    )


def asked(args: argparse.Namespace) -> Asked:
    """The arguments as the workflow takes them. Raises RkzooError."""
    from rkzoo.cli.console import parse_size, parse_triple
    from rkzoo.graph.anchors import parse_anchors
    from rkzoo.workflow.calibration import find
    from rkzoo.workflow.plan import Asked
    from rkzoo.workflow.prompts import words
    from rkzoo.workflow.quantise import choose
    from rkzoo.workflow.resolve import Feed, read_labels

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
    )
