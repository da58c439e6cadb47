"""`rkzoo help`: help on a verb, and the man page."""

from __future__ import annotations

import argparse


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "help",
        help="help on a verb",
        description="Prints the help on a verb, or the list of verbs.",
        epilog="Example: rkzoo help convert        rkzoo help report zoo",
    )
    parser.add_argument("words", metavar="VERB", nargs="*", help="the verb, and what follows it")
    parser.add_argument("--man", action="store_true", help="print the man page: see docs/rkzoo.1")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.parser import VERBS, build_parser

    if args.man:
        from rkzoo.cli.man_page import man_page

        print(man_page(build_parser(VERBS)), end="")
        return 0
    try:
        build_parser(args.words[:1]).parse_args([*args.words, "--help"])
    except SystemExit as done:
        return int(done.code or 0)
    return 0
