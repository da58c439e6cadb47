"""`rkzoo soc`: facts about the chips."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkzoo.soc.chips import Chip

_LABEL = "From documents, not measured on a board."


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "soc",
        help="show chips: NPU, dtypes, clocks, library, how to upgrade",
        description="Lists the chips, or shows one with the source of each fact.",
        epilog="Example: rkzoo soc rk3588",
    )
    parser.add_argument("name", nargs="?", metavar="CHIP", help="a chip, such as rk3588")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.soc.chips import chips, find

    if args.name:
        name = find(args.name)
        return _print_chip(name, chips()[name], as_json=args.json)
    return _all(chips(), as_json=args.json)


def _all(known: dict[str, Chip], *, as_json: bool) -> int:
    from rkzoo.cli.console import print_json, table

    if as_json:
        import msgspec

        print_json({"chips": msgspec.to_builtins(known), "label": _LABEL})
        return 0
    rows = [
        (
            name,
            f"RKNPU{chip.generation}",
            chip.cores or "",
            "" if chip.tops is None else f"{chip.tops:g}",
            " ".join(chip.dtypes) or "-",
            _cpu(chip),
            chip.runtime,
        )
        for name, chip in known.items()
    ]
    print(table(("chip", "NPU", "cores", "TOPS", "builds", "CPU", "library"), rows))
    print(f"\n{_LABEL} Empty: unknown. Builds -: needs another toolkit.")
    return 0


def _cpu(chip: Chip) -> str:
    counts: dict[str, int] = {}
    for cluster in chip.clusters:
        counts[cluster.name] = counts.get(cluster.name, 0) + len(cluster.cores)
    return " + ".join(f"{count} {name}" for name, count in counts.items())


def _print_chip(name: str, chip: Chip, *, as_json: bool) -> int:
    from rkzoo.cli.console import print_json
    from rkzoo.soc.chips import sources
    from rkzoo.soc.versions import upgrade

    driver = {"kernel": "driver", "module": "module"}.get(chip.driver)
    steps = {part: upgrade(part, library=chip.runtime) for part in ([driver] if driver else [])}
    if chip.runtime:
        steps["library"] = upgrade("runtime", library=chip.runtime)
        if chip.generation == 1:
            steps["library"] = (
                f"Replace {chip.runtime} and what came with it from github.com/airockchip/rknpu."
            )
    if as_json:
        import msgspec

        document = {"name": name, **msgspec.to_builtins(chip), "upgrade": steps}
        document["sources"] = {fact: sources()[key] for fact, key in chip.sources.items()}
        print_json({**document, "label": _LABEL})
        return 0
    rows = [
        ("NPU", f"RKNPU{chip.generation}", ""),
        ("NPU cores", str(chip.cores) if chip.cores else "", "cores"),
        ("TOPS", "" if chip.tops is None else f"{chip.tops:g}", "tops"),
        ("builds", _builds(chip), "dtypes" if chip.dtypes else ""),
        ("memory", chip.memory, "memory"),
        *(("CPU", text, "clusters") for text in _clusters(chip)),
        ("NPU clock", _mhz(chip.npu_max_hz), "npu_max_hz"),
        *(("", path, "npu_clock") for path in chip.npu_clock),
        ("RAM clock", _mhz(chip.ddr_max_hz), "ddr_max_hz"),
        ("library", chip.runtime, "runtime"),
        ("driver", _DRIVERS.get(chip.driver, ""), "driver"),
        ("note", chip.note, "note"),
    ]
    print(f"{name}{' (also ' + ', '.join(chip.aliases) + ')' if chip.aliases else ''}")
    cited: dict[str, int] = {}
    for key, value, fact in rows:
        if value:
            number = cited.setdefault(chip.sources[fact], len(cited) + 1) if fact else 0
            print(f"  {key:<10} {value}" + (f"  [{number}]" if number else ""))
    for part, step in steps.items():
        print(f"  upgrade {part}: {step}")
    print("\nSources")
    for source, number in cited.items():
        print(f"  [{number}] {sources()[source]}")
    print(f"\n{_LABEL}")
    return 0


_DRIVERS = {
    "kernel": "part of the kernel, upgraded with the firmware",
    "module": "a .ko file",
    "system": "part of the chip's own system",
}


def _builds(chip: Chip) -> str:
    return ", ".join(chip.dtypes) or "nothing: RKNN-Toolkit2 does not serve it"


def _clusters(chip: Chip) -> list[str]:
    return [
        f"{len(c.cores)} {c.name} to {c.max_khz / 1000:.0f} MHz, cores "
        + ",".join(map(str, c.cores))
        for c in chip.clusters
    ]


def _mhz(rate: int | None) -> str:
    return f"to {rate / 1e6:.0f} MHz" if rate else ""
