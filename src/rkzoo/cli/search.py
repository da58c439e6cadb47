"""`rkzoo run --search`: rank images or texts by similarity to a query."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rkzoo.errors import RkzooError

_LISTED = 20
_SHEET = "search.png"


def search(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.files import refuse_overwriting_inputs
    from rkzoo.vision.image import SUFFIXES, write
    from rkzoo.workflow.apps import search as workflow
    from rkzoo.workflow.inference.inputs import PICTURE, input_kind_of_model

    if args.prompt:
        raise RkzooError(
            "--search and --prompt do not go together.",
            "One finds what fits some words, the other says which words fit.",
            "Leave one of them out.",
        )
    input_kind = input_kind_of_model(args.model)
    sources = input_kind.expand(args.inputs)
    target = None
    if input_kind is PICTURE and (args.output or not args.json):
        named = Path(args.output or "rkzoo-out")
        target = named if named.suffix.lower() in SUFFIXES else named / _SHEET
        refuse_overwriting_inputs([target], [Path(source) for source in sources])
    search_results = workflow.search(
        args.model, sources, args.search, request(args), ProgressBars()
    )
    if target is not None:
        write(target, search_results.sheet())
    if args.json:
        print_json(
            {
                "model": args.model,
                "runtime": search_results.runtime,
                "search": search_results.words,
                "results": [
                    {"file": str(path) if path else None, **record}
                    for path, record in zip(
                        search_results.sources, search_results.alike.to_json(), strict=True
                    )
                ],
                "sheet": str(target) if target else None,
            }
        )
        return 0
    lines = search_results.alike.lines()
    if input_kind is not PICTURE and len(sources) > 1:
        lines = [
            f"{line}  ({path or 'text'})"
            for line, path in zip(lines, search_results.sources, strict=True)
        ]
    print(f"{args.search}  [{search_results.runtime}]")
    print("\n".join(f"  {line}" for line in lines[:_LISTED]))
    if len(lines) > _LISTED:
        print(f"  and {len(lines) - _LISTED} more: --json lists them all")
    if target is not None:
        print(f"The best are in {target}", file=sys.stderr)
    return 0
