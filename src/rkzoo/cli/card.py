"""rkzoo card: a short card for a model of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from rkzoo.cli.console import add_anchors, add_feed
from rkzoo.cli.model_options import add_inputs


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "card",
        help="a card for a model of your own: how it is fed and read",
        description="A card says how a model is fed and read, and is used in place of the file "
        "by every verb.",
        epilog="Example: rkzoo card new my_model.onnx        rkzoo run my_model.yaml picture.jpg",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    new = actions.add_parser(
        "new",
        help="write one from what is recognised in a file",
        description="Writes a card from what is recognised in a model file, with a comment on "
        "every key, to be edited.",
        epilog="Example: rkzoo card new my_model.onnx --color BGR --fit stretch -o mine.yaml",
    )
    new.add_argument("model", metavar="MODEL", help="a model file: .onnx, .tflite, ...")
    new.add_argument("-o", "--output", metavar="NAME.yaml", help="default: called after the model")
    new.add_argument("--labels", metavar="FILE", help="class names, one a line")
    new.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    add_inputs(new)
    add_feed(new)
    add_anchors(new)
    new.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from shlex import quote

    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.request.resolve import resolve
    from rkzoo.workflow.request.short_card import check_model, write_card

    check_model(args.model)
    ready = resolve(args.model, request(args), report=ProgressBars())
    path = write_card(ready, Path(args.model), Path(args.output) if args.output else None)
    if args.json:
        print_json({"card": str(path), "model": args.model})
        return 0
    print(f"{path} says how {args.model} is fed and read: look it over, then use it as the model.")
    print(f"Next: rkzoo info {quote(str(path))}")
    return 0
