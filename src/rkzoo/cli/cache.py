"""`rkzoo cache`: show, prune and clear what rkzoo keeps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rkzoo.errors import RkzooError

if TYPE_CHECKING:
    from rkzoo.cache import Entry, Removal


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "cache",
        help="show what is kept on the disk, and remove it",
        description="Shows what rkzoo keeps to save time, by kind. What can be made again stays"
        " below 8 GB, or RKZOO_CACHE_LIMIT; weights and toolkits stay until they are removed.",
        epilog="Example: rkzoo cache        rkzoo cache prune --keep 4GB        "
        "rkzoo cache clear builds evals",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=_show)
    actions = parser.add_subparsers(metavar="ACTION", title="actions")

    show = actions.add_parser("show", help="count, size and last use of each kind (the default)")
    show.set_defaults(verb=_show)

    prune = actions.add_parser(
        "prune", help="remove what can be made again, the least recently used first"
    )
    prune.add_argument(
        "--keep", metavar="SIZE", help="so much may stay, such as 4GB (default: the limit)"
    )
    prune.add_argument("--older", metavar="AGE", help="remove what was not used for 30d, 12h or 2w")
    prune.set_defaults(verb=_prune)

    clear = actions.add_parser("clear", help="remove everything, or everything of a kind")
    clear.add_argument(
        "kinds", nargs="*", metavar="KIND", help="a kind that rkzoo cache shows (default: all)"
    )
    clear.add_argument("--yes", action="store_true", help="do not ask")
    clear.set_defaults(verb=_clear)
    for action in (show, prune, clear):
        action.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="one JSON document on stdout",
        )


def _show(args: argparse.Namespace) -> int:
    from rkzoo import cache
    from rkzoo.cli.console import print_json, table
    from rkzoo.files import cache_root, size_text

    found = cache.entries()
    groups = [(kind, [entry for entry in found if entry.kind == kind]) for kind in cache.KINDS]
    again = sum(entry.size for entry in found if entry.kind.again)
    if args.json:
        print_json(
            {
                "folder": str(cache_root()),
                "kinds": [
                    {
                        "kind": kind.name,
                        "title": kind.title,
                        "count": len(group),
                        "bytes": sum(entry.size for entry in group),
                        "last_used": max((entry.used for entry in group), default=None),
                        "made_again": kind.again,
                    }
                    for kind, group in groups
                ],
                "bytes": sum(entry.size for entry in found),
                "made_again_bytes": again,
                "limit": cache.limit(),
            }
        )
        return 0
    if not found:
        print(f"Nothing is kept in {cache_root()}.")
        return 0
    rows = [
        (
            kind.name,
            kind.title,
            len(group),
            size_text(sum(entry.size for entry in group)),
            _ago(max(entry.used for entry in group)),
        )
        for kind, group in groups
        if group
    ]
    print(table(("kind", "what", "count", "size", "last used"), rows))
    print(
        f"{size_text(sum(entry.size for entry in found))} in {cache_root()}; "
        f"{size_text(again)} of it can be made again, up to {size_text(cache.limit())} "
        "(RKZOO_CACHE_LIMIT)."
    )
    return 0


def _prune(args: argparse.Namespace) -> int:
    from rkzoo import cache

    keep = cache.parse_size(args.keep) if args.keep is not None else None
    older = cache.parse_age(args.older) if args.older is not None else None
    if keep is None and older is None:
        keep = cache.limit()
    return _print_removal(cache.prune(keep=keep, older=older), as_json=args.json)


def _clear(args: argparse.Namespace) -> int:
    from rkzoo import cache
    from rkzoo.files import cache_root, size_text

    kinds = cache.kinds_named(args.kinds)
    found = cache.entries(kinds)
    if found and not args.yes:
        if not sys.stdin.isatty():
            raise RkzooError(
                f"{_counted(found)} would be removed from {cache_root()}.",
                "Nobody can be asked here, since there is no terminal.",
                "Add --yes.",
            )
        size = size_text(sum(entry.size for entry in found))
        print(f"Remove {_counted(found)}, {size}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("Nothing was removed.", file=sys.stderr)
            return 1
    return _print_removal(cache.clear(kinds), as_json=args.json)


def _print_removal(removal: Removal, *, as_json: bool) -> int:
    from rkzoo.cli.console import print_json
    from rkzoo.files import size_text

    if as_json:
        print_json(
            {
                "bytes": removal.size,
                "removed": [str(entry.path) for entry in removal.removed],
                "in_use": [str(entry.path) for entry in removal.in_use],
            }
        )
        return 0
    if removal.removed:
        print(f"Removed {_counted(removal.removed)}: {size_text(removal.size)} are free again.")
    else:
        print("Nothing was removed.")
    if removal.in_use:
        print(f"In use, and kept: {_counted(removal.in_use)}.")
    return 0


def _counted(found: Sequence[Entry]) -> str:
    """`3 of builds, 1 of evals`."""
    names = [entry.kind.name for entry in found]
    return ", ".join(f"{names.count(name)} of {name}" for name in dict.fromkeys(names))


def _ago(used: float) -> str:
    from time import time

    seconds = max(0.0, time() - used)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
