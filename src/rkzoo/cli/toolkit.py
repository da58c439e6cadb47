"""`rkzoo toolkit`: install, list and remove versions of RKNN-Toolkit2."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkzoo.toolkit.environment import ToolkitEnv


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "toolkit",
        help="install, list and remove versions of RKNN-Toolkit2",
        description="Each version of RKNN-Toolkit2 has its own environment in rkzoo's cache.",
    )
    parser.set_defaults(verb=_list, json=False)
    actions = parser.add_subparsers(metavar="ACTION", title="actions")

    install = actions.add_parser("install", help="install a version (convert does so on demand)")
    install.add_argument("version", nargs="?", metavar="VERSION", help="for example 2.3.2")
    more = install.add_mutually_exclusive_group()
    more.add_argument(
        "--full",
        dest="kind",
        action="store_const",
        const="full",
        help="with PyTorch, for TorchScript models and gdq",
    )
    more.add_argument(
        "--with",
        dest="kind",
        choices=("tensorflow",),
        help="for models in .tflite and .pb",
    )
    install.set_defaults(verb=_install)

    listing = actions.add_parser("list", help="list installed and available versions")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(verb=_list)

    remove = actions.add_parser("remove", help="remove a version")
    remove.add_argument("version", metavar="VERSION", help="2.5.0, or 2.5.0-full for that alone")
    remove.set_defaults(verb=_remove)


def _install(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars
    from rkzoo.toolkit import environment
    from rkzoo.toolkit.recipe import DEFAULT_VERSION

    version, kind = args.version or DEFAULT_VERSION, args.kind or "lean"
    env = environment.ensure(version, kind=kind, report=ProgressBars())
    print(f"RKNN-Toolkit2 {env.name} is ready: Python {env.python_version}, {_size(env)}")
    return 0


def _list(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import print_json, table
    from rkzoo.toolkit import environment
    from rkzoo.toolkit.recipe import DEFAULT_VERSION
    from rkzoo.toolkit.versions import RELEASES

    installed = environment.installed()
    if args.json:
        print_json(
            {
                "installed": [_as_json(env) for env in installed],
                "known": [known.version for known in RELEASES],
                "default": DEFAULT_VERSION,
            }
        )
        return 0
    rows = [
        (env.version, env.kind, env.python_version, _size(env), env.folder) for env in installed
    ]
    missing = [
        (known.version, "not installed", "", "", "")
        for known in RELEASES
        if known.version not in {env.version for env in installed}
    ]
    print(table(("version", "kind", "python", "size", "folder"), [*rows, *missing]))
    return 0


def _remove(args: argparse.Namespace) -> int:
    from rkzoo.toolkit import environment

    for env in environment.remove(args.version):
        print(f"removed RKNN-Toolkit2 {env.name} ({_size(env)})")
    return 0


def _as_json(env: ToolkitEnv) -> dict[str, object]:
    return {
        "version": env.version,
        "kind": env.kind,
        "python": str(env.python),
        "python_version": env.python_version,
        "bytes": env.size,
    }


def _size(env: ToolkitEnv) -> str:
    return f"{env.size / 1e6:.0f} MB"
