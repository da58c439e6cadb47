"""`rkzoo run --search`: rank images or texts by similarity to a query."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.errors import RkzooError

if TYPE_CHECKING:
    from rkzoo.workflow.apps.search import SearchResults

_LISTED = 20
_FAILED = 10
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
    hits = search_results.hits
    if target is not None and hits:
        write(target, search_results.sheet())
    else:
        target = None
    if args.json:
        print_json(
            {
                "model": args.model,
                "runtime": search_results.runtime,
                "search": search_results.words,
                "results": [hit.to_json() for hit in hits],
                "compared": search_results.passages,
                "near": search_results.near,
                "best": round(search_results.best, 4),
                "failed": [
                    {"file": str(path), "why": error.why or error.what}
                    for path, error in search_results.failed
                ],
                "sheet": str(target) if target else None,
            }
        )
    else:
        _print_summary(search_results)
        if target is not None:
            print(f"The best are in {target}", file=sys.stderr)
    failed = search_results.failed
    if failed:
        print(f"{len(failed)} could not be read, and were left out:", file=sys.stderr)
        for path, error in failed[:_FAILED]:
            print(f"  {path}: {error.why or error.what}", file=sys.stderr)
        if len(failed) > _FAILED:
            print(f"  and {len(failed) - _FAILED} more", file=sys.stderr)
        return 1
    return 0


def _print_summary(found: SearchResults) -> None:
    print(f"{found.words}  [{found.runtime}]")
    if not found.hits:
        best = f"; the best has {found.best:.3f}" if found.passages else ""
        print(
            f"  nothing is close: none of {found.passages} reaches a cosine of {found.near:g}{best}"
        )
    for hit in found.hits[:_LISTED]:
        print("  " + f"{hit.cosine:6.3f}  {hit.place}  {hit.text}".rstrip())
    if len(found.hits) > _LISTED:
        print(f"  and {len(found.hits) - _LISTED} more: --json lists them all")
