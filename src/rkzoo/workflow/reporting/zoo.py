"""Model zoo page: cards and results joined, rendered as one HTML file.

Everything about models and chips on it comes from cards, chips.yaml or result files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.html_template import render
from rkzoo.soc.chips import Chip, chips, same_family, supported
from rkzoo.speed.memory import inside
from rkzoo.workflow.reporting.results import (
    AccuracyRow,
    Support,
    SupportTrial,
    read_rows,
    read_runs,
    read_support,
    titles_of,
)
from rkzoo.zoo.catalogue import cards, dtypes_on, members
from rkzoo.zoo.schema import Card

Tier = Literal["board", "simulator", "converts", "vendor", "untried", "blocked"]
TIERS: tuple[Tier, ...] = ("board", "simulator", "converts", "vendor", "untried", "blocked")
"""Best first; a pipeline has the worst tier of its parts. "vendor": not built here, but Rockchip
publishes its speed on the chip."""
TASKS = {
    "detect": "find objects",
    "segment": "outline objects",
    "pose": "find persons' key points",
    "obb": "find turned objects",
    "face": "find faces",
    "face-recognition": "recognise faces",
    "classify": "tell what a picture shows",
    "semantic": "label every pixel",
    "depth": "tell how far things are",
    "restore": "make a picture larger or cleaner",
    "anomaly": "find what is unusual",
    "prompt": "cut out what is pointed at",
    "text": "read text",
    "plate": "read number plates",
    "vector": "make embeddings of pictures",
    "embed": "compare pictures or texts",
    "speech": "speech to text",
    "sound": "recognise sounds",
    "voice": "text to speech",
    "translate": "translate",
}
"""Tasks in the order of the page, in words."""
MAX_DROP = 1.0
"""Largest drop in points at which INT8 counts as validated."""
_OWN_PICTURES = ("text", "text-det", "text-cls", "text-rec")
_ASKED = {"yolo-world": '--prompt "a red bus"'}
"""Arguments without which the models of a family cannot be converted."""


class _Timed(StrictStruct, frozen=True):
    """One model in a table of speeds, by the table's own name."""

    file: str
    shape: tuple[int, ...]
    dtype: Literal["int8", "fp16"]

    def is_of(self, model: str, size: tuple[int, int] | None, dtype: str, file: str) -> bool:
        """Whether this is a model by its name, input size (height, width) and dtype, or by the
        table's name for it. A number at the end of that is an opset or the input size."""
        if dtype != self.dtype:
            return False
        if file == self.file:
            return True
        named = re.fullmatch(re.escape(_bare(model)) + r"\d*", _bare(self.file))
        return self.shape[-2:] == size and named is not None


class Speed(_Timed, frozen=True):
    """Published frames per second of one model, by chip, or its real-time factor; `shape` is empty
    for a length of sound or text."""

    fps: dict[str, float] = msgspec.field(default_factory=dict)
    rtf: dict[str, float] = msgspec.field(default_factory=dict)


class Published(StrictStruct, frozen=True):
    """published.yaml. `sha256`: digest of the vendor's table it was made from."""

    source: str = ""
    sha256: str = ""
    speeds: tuple[Speed, ...] = ()

    def fps(
        self,
        model: str,
        size: tuple[int, int] | None,
        dtype: str,
        soc: str,
        file: str = "",
    ) -> float | None:
        """Published frames per second of a model by name, input size (height, width) and dtype, or
        by the vendor's file name. None where not published.
        """
        found = (one for one in self.speeds if one.fps and one.is_of(model, size, dtype, file))
        return next((one.fps.get(soc) for one in found), None)


class IndependentSpeed(_Timed, frozen=True):
    """Milliseconds of one model as neither the vendor nor this project measured them, by chip."""

    ms: dict[str, float]


class IndependentSource(StrictStruct, frozen=True):
    """Who measured, where it is told, and what the time covers."""

    by: str
    url: str
    covers: str
    figures: tuple[IndependentSpeed, ...]


class Independent(StrictStruct, frozen=True):
    """independent.yaml: figures that nothing is fitted to. `read`: when they were copied."""

    read: str = ""
    sources: tuple[IndependentSource, ...] = ()

    def speeds(
        self, model: str, size: tuple[int, int] | None, dtype: str, soc: str, file: str = ""
    ) -> list[dict[str, Any]]:
        """What others measured of a model on a chip or one of its family, with the source."""
        return [
            {"fps": round(1000 / ms, 1), "by": source.by, "url": source.url}
            for source in self.sources
            for one in source.figures
            if one.is_of(model, size, dtype, file)
            for chip, ms in one.ms.items()
            if same_family(chip, soc)
        ]


class Figures(StrictStruct, frozen=True):
    """Tables of speeds: the vendor's, and those of others."""

    published: Published = Published()
    independent: Independent = Independent()


class Figure(StrictStruct, frozen=True):
    """Accuracy of what `convert` builds by default. `plain`: as with `--plain`, since the recipe of
    the card was measured only with layers in float16 that another file does not take."""

    value: float
    drop: float
    plain: bool = False
    cost: float | None = None


_ALONE = ("detect", "face")


@dataclass(frozen=True)
class ZooEntry:
    """What is known of one model. `card` is None for a model without one; `parts` are those of a
    pipeline; `data` says in words what `accuracy` was measured on."""

    name: str
    card: Card | None
    support: Support | None
    accuracy: AccuracyRow | None
    parts: tuple[ZooEntry, ...] = ()
    data: str = ""

    @property
    def figure(self) -> Figure | None:
        """What of `accuracy` is that of the card by default; None where it was not measured."""
        row, recipe = self.accuracy, self.card.int8 if self.card else None
        if row is None:
            return None
        mine = {source.sha256 for source in self.card.sources} if self.card else set()
        if recipe is None:
            return Figure(row.int8, row.int8_drop)
        if not recipe.float_layers or row.sha256 in mine:
            return Figure(row.tuned, row.tuned_drop, cost=row.cost)
        if row.portable is not None and row.portable_drop is not None:
            return Figure(row.portable, row.portable_drop)
        return Figure(row.int8, row.int8_drop, plain=True)

    @property
    def size(self) -> tuple[int, int] | None:
        """Input (height, width)."""
        if self.support and self.support.size:
            return self.support.size
        return self.card.input.size if self.card and self.card.input else None

    @property
    def task(self) -> str:
        """Task of the model."""
        return self.card.task if self.card else self.support.task if self.support else ""

    def dtypes(self, soc: str) -> tuple[str, ...]:
        """Supported dtypes on a chip."""
        able = chips()[soc].dtypes
        return dtypes_on(self.card, soc, able) if self.card else able


_T = TypeVar("_T", Published, Independent)


def _read(path: Path, kind: type[_T], remedy: str) -> _T:
    if not path.exists():
        return kind()
    try:
        return msgspec.convert(yaml.safe_load(path.read_text("utf-8")) or {}, kind)
    except (OSError, ValueError, yaml.YAMLError, msgspec.ValidationError) as error:
        why = " ".join(str(error).split())[:300]
        raise RkzooError(f"{path} is not a table of speeds.", f"{why}.", remedy) from error


def read_published(path: Path) -> Published:
    """Read published speeds; empty where there is no file. Raises RkzooError when it is invalid."""
    return _read(path, Published, "Write it with scripts/published_speeds.py.")


def read_figures(results: Path) -> Figures:
    """Read the tables of speeds in the folder of results. Raises RkzooError for an invalid one."""
    remedy = "Mend it as the message says, or take the file of the repository."
    return Figures(
        read_published(results / "published.yaml"),
        _read(results / "independent.yaml", Independent, remedy),
    )


# ---- the data of the page -----------------------------------------------------------


def gather(results: Path) -> dict[str, Any]:
    """Collect the data of the page as JSON types. Raises RkzooError for an invalid file or a
    missing folder.
    """
    if not results.is_dir():
        raise RkzooError(
            f"There is no folder {results}.",
            "The page is made of the results in it.",
            "Give it with --results, or run this where the folder is.",
        )
    support = {row.model: row for row in read_support(results / "support.yaml")}
    accuracy = {row.model: row for row in read_rows(results / "accuracy.yaml")}
    figures = read_figures(results)
    entries = wholes(zoo_entries(cards(), support, accuracy, _titles(results)))
    tried = [row for row in support.values() if row.chips]
    return {
        "tiers": TIERS,
        "tasks": TASKS,
        "max_drop": MAX_DROP,
        "published": figures.published.source,
        "independent": [
            {"by": one.by, "url": one.url, "covers": one.covers}
            for one in figures.independent.sources
        ],
        "toolkits": sorted({row.toolkit for row in tried if row.toolkit}),
        "dates": sorted({r.date for r in tried} | {r.date for r in accuracy.values()}),
        "chips": [_chip(soc, chips()[soc]) for soc in supported()],
        "models": [entry(card, figures) for card in entries],
    }


def wholes(entries: Sequence[ZooEntry]) -> list[ZooEntry]:
    """Without the parts of pipelines, which their whole tells of; but with detectors, which are of
    use by themselves."""
    parts = {name for entry in entries if entry.card for name in entry.card.pipeline.values()}
    return [e for e in entries if e.name not in parts or (e.card and e.card.task in _ALONE)]


def _titles(results: Path) -> dict[str, str]:
    runs = results / "runs.yaml"
    return titles_of(read_runs(runs)) if runs.is_file() else {}


def results_folder() -> Path | None:
    """Folder of the results shipped with rkzoo: inside the package, or in the repository."""
    package = Path(__file__).parents[2]
    places = (package / "results", package.parents[1] / "results")
    return next((place for place in places if (place / "support.yaml").is_file()), None)


def of_card(card: Card, results: Path) -> dict[str, Any]:
    """Results of one card, as on the page. Raises RkzooError for an invalid file."""
    support = {row.model: row for row in read_support(results / "support.yaml")}
    accuracy = {row.model: row for row in read_rows(results / "accuracy.yaml")}
    figures = read_figures(results)
    cards = [card, *members(card).values()] if card.pipeline else [card]
    found = next(
        zoo_entry
        for zoo_entry in zoo_entries(cards, support, accuracy, _titles(results))
        if zoo_entry.name == card.name
    )
    return entry(found, figures)


def zoo_entries(
    all_cards: Sequence[Card],
    support: Mapping[str, Support],
    accuracy: Mapping[str, AccuracyRow],
    titles: Mapping[str, str] | None = None,
) -> list[ZooEntry]:
    """Join cards (without assets) and models tried without a card, by name. `titles` say in words
    what the data of a model is."""

    def made(name: str, card: Card | None, tried: Support | None, *parts: ZooEntry) -> ZooEntry:
        row = accuracy.get(name)
        data = (titles or {}).get(name) or (row.dataset if row else "")
        return ZooEntry(name, card, tried, row, parts, data)

    single = {
        card.name: made(card.name, card, support.get(card.name))
        for card in all_cards
        if not card.pipeline and not card.cpu and card.task != "asset"
    }
    whole = {
        card.name: made(
            card.name,
            card,
            None,
            *(single[part] for part in card.pipeline.values() if part in single),
        )
        for card in all_cards
        if card.pipeline
    }
    bare = {
        name: made(name, None, row)
        for name, row in support.items()
        if row.weights in ("no card", "structure only")
    }
    return [entry for _, entry in sorted((bare | single | whole).items())]


def entry(entry: ZooEntry, figures: Figures) -> dict[str, Any]:
    """Page data of one model."""
    card = entry.card
    return {
        "name": entry.name,
        "title": card.title if card else entry.support.file if entry.support else "",
        "summary": card.summary if card else "",
        "task": entry.task,
        "licence": card.licence.name if card else "",
        "origin": card.origin if card else "",
        "size": entry.size,
        "other_file": bool(entry.support and entry.support.weights == "another export"),
        "upstream": msgspec.to_builtins(card.upstream) if card and card.upstream else None,
        "accuracy": _accuracy(entry),
        "parts": [{"name": part.name, "accuracy": _accuracy(part)} for part in entry.parts],
        "on": {soc: on_chip(entry, soc, figures) for soc in supported()},
    }


def on_chip(entry: ZooEntry, soc: str, figures: Figures) -> dict[str, Any]:
    """Page data of one model on one chip. Sizes in bytes; `need` is weights and working memory;
    `speeds` are frames per second by data type, each with its source.
    """
    if entry.parts:
        return _together(entry, soc, figures)
    trial = entry.support.chips.get(soc) if entry.support else None
    tier, why = tier_of(entry, soc, trial)
    allowed = entry.dtypes(soc)
    dtype = trial.dtype if trial and trial.converts else allowed[0] if allowed else ""
    on_chips: dict[str, Any] = {"tier": tier, "why": why, "dtype": dtype}
    if trial and trial.converts:
        on_chips |= {"bytes": trial.bytes, "need": need(trial), "cpu": _counted(trial.on_cpu)}
    if tier != "blocked":
        speeds = {name: speed(entry, soc, name, figures) for name in allowed}
        on_chips["speeds"] = {name: found for name, found in speeds.items() if found}
        on_chips["command"] = command(entry, soc, dtype)
        if tier == "untried" and on_chips["speeds"]:
            on_chips |= {"tier": "vendor", "why": "Rockchip publishes its speed."}
    return on_chips


def _together(entry: ZooEntry, soc: str, figures: Figures) -> dict[str, Any]:
    """Page data of a pipeline: the worst tier and the total size of its parts."""
    parts = [(part.name, on_chip(part, soc, figures)) for part in entry.parts]
    name, worst = max(parts, key=lambda pair: TIERS.index(pair[1]["tier"]))
    togethers: dict[str, Any] = {
        "tier": worst["tier"],
        "why": f"{name}: {worst['why']}" if worst["why"] else "",
        "dtype": ", ".join(dict.fromkeys(p["dtype"] for _, p in parts if p["dtype"])),
    }
    for field in ("bytes", "need"):
        values = [part.get(field) for _, part in parts]
        togethers[field] = None if None in values else sum(values)
    if togethers["bytes"] is not None:
        togethers["cpu"] = _counted(
            [op for _, part in parts for op, n in part["cpu"] for _ in range(n)]
        )
    if worst["tier"] != "blocked":
        togethers["command"] = command(entry, soc, togethers["dtype"])
    return togethers


def tier_of(entry: ZooEntry, soc: str, trial: SupportTrial | None) -> tuple[Tier, str]:
    """The tier, and why it is not better."""
    if entry.support and entry.support.problem:
        return "blocked", entry.support.problem
    if entry.card and entry.card.socs and soc not in entry.card.socs:
        return "blocked", f"Its card names only {', '.join(entry.card.socs)}."
    if not entry.dtypes(soc):
        mine = ", ".join(entry.card.dtypes) if entry.card else ""
        return "blocked", f"The model is offered in {mine}, the chip computes in {_able(soc)}."
    if trial is None:
        return "untried", entry.support.untried if entry.support else ""
    if not trial.converts:
        return "blocked", trial.why
    if trial.fits == "no":
        bytes_needed, there = need(trial) or 0, inside(soc) or 0
        return "blocked", f"It needs {bytes_needed / 2**20:.0f} MB of the {there >> 20} MB inside."
    return _validated(entry, trial)


def _validated(entry: ZooEntry, trial: SupportTrial) -> tuple[Tier, str]:
    row, figure = entry.accuracy, entry.figure
    if entry.support and entry.support.weights == "structure only":
        return "converts", "Only its structure was built, with random weights."
    if row is None or figure is None:
        return "converts", "Its accuracy was not measured."
    if trial.dtype != "int8":
        return "converts", f"Its accuracy was measured in int8, not in {trial.dtype}."
    if entry.support is None or row.sha256 != entry.support.sha256:
        return "converts", "The accuracy is that of another file."
    if figure.drop > MAX_DROP:
        return "converts", f"INT8 costs {figure.drop:.2f} points."
    return ("board" if row.runtime == "board" else "simulator"), ""


def speed(entry: ZooEntry, soc: str, dtype: str, figures: Figures) -> dict[str, Any] | None:
    """Published figure, else the estimate, else the bound by the compiler's cycles, else None.
    `by`: who published it; `estimate`: the estimate beside it; `others`: what independent people
    measured; `without`: number of CPU layers that are in neither estimate nor bound."""
    named = (entry.name, entry.size, dtype, soc, entry.card.published if entry.card else "")
    fps = figures.published.fps(*named)
    estimated = _estimated(entry, soc, dtype)
    known = estimated if fps is None else {"fps": fps, "source": "published", "by": "Rockchip"}
    if known is None:
        return None
    if fps is not None and estimated and estimated["source"] == "estimate":
        known["estimate"] = {name: estimated[name] for name in ("fps", "low", "high")}
    others = figures.independent.speeds(*named)
    return known | {"others": others} if others else known


def _estimated(entry: ZooEntry, soc: str, dtype: str) -> dict[str, Any] | None:
    support = entry.support
    tables = (support.chips, support.half, support.w4a16) if support else ()
    trials = [table.get(soc) for table in tables]
    trial = next((one for one in trials if one and one.dtype == dtype), None)
    if trial is not None and trial.bound:
        most = round(1000 / trial.bound, 1)
        return {"fps": most, "source": "bound", "without": trial.cpu_unpriced}
    if trial is None or not (trial.ms and trial.low and trial.high):
        return None
    return {
        "fps": round(1000 / trial.ms, 1),
        "low": round(1000 / trial.high, 1),
        "high": round(1000 / trial.low, 1),
        "source": "estimate",
        "without": trial.cpu_unpriced,
    }


def need(trial: SupportTrial) -> int | None:
    """Weights and working memory in bytes; None where unknown."""
    if trial.weights is None or trial.internal is None:
        return None
    return trial.weights + trial.internal


def command(entry: ZooEntry, soc: str, dtype: str) -> str:
    """The convert command, with a file name where no weights can be fetched; empty for models
    without image input, which `convert` does not take. `dtype` may list several, of the parts of a
    pipeline.
    """
    card = entry.card
    if card and not card.input and not entry.parts:
        return ""
    fetched = card is not None and not card.export
    model = entry.name if fetched else entry.support.file if entry.support else ""
    words = ["rkzoo convert", model or f"{entry.name}.onnx", f"--soc {soc}"]
    default = card.dtype if card else "int8"
    if default not in dtype.split(", "):
        words.append(f"--dtype {dtype}")
    if "int8" in dtype and entry.task not in _OWN_PICTURES:
        words.append("--calib photos/")
    if card and card.family in _ASKED:
        words.append(_ASKED[card.family])
    if "int8" in dtype and entry.figure and entry.figure.plain:
        words.append("--plain")
    return " ".join(words)


def _accuracy(entry: ZooEntry) -> dict[str, Any] | None:
    row, figure, card = entry.accuracy, entry.figure, entry.card
    if row is None or figure is None:
        return None
    kept = ("metric", "unit", "truth", "images", "runtime", "original", "date")
    fields = msgspec.to_builtins(row)
    tuned = card is not None and card.int8 is not None and not figure.plain
    return {name: fields[name] for name in kept} | {
        "data": entry.data,
        "value": figure.value,
        "drop": figure.drop,
        "cost": figure.cost,
        "offered": card is None or "int8" in card.dtypes,
        "plain": row.int8 if tuned else None,
        "recipe": card.int8.words() if tuned and card and card.int8 else "",
    }


def _chip(soc: str, chip: Chip) -> dict[str, Any]:
    return {
        "name": soc,
        "aliases": chip.aliases,
        "cores": chip.cores,
        "tops": chip.tops,
        "dtypes": chip.dtypes,
        "memory": chip.memory,
        "inside": inside(soc),
    }


def _counted(operators: Sequence[str]) -> list[tuple[str, int]]:
    return [(op, operators.count(op)) for op in dict.fromkeys(operators)]


def _able(soc: str) -> str:
    return ", ".join(chips()[soc].dtypes)


def _bare(name: str) -> str:
    """A model name reduced to letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# ---- the page -----------------------------------------------------------------------


def page(zoo: Mapping[str, Any]) -> str:
    """Render the HTML page. Raises RkzooError where jinja2 is missing."""
    return render("zoo.html", zoo=zoo)
