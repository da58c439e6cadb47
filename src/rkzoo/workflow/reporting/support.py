"""Chip support report: which model builds for which chip, tried with the toolkit, stored as data.

A build here is that of `rkzoo estimate`: the graph as `convert` gives it to the toolkit, with INT8
ranges from noise, which affect neither success nor cost. The head cut is verified as by `convert`.
The effect of INT8 on results is covered by `report accuracy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.files import read_bytes, sha256_of
from rkzoo.graph.onnx.random_weights import with_random_weights
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.soc.chips import chips, supported
from rkzoo.spelling import unknown
from rkzoo.toolkit import environment
from rkzoo.toolkit.recipe import DEFAULT_VERSION, Dtype, offered
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.evaluation.evaluate import task_of
from rkzoo.workflow.performance.estimate import Estimate, estimate
from rkzoo.workflow.reporting.results import AccuracyRun, Support, SupportTrial, Weights
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.zoo.catalogue import cards
from rkzoo.zoo.fetch import weights
from rkzoo.zoo.schema import Card


class Candidate(StrictStruct, frozen=True):
    """A model to try: `model` is what `resolve` takes; empty where `untried` gives the reason, and
    where `structure` is the file of the network without its weights. `dtypes` are those of its
    card, where `model` is no card."""

    name: str
    task: str
    weights: Weights
    model: str = ""
    untried: str = ""
    structure: str = ""
    dtypes: tuple[Dtype, ...] = ()


# ---- which models -------------------------------------------------------------------


def candidates(
    runs: Sequence[AccuracyRun],
    assets: Path | None,
    names: Sequence[str] = (),
    *,
    structures: Path | None = None,
    offline: bool = False,
    report: ProgressReporter = SILENT,
) -> list[Candidate]:
    """List the models to try.

    Args:
        runs: Files below `assets`, by the name of a card or one of their own.
        assets: Where they are.
        names: Only these; all where empty.
        structures: Folder of networks without weights, `NAME.onnx.xz`, which stand in for cards
            whose weights cannot be reached.
        offline: Fetch no weights.
        report: Receives progress.

    Returns:
        All cards of single models that run on the NPU, then what has no card.

    Raises:
        RkzooError: A name is unknown.
    """
    nets = _structures(structures) if structures else {}
    files = {run.name: assets / run.model for run in runs if run.model} if assets else {}
    files = {name: path for name, path in files.items() if path.is_file()}
    single = [c for c in cards() if not (c.pipeline or c.cpu or c.task == "asset")]
    known = {card.name for card in single}
    loose = {name: path for name, path in nets.items() if name not in known | files.keys()}
    every = [*known, *(name for name in files if name not in known), *loose]
    if strange := [name for name in names if name not in every]:
        raise unknown(
            f"There is no model {strange[0]!r} to try.",
            f"There are {', '.join(sorted(every))}.",
            strange[0],
            every,
            "Name some of them, or none for all.",
        )
    chosen = set(names or every)
    candidates = [_of_card(c, files, nets, offline, report) for c in single if c.name in chosen]
    bare = [name for name in files if name not in known and name in chosen]
    return [
        *candidates,
        *(Candidate(name=n, task="", weights="no card", model=str(files[n])) for n in bare),
        *(_of_structure(path, n) for n, path in loose.items() if n in chosen),
    ]


def _structures(folder: Path) -> dict[str, Path]:
    found = {path.name.removesuffix(_XZ): path for path in sorted(folder.glob(f"*{_XZ}"))}
    if not found:
        raise RkzooError(
            f"{folder} holds no structure of a network.",
            f"They are called NAME{_XZ}.",
            "Give the folder that scripts/export_upstream.py writes to, tests/upstream.",
        )
    return found


def _of_structure(path: Path, name: str, card: Card | None = None) -> Candidate:
    return Candidate(
        name=name,
        task=card.task if card else "",
        weights="structure only",
        structure=str(path),
        dtypes=card.dtypes if card else (),
    )


def _of_card(
    card: Card,
    files: dict[str, Path],
    structures: dict[str, Path],
    offline: bool,
    report: ProgressReporter,
) -> Candidate:
    try:
        weights(card, report, offline=offline)
    except RkzooError as error:
        if card.name in files:
            path = files[card.name]
            same = sha256_of(path) in {source.sha256 for source in card.sources}
            whose: Weights = "of the card" if same else "another export"
            return Candidate(name=card.name, task=card.task, weights=whose, model=str(path))
        if card.name in structures:
            return _of_structure(structures[card.name], card.name, card)
        why = error.why if card.export else "Its weights cannot be reached here."
        return Candidate(name=card.name, task=card.task, weights="of the card", untried=why)
    return Candidate(name=card.name, task=card.task, weights="of the card", model=card.name)


# ---- trying them --------------------------------------------------------------------


def try_all(
    candidates: Iterable[Candidate],
    rows: Sequence[Support],
    socs: Sequence[str] = (),
    *,
    toolkit: str | None = None,
    fresh: bool = False,
    also: Dtype | None = None,
    keep: Callable[[list[Support]], None] = lambda rows: None,
    report: ProgressReporter = SILENT,
) -> list[Support]:
    """Build each model for each chip, sequentially.

    Args:
        candidates: the models.
        rows: earlier results; a trial of the same file, toolkit and rkzoo is not repeated.
        socs: chips; all where empty.
        toolkit: version of RKNN-Toolkit2; None for the default.
        fresh: repeat earlier trials.
        also: build in this data type the models that were built in another, instead.
        keep: called with the rows after each build, so that an interrupted run can be resumed.
        report: receives progress.

    Raises:
        RkzooError: no model can be tried: the toolkit is missing, or a file cannot be written.
    """
    release = toolkit or DEFAULT_VERSION
    supports = list(rows)
    ready_to_build = False
    for listed in candidates:
        with _with_weights(listed) as candidate:
            row, ready = _start(candidate, report)
            old = next((row for row in supports if row.model == candidate.name), None)
            if ready is None:
                # Keep an earlier trial that had access to the weights.
                if old is None or not old.chips:
                    supports = with_support(supports, row)
                    keep(supports)
                continue
            if not ready_to_build:
                environment.ensure(release, report=report)
                ready_to_build = True
            if old is not None and _stamp(old) == (row.sha256, release, version("rkzoo")):
                again = set(socs or supported()) if fresh else set()
                tried: dict[str, SupportTrial] = getattr(old, _FIELDS[also])
                kept = {soc: trial for soc, trial in tried.items() if soc not in again}
                row = msgspec.structs.replace(
                    old, task=row.task, weights=row.weights, **{_FIELDS[also]: kept}
                )
            else:
                row = _proved(row, ready, release, report)
            supports = with_support(supports, row)
            dtypes = candidate.dtypes or ready.dtypes
            for soc in _missing(row, dtypes, socs or supported(), also):
                dtype = also or _first(candidate.dtypes, soc)
                report.note(f"{candidate.name} on {soc}{f' in {dtype}' if dtype else ''}")
                trial = try_one(candidate.model, soc, release, dtype)
                row = _with_trial(row, soc, trial, also)
                supports = with_support(supports, row)
                keep(supports)
            keep(supports)
    return supports


_XZ = ".onnx.xz"
# The field of a row that holds the trials in a data type that was asked for; None: the model's own.
_FIELDS: dict[Dtype | None, str] = {None: "chips", "fp16": "half", "w4a16": "w4a16"}


@contextmanager
def _with_weights(candidate: Candidate) -> Iterator[Candidate]:
    """A structure as a file with random weights, the same each time, for as long as it is tried."""
    if not candidate.structure:
        yield candidate
        return
    with TemporaryDirectory(prefix="rkzoo-") as folder:
        file = Path(folder, f"{candidate.name}.onnx")
        model = with_random_weights(read_bytes(Path(candidate.structure)))
        file.write_bytes(model.SerializeToString(deterministic=True))
        del model
        yield msgspec.structs.replace(candidate, model=str(file))


def _first(dtypes: Sequence[Dtype], soc: str) -> Dtype | None:
    """The first of a card's data types that a chip has; None leaves it to the model."""
    return next((dtype for dtype in dtypes if dtype in chips()[soc].dtypes), None)


def _missing(
    row: Support, dtypes: Sequence[Dtype], socs: Sequence[str], also: Dtype | None
) -> list[str]:
    """Chips that lack a trial. In another data type only those that build the model, in one that
    is not it."""
    if row.problem:
        return []
    if also is None:
        return [soc for soc in socs if soc not in row.chips]
    other = {soc for soc, trial in row.chips.items() if trial.dtype not in ("", also)}
    able = [soc for soc in socs if soc in other and also in chips()[soc].dtypes]
    return [soc for soc in able if soc not in getattr(row, _FIELDS[also]) and offered(dtypes, also)]


def _with_trial(row: Support, soc: str, trial: SupportTrial, also: Dtype | None) -> Support:
    name = _FIELDS[also]
    return msgspec.structs.replace(row, **{name: _ordered(getattr(row, name) | {soc: trial})})


def _start(candidate: Candidate, report: ProgressReporter) -> tuple[Support, ResolvedModel | None]:
    row = Support(
        model=candidate.name,
        task=candidate.task,
        weights=candidate.weights,
        untried=candidate.untried,
        date=_today(),
    )
    if not candidate.model:
        return row, None
    try:
        ready = resolve(candidate.model, report=report)
    except RkzooError as error:
        return msgspec.structs.replace(row, problem=_sentence(error)), None
    return (
        msgspec.structs.replace(
            row,
            task=candidate.task or task_of(ready.contract),
            file=Path(ready.source.file).name,
            sha256=ready.source.sha256,
            size=ready.contract.picture.size if ready.contract.picture else None,
        ),
        ready,
    )


def _proved(row: Support, ready: ResolvedModel, toolkit: str, report: ProgressReporter) -> Support:
    """Add what is independent of the chip: verification of the cut, and versions."""
    row = msgspec.structs.replace(row, toolkit=toolkit, rkzoo=version("rkzoo"), cut="none")
    if not ready.is_cut:
        return row
    # fp16 needs no calibration, and the verification is the same.
    try:
        prepared = prepare(ready, ["rk3588"], "fp16", None, toolkit, report)
    except RkzooError as error:
        return msgspec.structs.replace(row, problem=_sentence(error))
    return msgspec.structs.replace(row, cut="proved" if prepared.proof else "none")


def try_one(
    model: str,
    soc: str,
    toolkit: str,
    dtype: Dtype | None = None,
    report: ProgressReporter = SILENT,
) -> SupportTrial:
    """Build once, or read the cache. A failed build is a trial too."""
    request = Request(toolkit=toolkit, dtype=dtype)
    try:
        (estimated,) = estimate(model, [soc], request, report=report)
    except RkzooError as error:
        return _blocked(_sentence(error))
    return trial_of(estimated)


def trial_of(estimate: Estimate) -> SupportTrial:
    """Convert an estimate to a trial."""
    table, speed = estimate.table, estimate.latency
    if table is None or speed is None:
        why = (
            _sentence(estimate.problem)
            if estimate.problem
            else "The toolkit gave no table of layers."
        )
        return _blocked(why, estimate.dtype)
    return SupportTrial(
        dtype=estimate.dtype,
        converts=True,
        bytes=table.size,
        weights=table.weights,
        internal=table.internal,
        on_cpu=tuple(layer.op for layer in estimate.on_cpu),
        fits=estimate.fit.verdict if estimate.fit else "",
        ms=_short(speed.ms),
        low=_short(speed.low),
        high=_short(speed.high),
        bound=None if speed.ms else _short(speed.bound),
        cpu_unpriced=speed.unpriced,
    )


def _blocked(why: str, dtype: Literal["", Dtype] = "") -> SupportTrial:
    return SupportTrial(dtype=dtype, converts=False, why=why)


def _sentence(error: RkzooError) -> str:
    """What and why in one line, without paths of this machine."""
    words = f"{error.what} {error.why}".split()
    return " ".join(Path(w).name if w.startswith("/") else w for w in words)[:400]


def with_support(rows: Sequence[Support], row: Support) -> list[Support]:
    """Rows sorted by name, with `row` replacing the one of its model."""
    return sorted(
        [*(support for support in rows if support.model != row.model), row], key=lambda r: r.model
    )


def _ordered(trials: dict[str, SupportTrial]) -> dict[str, SupportTrial]:
    return {soc: trials[soc] for soc in supported() if soc in trials}


def _stamp(row: Support) -> tuple[str, str, str]:
    return row.sha256, row.toolkit, row.rkzoo


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _today() -> str:
    return datetime.now(timezone.utc).date().isoformat()
