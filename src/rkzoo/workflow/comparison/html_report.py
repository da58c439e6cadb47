"""A comparison as one HTML file that needs nothing else.

Names of tensors, labels and texts come from files of strangers, so everything is escaped, and
the page forbids itself scripts and the network.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.workflow.comparison.diagnosis import GOOD
from rkzoo.workflow.comparison.matching import Agreement, Pair
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures

if TYPE_CHECKING:
    from rkzoo.toolkit.analysis import LayerError
    from rkzoo.workflow.comparison.result import Comparison, Layers

TITLES = {"onnx": "float [onnx]", "fp16": "float16 [simulator]", "int8": "INT8 [simulator]"}
_WIDEST = 720  # pixels of a picture in the report
_ROWS = 40  # things listed for a picture
_CLEAREST = 1e-7  # what is nearer to 1 is drawn there
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #8889; --bad: #c62828; --good: #2e7d32 }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right }
th { font-weight: 600; vertical-align: bottom }
td.name, th.name { text-align: left; overflow-wrap: anywhere; max-width: 30rem }
.bad { color: var(--bad); font-weight: 600 } .quiet { opacity: .7 }
.verdict { border-left: 5px solid var(--good); padding: .3rem 1rem; font-size: 1.1rem }
.verdict.hurt { border-color: var(--bad) }
.side { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)) }
figure { margin: 0 } figure img { width: 100%; height: auto }
figcaption { font-size: 13px } .board { border: 2px dashed var(--line); padding: 1rem;
display: flex; align-items: center; justify-content: center; min-height: 6rem }
.scroll { overflow-x: auto } svg { max-width: 100%; height: auto; background: #fff }
code { background: #8882; padding: .1rem .3rem; border-radius: 3px; overflow-wrap: anywhere }
"""


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """A BGR picture as JPEG, made smaller where it is wider than the report shows."""
    height, width = image.shape[:2]
    if width > _WIDEST:
        size = (_WIDEST, max(1, round(height * _WIDEST / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not ok:
        raise RkzooError("A picture cannot be encoded for the report.", code=1)
    return data.tobytes()


def write_report(found: Comparison, folder: Path) -> Path:
    """Writes `folder`/report.html, whole or not at all, and gives its path. Raises
    RkzooError when the disk refuses."""
    path = folder / "report.html"
    write_text(path, page(found))
    return path


def page(found: Comparison) -> str:
    """The report as text."""
    hurt = any(one.hurt for one in found.ran) or bool(found.causes)
    parts = [
        f"<h1>{escape(found.model)}: float, float16 and INT8 compared</h1>",
        f'<p class="verdict{" hurt" if hurt else ""}">{escape(found.verdict)}</p>',
        f'<p class="quiet">{escape(found.note)} For {escape(found.soc)}, RKNN-Toolkit2 '
        f"{escape(found.toolkit)}, {len(found.pictures)} pictures.</p>",
        *_causes(found),
        f"<p>Next: <code>{escape(found.next)}</code></p>",
        *_pictures(found),
        *_agreements(found),
        *_things(found),
        *_outputs(found),
        *(part for one in found.layers for part in _layers(one)),
        *_skipped(found),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(found.model)}: comparison</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _causes(found: Comparison) -> Iterator[str]:
    if not found.causes:
        return
    yield "<h2>Likely causes</h2><ol>"
    several = len({cause.model for cause in found.causes}) > 1
    for cause in found.causes:
        where = f"<b>{escape(cause.model)}</b>: " if several else ""
        yield f"<li>{where}{escape(cause.text)}<br><code>{escape(cause.fix)}</code></li>"
    yield "</ol>"


def _pictures(found: Comparison) -> Iterator[str]:
    if not any(one.drawn for one in found.ran):
        return
    yield "<h2>The pictures side by side</h2>"
    for index, name in enumerate(found.pictures):
        yield f'<h3 class="quiet">{escape(name)}</h3><div class="side">'
        for one in found.ran:
            data = base64.b64encode(one.drawn[index]).decode("ascii")
            caption = f"{TITLES[one.runtime]}: {one.counts[index]} found"
            yield (
                f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{data}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        yield '<figure class="board quiet">board: no board here</figure></div>'


AGREED = ("", "in all", "found by both", "lost", "new", "mean IoU", "mean score change", "largest")


def agreement_row(title: str, one: Agreement) -> list[str]:
    """A row under AGREED."""
    return [
        title,
        str(one.things),
        str(one.found),
        str(one.lost),
        str(one.new),
        number(one.iou, 3),
        number(one.change, 3),
        number(one.largest_change, 3),
    ]


def extras(one: Agreement) -> list[tuple[str, str]]:
    """What masks, poses and texts have beside boxes: titles and values."""
    told = []
    if one.mask_iou is not None:
        told.append(("mean IoU of masks", number(one.mask_iou, 3)))
    if one.points_px is not None:
        told.append(("mean distance of key points", f"{one.points_px:.2f} px"))
    if one.same_text is not None:
        told.append(("lines read alike", f"{one.same_text} of {one.found}"))
    return told


def _agreements(found: Comparison) -> Iterator[str]:
    told = [(one, one.agreement) for one in found.ran if one.agreement is not None]
    if not told:
        return
    yield "<h2>What is found, against float</h2>"
    rows = [agreement_row(TITLES[one.runtime], agreed) for one, agreed in told]
    yield _table(AGREED, [*rows, ["board", "no board here", *[""] * (len(AGREED) - 2)]])
    for one, agreed in told:
        for title, value in extras(agreed):
            yield f"<p>{escape(TITLES[one.runtime])}: {escape(title)} {escape(value)}</p>"


def _things(found: Comparison) -> Iterator[str]:
    for one in found.ran:
        for name, matches in zip(found.pictures, one.matches, strict=False):
            rows = [
                *(_thing("lost", pair) for pair in matches.lost),
                *(_thing("new", pair) for pair in matches.new),
                *(_thing("", pair) for pair in sorted(matches.found, key=_moved)),
            ]
            if not rows:
                continue
            title = f"{TITLES[one.runtime]}, {name}: {len(matches.found)} of {matches.things}"
            header = ("", "what", "float", "here", "change", "IoU", "mask IoU", "points", "reads")
            used = [i for i in range(len(header)) if i < 6 or any(row[i] for row in rows)]
            shown = [[row[i] for i in used] for row in rows[:_ROWS]]
            more = f"<p>… and {len(rows) - _ROWS} more</p>" if len(rows) > _ROWS else ""
            yield (
                f"<details><summary>{escape(title)} found by both</summary>"
                + _table([header[i] for i in used], shown, names=(0, 1, 8))
                + f"{more}</details>"
            )


def _moved(pair: Pair) -> float:
    return -abs(pair.change or 0)


def _thing(kind: str, pair: Pair) -> list[str]:
    other = pair.text if pair.text is not None and pair.text != pair.label else ""
    return [
        kind,
        pair.label,
        number(pair.before, 3),
        number(pair.after, 3),
        "" if pair.change is None else f"{pair.change:+.3f}",
        number(pair.iou, 3),
        number(pair.mask_iou, 3),
        "" if pair.points_px is None else f"{pair.points_px:.1f} px",
        other,
    ]


_OUTPUTS = (
    "output",
    "meaning",
    "cosine",
    "max difference",
    "float range",
    "range here",
    "scale",
    "zero point",
    "at the ends",
    "cut off",
    "zeros",
    "codes used",
)


def _outputs(found: Comparison) -> Iterator[str]:
    for one in found.ran:
        if not one.outputs:
            continue
        yield f"<h2>Outputs in {escape(TITLES[one.runtime])}, against float</h2>"
        width = len(_OUTPUTS) if any(row.scale is not None for row in one.outputs) else 6
        rows = [_output(row)[:width] for row in one.outputs]
        yield _table(_OUTPUTS[:width], rows, names=(0, 1), bad=_bad_cosine)
    yield (
        '<p class="quiet">Scores are 0 nearly everywhere, and the cosine of such a tensor falls by '
        "rounding alone: what is found says more. Codes at an end that means 0 are counted under "
        "zeros only.</p>"
    )


def _output(row: OutputFigures) -> list[str]:
    ends = None if row.at_low is None else (row.at_low or 0) + (row.at_high or 0)
    name = row.name if row.part in ("", "model") else f"{row.part}: {row.name}"
    coded = row.scale is not None
    return [
        name,
        row.role,
        "not finite" if row.cosine is None else f"{row.cosine:.5f}",
        number(row.difference, 4),
        f"{row.float_low:.4g} … {row.float_high:.4g}",
        f"{row.low:.4g} … {row.high:.4g}",
        f"{row.scale:.4g}" if coded else "",
        str(row.zero_point) if coded else "",
        share(ends),
        share(row.clipped),
        share(row.zeros),
        str(row.codes) if coded else "",
    ]


def _bad_cosine(column: int, cell: str) -> bool:
    return column == 2 and (cell == "not finite" or float(cell) < GOOD)


def _layers(one: Layers) -> Iterator[str]:
    where = "" if one.part == "model" else f" of {one.part}"
    yield f"<h2>INT8 layer by layer{escape(where)}, {escape(one.picture)}</h2>"
    if one.first_bad is None:
        yield f"<p>No layer falls below a cosine of {GOOD}.</p>"
    else:
        yield f"<p>First below {GOOD}: <code>{escape(one.first_bad)}</code></p>"
    yield curve(one.rows)
    header = ("layer", "tensor", "kind", "cosine so far", "alone")
    numbers = {row.tensor: index for index, row in enumerate(one.rows)}
    rows = [
        [
            str(numbers[row.tensor]),
            row.tensor,
            row.op,
            number(row.cosine_entire, 5),
            number(row.cosine_single, 5),
        ]
        for row in one.worst
    ]
    yield f"<p>The worst by themselves:</p>{_table(header, rows, names=(1, 2))}"


def curve(rows: Sequence[LayerError]) -> str:
    """The cosine of every layer as an SVG drawing, the distance from 1 on a logarithmic
    scale. No name is drawn: layers are numbers in the graph's order, from 0."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "rkzoo", "svg.fonttype": "path"}):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for title, name, style in (
            ("with all before it in INT8", "cosine_entire", "-"),
            ("alone in INT8", "cosine_single", "."),
        ):
            points = [
                (index, max(1 - value, _CLEAREST))
                for index, row in enumerate(rows)
                if (value := getattr(row, name)) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=title, linewidth=1.2)
        axes.axhline(1 - GOOD, color="#c62828", linewidth=0.8, linestyle="--")
        axes.set_yscale("log")
        axes.set_ylim(2.0, _CLEAREST / 2)  # good is up
        ticks = [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6]
        axes.set_yticks(ticks, [f"{1 - tick:.6f}".rstrip("0").rstrip(".") for tick in ticks])
        axes.set_xlabel("layer")
        axes.set_ylabel("cosine with float")
        axes.grid(alpha=0.3)
        if axes.lines[1:]:
            axes.legend(loc="lower left")
        drawn = StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def _skipped(found: Comparison) -> Iterator[str]:
    if found.skipped:
        yield "<h2>Left out</h2><ul>"
        yield from (f"<li>{escape(text)}</li>" for text in found.skipped)
        yield "</ul>"


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.3g}"


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    names: Sequence[int] = (0,),
    bad: object = None,
) -> str:
    def cell(tag: str, column: int, text: str) -> str:
        kinds = ["name"] if column in names else []
        if tag == "td" and callable(bad) and bad(column, text):
            kinds.append("bad")
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", i, text) for i, text in enumerate(header))
    body = "".join(
        "<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
