"""`rkzoo list`: list the models."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rkzoo.zoo.schema import Card


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "list",
        help="list the models",
        description="Lists the models that rkzoo knows. For cards of your own, put them into a "
        "folder and set RKZOO_CARDS to it.",
        epilog="Example: rkzoo list --task detect --soc rk3588",
    )
    parser.add_argument(
        "--task", metavar="TASK", help="only this task: detect, text, text-rec, ..."
    )
    parser.add_argument(
        "--soc", metavar="CHIP", help="only what can be built for this chip: rk3588, rv1106, ..."
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json, table
    from rkzoo.zoo.catalogue import cards

    chosen = [card for card in cards(ProgressBars()) if args.task in (None, card.task)]
    if args.task and not chosen:
        raise _unknown_task(args.task)
    dtypes: dict[str, tuple[str, ...]] = {card.name: card.dtypes for card in chosen}
    if args.soc:
        dtypes = _dtypes_on(args.soc, chosen)
        chosen = [card for card in chosen if dtypes[card.name]]
    entries = [entry(card, dtypes[card.name]) for card in chosen]
    if args.json:
        print_json(entries)
        return 0
    header = ("name", "task", "dtypes", "size", "fetched", "licence", "title")
    print(table(header, [_row(entry) for entry in entries]))
    return 0


def entry(card: Card, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """One model as JSON types: what `list` shows, and the head of what `info` shows."""
    from rkzoo.zoo.store import cached, size

    files = cached(card)
    return {
        "name": card.name,
        "task": card.task,
        "title": card.title,
        "summary": card.summary,
        "licence": card.licence.name,
        "dtypes": [] if card.task == "asset" else list(dtypes),
        "size": size(card),
        "fetched": bool(files) and all(files.values()),
    }


def megabytes(size: int | None) -> str:
    """Format a size in bytes as MB; "?" for None."""
    return f"{size / 1e6:.1f} MB" if size is not None else "?"


def _row(values: dict[str, Any]) -> tuple[str, ...]:
    return (
        values["name"],
        values["task"],
        " ".join(values["dtypes"]) or "-",
        megabytes(values["size"]),
        "yes" if values["fetched"] else "-",
        values["licence"],
        values["title"],
    )


def _dtypes_on(soc: str, cards: list[Card]) -> dict[str, tuple[str, ...]]:
    from rkzoo.soc.chips import chips, resolve
    from rkzoo.zoo.catalogue import dtypes_on

    name = resolve(soc)
    chip = chips()[name]
    return {
        card.name: () if card.task == "asset" else dtypes_on(card, name, chip.dtypes)
        for card in cards
    }


def _unknown_task(task: str) -> Exception:
    from rkzoo.spelling import unknown
    from rkzoo.zoo.catalogue import cards

    tasks = sorted({card.task for card in cards()})
    return unknown(
        f"No model here has the task {task!r}.",
        f"Tasks with models: {', '.join(tasks)}.",
        task,
        tasks,
        "Run rkzoo list without --task to see all.",
    )
