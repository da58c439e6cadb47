"""`rkzoo run --search`: rank images or texts by similarity to a query."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rkzoo.errors import RkzooError

_LISTED = 20
_SHEET = "search.png"


def search(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import Bars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.files import check_apart
    from rkzoo.vision.image import SUFFIXES, write
    from rkzoo.workflow.apps import search as workflow
    from rkzoo.workflow.inference.inputs import PICTURE, medium_of

    if args.prompt:
        raise RkzooError(
            "--search and --prompt do not go together.",
            "One finds what fits some words, the other says which words fit.",
            "Leave one of them out.",
        )
    medium = medium_of(args.model)
    sources = medium.expand(args.inputs)
    target = None
    if medium is PICTURE and (args.output or not args.json):
        named = Path(args.output or "rkzoo-out")
        target = named if named.suffix.lower() in SUFFIXES else named / _SHEET
        check_apart([target], [Path(source) for source in sources])
    found = workflow.search(args.model, sources, args.search, request(args), Bars())
    if target is not None:
        write(target, found.sheet())
    if args.json:
        print_json(
            {
                "model": args.model,
                "runtime": found.runtime,
                "search": found.words,
                "results": [
                    {"file": str(path) if path else None, **record}
                    for path, record in zip(found.sources, found.alike.to_json(), strict=True)
                ],
                "sheet": str(target) if target else None,
            }
        )
        return 0
    lines = found.alike.lines()
    if medium is not PICTURE and len(sources) > 1:
        lines = [
            f"{line}  ({path or 'text'})" for line, path in zip(lines, found.sources, strict=True)
        ]
    print(f"{args.search}  [{found.runtime}]")
    print("\n".join(f"  {line}" for line in lines[:_LISTED]))
    if len(lines) > _LISTED:
        print(f"  and {len(lines) - _LISTED} more: --json lists them all")
    if target is not None:
        print(f"The best are in {target}", file=sys.stderr)
    return 0
