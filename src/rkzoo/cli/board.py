"""`rkzoo board`: set up a board over ssh, and list the known ones."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rkzoo.remote.address import Address
    from rkzoo.remote.setup import SetUp

_FAILED = 4  # as doctor's


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "board",
        help="set up a board over ssh, and list the known ones",
        description="Boards that other verbs use with --on ADDRESS.",
        epilog="Example: rkzoo board setup ssh://user@board"
        "        rkzoo run yolov8n.rknn bus.jpg --on ssh://user@board",
    )
    parser.set_defaults(verb=_list, json=False)
    actions = parser.add_subparsers(metavar="ACTION", title="actions")

    setup = actions.add_parser(
        "setup",
        help="install rkzoo on a board, or bring it up to this version",
        description="Installs this version of rkzoo on a board, from this PC: the board needs"
        " Python 3.10 or later, and no network. Then its doctor is asked. What is there already is"
        " not sent again.",
        epilog="Exit code: 0 ok, 4 where doctor finds a failure there, 2 wrong command line.",
    )
    setup.add_argument("address", metavar="ADDRESS", help="ssh://[USER@]HOST[:PORT], or an alias")
    setup.add_argument(
        "--remove", action="store_true", help="take away what an earlier setup put there"
    )
    setup.add_argument("--json", action="store_true", help="one JSON document on stdout")
    setup.set_defaults(verb=_setup)

    listing = actions.add_parser("list", help="list the boards that were reached from here")
    listing.add_argument("--json", action="store_true", help="one JSON document on stdout")
    listing.set_defaults(verb=_list)

    forget = actions.add_parser("forget", help="remove a board from the list")
    forget.add_argument("address", metavar="ADDRESS", help="as the list shows it")
    forget.set_defaults(verb=_forget)


def _setup(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.remote.setup import set_up

    address = _by_ssh(args.address)
    if args.remove:
        return _remove(address, as_json=args.json)
    done = set_up(address, ProgressBars())
    if args.json:
        print_json(_document(done))
    else:
        _print(done)
    failed = any(finding.level == "fail" for finding in done.doctor.findings)
    return _FAILED if failed else 0


def _by_ssh(text: str) -> Address:
    from rkzoo.errors import RkzooError
    from rkzoo.remote.address import parse_address

    address = parse_address(text)
    if address.scheme != "ssh":
        raise RkzooError(
            f"{address} cannot be set up from here.",
            "That is done by ssh.",
            "Give its address as ssh://user@board, or install rkzoo[serve] there with pip.",
        )
    return address


def _remove(address: Address, *, as_json: bool) -> int:
    from rkzoo.cli.console import print_json
    from rkzoo.remote.setup import remove

    removed = remove(address)
    if as_json:
        print_json({"address": str(address), "removed": removed})
    elif removed:
        print(f"rkzoo was removed from {address}. What it keeps in ~/.cache/rkzoo there stays.")
    else:
        print(f"There was nothing to remove on {address}.")
    return 0


def _print(done: SetUp) -> None:
    from rkzoo.cli.doctor import print_findings
    from rkzoo.files import size_text

    machine = done.doctor.machine
    sent = ", ".join(f"{title} ({size_text(size)})" for title, size in done.sent)
    print(f"{done.address}: {machine.model or 'unknown board'} ({machine.chip or 'unknown chip'})")
    print(f"rkzoo {done.rkzoo}, Python {done.python}. Sent: {sent or 'nothing, it was there'}.")
    libraries = "; ".join(str(library) for library in machine.libraries)
    print(f"NPU library: {libraries or 'none'}.\n")
    print_findings(done.doctor.findings, board=done.doctor.place == "board")
    print(f"\nUse it with --on {done.address}")


def _document(done: SetUp) -> dict[str, Any]:
    import msgspec

    return {
        "address": done.address,
        "rkzoo": done.rkzoo,
        "python": done.python,
        "sent": [{"title": title, "bytes": size} for title, size in done.sent],
        "doctor": msgspec.to_builtins(done.doctor),
    }


def _list(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import print_json, table
    from rkzoo.remote.known_boards import known_boards

    boards = known_boards()
    if args.json:
        import msgspec

        print_json({"boards": msgspec.to_builtins(boards)})
        return 0
    if not boards:
        print("No board is known. Set one up with: rkzoo board setup ssh://user@board")
        return 0
    head = ("address", "chip", "board", "rkzoo", "NPU library", "last seen (UTC)")
    rows = [
        (
            *(board.address, board.chip or "?", board.board or "?", board.rkzoo),
            *(board.library or "none", board.last_seen.replace("T", " ").removesuffix("Z")),
        )
        for board in boards
    ]
    print(table(head, rows))
    return 0


def _forget(args: argparse.Namespace) -> int:
    from rkzoo.remote.known_boards import forget

    print(f"{forget(args.address).address} was removed from the list; the board stays as it is.")
    return 0
