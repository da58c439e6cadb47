"""`rkzoo info`: details of one model."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rkzoo.contract.inputs import ImageInput
    from rkzoo.zoo.schema import Card

_WIDTH = 96
_SUPPORT = {
    "board": "INT8 measured on a board",
    "simulator": "INT8 measured (simulator)",
    "converts": "builds",
    "vendor": "runs, says Rockchip",
    "untried": "not tried",
    "blocked": "no",
}
_WHOSE = {"published": "published", "estimate": "estimated", "bound": "at most"}
_FITS = {
    "letterbox": "aspect ratio kept, the rest padded",
    "stretch": "stretched to the size",
    "crop": "the short side scaled, the middle taken",
    "line": "scaled to the height, aspect ratio kept, padded on the right",
}


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "info",
        help="details of one model",
        description="Shows everything rkzoo knows about one model.",
        epilog="Example: rkzoo info ppocr-v4-det        rkzoo info llm says where language models"
        " run.",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, or a card's .yaml")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import print_json
    from rkzoo.soc.chips import chips, supported
    from rkzoo.zoo.catalogue import card as find
    from rkzoo.zoo.catalogue import dtypes_on
    from rkzoo.zoo.store import cached
    from rkzoo.zoo.topics import topics

    if args.model in topics():
        return _topic(args.model, args.json)
    card = find(args.model)
    socs = {soc: dtypes_on(card, soc, chips()[soc].dtypes) for soc in supported()}
    socs = {} if card.task == "asset" else {soc: dtypes for soc, dtypes in socs.items() if dtypes}
    files = cached(card)
    results = _results(card)
    if args.json:
        print_json(_document(card, socs, files, results))
        return 0
    print(f"{card.name}: {card.title}")
    if card.summary:
        print(card.summary)
    print()
    for key, value in _facts(card, socs):
        for number, line in enumerate(_wrapped(value)):
            print(f"{key if not number else '':<12}{line}")
    _print_files(card, files)
    if card.notes:
        print("\nNotes")
        for note in card.notes:
            print(textwrap.fill(note, _WIDTH, initial_indent="  - ", subsequent_indent="    "))
    _print_results(card, results)
    print("\nNext")
    for command in _next(card, args.model, socs, all(files.values()), results):
        print(f"  {command}")
    return 0


def _print_results(card: Card, results: dict[str, Any]) -> None:
    from rkzoo.cli.console import table

    if lines := _accuracy(card, results):
        print("\nAccuracy")
        for key, value in lines:
            for number, line in enumerate(_wrapped(value)):
                print(f"  {key if not number else '':<10}{line}")
    if rows := _on_chips(results):
        print("\nOn the chips (frames/s of the model alone, on one NPU core)")
        print(table(("chip", "support", "INT8", "FP16", "memory", "file", "reason"), rows))
        from rkzoo.cli.known_speeds import known_speeds

        for line in known_speeds(card.name):
            print(textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="    "))


def _topic(name: str, as_json: bool) -> int:
    import msgspec

    from rkzoo.cli.console import print_json, table
    from rkzoo.zoo.topics import topic

    chosen = topic(name)
    if as_json:
        print_json(msgspec.to_builtins(chosen))
        return 0
    print(f"{chosen.title}\n")
    for sentence in chosen.says:
        print(textwrap.fill(sentence, _WIDTH))
    print()
    for way in chosen.ways:
        print(f"{way.software}: {', '.join(way.chips)}")
        for line in textwrap.wrap(f"{way.how} {way.get}", _WIDTH - 2, break_on_hyphens=False):
            print(f"  {line}")
    print("\nAs published, tokens a second and MB of memory")
    rows = [
        (row.chip, row.model, row.dtype, f"{row.tokens:.1f}", f"{row.memory}")
        for row in chosen.figures.rows
    ]
    print(table(("chip", "model", "dtype", "tokens/s", "MB"), rows))
    print(chosen.figures.source)
    return 0


def _document(
    card: Card,
    socs: dict[str, tuple[str, ...]],
    files: dict[str, Path | None],
    results: dict[str, Any],
) -> dict[str, Any]:
    import msgspec

    from rkzoo.zoo.store import size

    return {
        **msgspec.to_builtins(card),
        "buildable": {soc: list(dtypes) for soc, dtypes in socs.items()},
        "size": size(card),
        "fetched": {role: str(path) if path else None for role, path in files.items()},
        "accuracy": results.get("accuracy"),
        "chips": results.get("on", {}),
    }


def _facts(card: Card, socs: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    from rkzoo.cli.list import megabytes
    from rkzoo.zoo.store import size

    facts = [
        ("task", card.task),
        (
            "licence",
            "" if card.file else " ".join(filter(None, (card.licence.name, card.licence.url))),
        ),
        ("", card.licence.note),
        ("origin", card.origin),
        ("size", megabytes(size(card))),
        ("", "" if card.file else _unverified(card)),
        ("consists of", ", ".join(f"{name} ({role})" for role, name in card.pipeline.items())),
        ("input", _input(card.input) if card.input else ""),
        ("labels", _labels(card)),
        ("dtypes", _numbers(card)),
        ("chips", _chips(socs)),
        ("calibrate", _calibration(card)),
        ("INT8", f"{card.int8.words()}; --plain leaves it out" if card.int8 else ""),
    ]
    return [(key, value) for key, value in facts if value]


def _results(card: Card) -> dict[str, Any]:
    """What is known of the card's model, as on the page for choosing; empty where nothing is."""
    from rkzoo.workflow.reporting.zoo import of_card, results_folder

    folder = results_folder()
    if folder is None or card.cpu or card.file or card.task == "asset":
        return {}
    return of_card(card, folder)


def _accuracy(card: Card, results: dict[str, Any]) -> list[tuple[str, str]]:
    """Accuracy by its makers and as measured here, of the model or of the parts of a pipeline."""
    lines = []
    if up := card.upstream:
        note = f", {up.note}" if up.note else ""
        number = f"{up.value:g}{' %' if up.unit and 'mAP' not in up.metric else ''}"
        lines.append(("makers", f"{number} {up.metric}, {up.data}, float{note} ({up.url})"))
    if found := results.get("accuracy"):
        lines += _measured(found, other=results["other_file"])
    for part in results.get("parts", ()):
        if part["accuracy"]:
            lines += [(key, f"{part['name']}: {text}") for key, text in _measured(part["accuracy"])]
    return lines


def _measured(found: dict[str, Any], other: bool = False) -> list[tuple[str, str]]:
    def number(value: float) -> str:
        percent = value * 100 if found["unit"] == "" else value
        return f"{percent:.1f} {found['unit']}".rstrip()

    data = f"{found['metric']} on {found['images']} pictures of {found['data']}"
    export = ", another export of it" if other else ""
    known = found["truth"] == "known"
    lines = [("float", f"{number(found['original'])} {data} [onnx{export}]")] if known else []
    words = "" if known else f" agreement with float, {data}"
    plain = "" if found["plain"] is None else f"; {number(found['plain'])} with --plain"
    offered = "" if found["offered"] else "; its card offers FP16 only"
    drop = f", {found['drop']:.2f} points less than float" if known else ""
    how = f" [{found['runtime']}{export}, {found['date']}]"
    return [*lines, ("INT8", f"{number(found['value'])}{words}{drop}{plain}{offered}{how}")]


def _on_chips(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Support, speed and memory on each chip, as rows; empty where nothing is known."""
    rows: list[tuple[str, ...]] = []
    for soc, support in results.get("on", {}).items():
        if support["tier"] in ("untried", "blocked") and not support.get("speeds"):
            continue
        speeds = support.get("speeds") or {}
        rows.append(
            (
                soc,
                _SUPPORT[support["tier"]],
                _speed(speeds.get("int8")),
                _speed(speeds.get("fp16")),
                _mebibytes(support.get("need")),
                _mebibytes(support.get("bytes")),
                textwrap.shorten(support["why"], 50),
            )
        )
    return rows


def _speed(speed: dict[str, Any] | None) -> str:
    return f"{speed['fps']:.1f} {_WHOSE[speed['source']]}" if speed else ""


def _mebibytes(size: int | None) -> str:
    return f"{size / 2**20:.1f} MB" if size else ""


def _unverified(card: Card) -> str:
    reasons = {
        source.unverified
        for mirrors in (card.sources, *card.files.values())
        for source in mirrors
        if source.unverified
    }
    return f"hash unknown: {'; '.join(sorted(reasons))}" if reasons else ""


def _input(spec: ImageInput) -> str:
    height, width = spec.size
    return (
        f"{width}x{height} (width x height), {spec.color}, {_FITS[spec.fit]}; "
        f"mean {_numbers_of(spec.mean)}, std {_numbers_of(spec.std)}"
    )


def _numbers_of(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in dict.fromkeys(values))


def _labels(card: Card) -> str:
    from rkzoo.zoo.labels import is_label_file, label_set
    from rkzoo.zoo.schema import LabelsFrom

    if isinstance(card.labels, LabelsFrom):
        if card.labels.file:
            return f"in the file {card.labels.file!r}"
        return f"in the model itself (metadata {card.labels.onnx_metadata!r})"
    if isinstance(card.labels, str) and is_label_file(card.labels):
        return f"in {card.labels}"
    if isinstance(card.labels, str):
        return f"{len(label_set(card.labels))} classes, the set {card.labels}"
    if len(card.labels) == 1:
        return f"1 class: {card.labels[0]}"
    return f"{len(card.labels)} classes: {', '.join(card.labels)}" if card.labels else ""


def _numbers(card: Card) -> str:
    if card.task == "asset":
        return ""
    first, *more = card.dtypes
    return ", ".join([f"{first} (default)", *more] if more else [first])


def _chips(socs: dict[str, tuple[str, ...]]) -> str:
    groups: dict[tuple[str, ...], list[str]] = {}
    for soc, dtypes in socs.items():
        groups.setdefault(dtypes, []).append(soc)
    return "; ".join(f"{' and '.join(dtypes)} on {', '.join(s)}" for dtypes, s in groups.items())


def _calibration(card: Card) -> str:
    if not card.calibration.pictures or "int8" not in card.dtypes:
        return ""
    count = card.calibration.count
    return f"with {f'about {count}' if count else '20 to 100'} {card.calibration.pictures}"


def _print_files(card: Card, files: Mapping[str, Path | None]) -> None:
    from rkzoo.zoo.catalogue import members

    print("\nFiles")
    width = max([18, *(len(role) + 2 for role in files)])
    for role, path in files.items():
        print(f"  {role:<{width}}{path or 'not fetched'}")
    if card.export:
        print(f"  {'model':<18}published for PyTorch only; make it with the command below")
    for part in members(card).values() if card.pipeline else ():
        if part.export:
            print(f"  {part.name:<{width}}to be exported: rkzoo info {part.name} says how")


def _next(
    card: Card,
    model: str,
    socs: dict[str, tuple[str, ...]],
    fetched: bool,
    results: dict[str, Any],
) -> list[str]:
    import shlex

    name = shlex.quote(model)
    if card.export:
        soc = "rk3588" if "rk3588" in socs else next(iter(socs), "")
        return [card.export, f"rkzoo convert {name}.onnx --soc {soc}"]
    commands = [] if fetched else [f"rkzoo fetch {name}"]
    if card.task == "asset":
        return commands or ["nothing to do: it is used when it is needed"]
    soc = "rk3588" if "rk3588" in socs else next(iter(socs), "")
    if soc and not card.cpu:
        known = results.get("on", {}).get(soc, {}).get("command") if model == card.name else ""
        commands.append(known or f"rkzoo convert {name} --soc {soc}")
    runs = [f"rkzoo run {name} {text}" for text in _input_examples(card)]
    return [*commands, *runs, *(f"rkzoo info {text}" for text in _related(card))]


def _input_examples(card: Card) -> tuple[str, ...]:
    """Example inputs of a model, one per way to run it; empty for a part of a pipeline."""
    from rkzoo.tasks.registry import spec_of

    spec = spec_of(card.head)
    return (spec.input_kind.upper(),) if spec.usage is None else spec.usage


def _related(card: Card) -> tuple[str, ...]:
    """The parts of a pipeline, or the pipelines of a part."""
    from rkzoo.contract.model import TensorsHead
    from rkzoo.zoo.catalogue import cards

    if isinstance(card.head, TensorsHead):
        return tuple(other.name for other in cards() if card.name in other.pipeline.values())
    return tuple(card.pipeline.values())


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH - 12, break_long_words=False, break_on_hyphens=False)
