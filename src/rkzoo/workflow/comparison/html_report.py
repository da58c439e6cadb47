"""Self-contained HTML report of a comparison.

Tensor names, labels and texts are untrusted, so the template escapes everything, and the page's
policy forbids scripts and network access.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.resampling import FEW
from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.html_template import render
from rkzoo.workflow.comparison.diagnosis import GOOD, Runtime
from rkzoo.workflow.comparison.matching import Agreement, MatchedPair
from rkzoo.workflow.comparison.tensor_metrics import OutputFigures

if TYPE_CHECKING:
    from rkzoo.toolkit.analysis import LayerError
    from rkzoo.workflow.comparison.result import (
        BoardComparison,
        Comparison,
        LayerComparison,
        RuntimeComparison,
    )

_FORMATS: dict[Runtime, str] = {
    "onnx": "float",
    "fp16": "float16",
    "int8": "INT8",
    "w4a16": "W4A16",
    "board_fp16": "float16",
    "board_int8": "INT8",
    "board_w4a16": "W4A16",
}
_WIDEST = 720  # maximum width of an image in pixels
_ROWS = 40  # items listed per image
_CLEAREST = 1e-7  # lower limit of the plotted distance from 1


@dataclass(frozen=True)
class Table:
    """A table of the page: `names` are text columns, `bad` the (row, column) cells in red."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: Sequence[int] = (0,)
    bad: frozenset[tuple[int, int]] = frozenset()


def title(variant: RuntimeComparison) -> str:
    """What was run, and where: `INT8 [simulator]`."""
    return f"{_FORMATS[variant.runtime]} [{variant.label}]"


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode a BGR image as JPEG, downscaled to the width of the report."""
    height, width = image.shape[:2]
    if width > _WIDEST:
        size = (_WIDEST, max(1, round(height * _WIDEST / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not ok:
        raise RkzooError("A picture cannot be encoded for the report.", code=1)
    return data.tobytes()


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write `folder`/report.html atomically, and return its path. Raises RkzooError when it cannot
    be written.
    """
    path = folder / "report.html"
    write_text(path, page(comparison))
    return path


def page(comparison: Comparison) -> str:
    """Render the report."""
    agreed = [
        (title(variant), variant.agreement)
        for variant in comparison.ran
        if variant.agreement is not None
    ]
    rows = [agreement_row(title, agreement) for title, agreement in agreed]
    return render(
        "comparison.html",
        found=comparison,
        hurt=any(variant.hurt for variant in comparison.ran) or bool(comparison.causes),
        pictures=list(_pictures(comparison)),
        agreements=Table(AGREED, rows + _no_board(comparison)) if rows else None,
        more=[(title, *extra) for title, agreement in agreed for extra in extras(agreement)],
        things=list(_match_tables(comparison)),
        outputs=[
            (title(variant), _outputs(variant.outputs))
            for variant in comparison.ran
            if variant.outputs
        ],
        layers=[(layer, curve(layer.rows), _worst(layer)) for layer in comparison.layers],
        board=_board(comparison.board) if comparison.board else None,
        good=GOOD,
    )


def _no_board(comparison: Comparison) -> list[list[str]]:
    if comparison.board is not None:
        return []
    return [["board", "no board here", *[""] * (len(AGREED) - 2)]]


BOARD_OUTPUTS = (
    "",
    "output",
    "codes equal",
    "most apart",
    "max difference",
    "cosine",
    "",
)


def board_rows(board: BoardComparison) -> list[list[str]]:
    """A board's outputs against the simulator's, with the columns BOARD_OUTPUTS."""
    return [
        [
            _FORMATS[against.runtime],
            output.name,
            "float" if output.equal is None else share(output.equal),
            "" if output.codes is None else str(output.codes),
            number(output.difference, 4),
            number(output.cosine, 5),
            "ok" if output.level == "ok" else output.why,
        ]
        for against in board.against
        for output in against.outputs
    ]


def board_hardware(board: BoardComparison) -> str:
    """The board, its chip and its NPU's software in one line."""
    library = f"{board.library} {board.library_version}".strip()
    parts = (board.board, board.chip or "", f"driver {board.driver}", library)
    return f"{board.label}: {', '.join(part for part in parts if part)}"


def _board(board: BoardComparison) -> dict[str, object]:
    """Text and table of the board's section."""
    rows = board_rows(board)
    bad = frozenset((line, 6) for line, row in enumerate(rows) if row[6] != "ok")
    return {
        "hardware": board_hardware(board),
        "says": board.says,
        "outputs": Table(BOARD_OUTPUTS, rows, names=(0, 1, 6), bad=bad),
        "known": board.known,
    }


def _pictures(comparison: Comparison) -> Iterator[dict[str, object]]:
    """For each image its name, and a caption and a base64 JPEG per backend."""
    if not any(variant.drawn for variant in comparison.ran):
        return
    for index, name in enumerate(comparison.pictures):
        shown = [
            (
                f"{title(variant)}: {variant.counts[index]} found",
                base64.b64encode(variant.drawn[index]).decode("ascii"),
            )
            for variant in comparison.ran
        ]
        yield {"name": name, "shown": shown}


AGREED = ("", "in all", "found by both", "lost", "new", "mean IoU", "mean score change", "largest")


def agreement_row(title: str, agreement: Agreement) -> list[str]:
    """A row with the columns AGREED."""
    return [
        title,
        str(agreement.things),
        str(agreement.found),
        str(agreement.lost),
        str(agreement.new),
        number(agreement.iou, 3),
        number(agreement.change, 3),
        number(agreement.largest_change, 3),
    ]


def _share(agreement: Agreement) -> str:
    share = f"{100 * agreement.share:.1f} %"
    if agreement.share_interval is None:
        return f"{share}; {agreement.pictures} pictures are too few for an interval ({FEW})"
    low, high = agreement.share_interval
    return (
        f"{share} ({100 * low:.1f} to {100 * high:.1f}, 95 %, bootstrap over "
        f"{agreement.pictures} pictures)"
    )


def extras(agreement: Agreement) -> list[tuple[str, str]]:
    """Titles and values that masks, poses and texts have besides boxes."""
    extras = [("as float has it", _share(agreement))] if agreement.things else []
    if agreement.mask_iou is not None:
        extras.append(("mean IoU of masks", number(agreement.mask_iou, 3)))
    if agreement.points_px is not None:
        extras.append(("mean distance of key points", f"{agreement.points_px:.2f} px"))
    if agreement.same_text is not None:
        extras.append(("lines read alike", f"{agreement.same_text} of {agreement.found}"))
    return extras


def _match_tables(comparison: Comparison) -> Iterator[tuple[str, Table, int]]:
    """For each backend and image a title, the items, and how many are not listed."""
    for variant in comparison.ran:
        for name, matches in zip(comparison.pictures, variant.matches, strict=False):
            rows = [
                *(_pair_cells("lost", pair) for pair in matches.lost),
                *(_pair_cells("new", pair) for pair in matches.new),
                *(_pair_cells("", pair) for pair in sorted(matches.found, key=_moved)),
            ]
            if not rows:
                continue
            caption = f"{title(variant)}, {name}: {len(matches.found)} of {matches.things}"
            header = ("", "what", "float", "here", "change", "IoU", "mask IoU", "points", "reads")
            used = [i for i in range(len(header)) if i < 6 or any(row[i] for row in rows)]
            shown = [[row[i] for i in used] for row in rows[:_ROWS]]
            table = Table([header[i] for i in used], shown, names=(0, 1, 8))
            yield caption, table, max(0, len(rows) - _ROWS)


def _moved(pair: MatchedPair) -> float:
    return -abs(pair.change or 0)


def _pair_cells(kind: str, pair: MatchedPair) -> list[str]:
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
    "mean difference",
    "float range",
    "range here",
    "scale",
    "zero point",
    "at the ends",
    "cut off",
    "zeros",
    "codes used",
)


def _outputs(outputs: Sequence[OutputFigures]) -> Table:
    width = len(_OUTPUTS) if any(row.scale is not None for row in outputs) else 7
    bad = (i for i, row in enumerate(outputs) if row.cosine is None or round(row.cosine, 5) < GOOD)
    return Table(
        _OUTPUTS[:width],
        [_output(row)[:width] for row in outputs],
        names=(0, 1),
        bad=frozenset((line, _OUTPUTS.index("cosine")) for line in bad),
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
        number(row.mean_difference, 4),
        f"{row.float_low:.4g} … {row.float_high:.4g}",
        f"{row.low:.4g} … {row.high:.4g}",
        f"{row.scale:.4g}" if coded else "",
        str(row.zero_point) if coded else "",
        share(ends),
        share(row.clipped),
        share(row.zeros),
        str(row.codes) if coded else "",
    ]


def _worst(layer_comparison: LayerComparison) -> Table:
    """The layers that are worst when quantized alone."""
    numbers = {row.tensor: index for index, row in enumerate(layer_comparison.rows)}
    rows = [
        [
            str(numbers[row.tensor]),
            row.tensor,
            row.op,
            number(row.cosine_entire, 5),
            number(row.cosine_single, 5),
        ]
        for row in layer_comparison.worst
    ]
    return Table(("layer", "tensor", "kind", "cosine so far", "alone"), rows, names=(1, 2))


def curve(rows: Sequence[LayerError]) -> str:
    """Plot the cosine of every layer as SVG, its distance from 1 on a logarithmic scale. Layers are
    numbered in graph order, from 0, so no untrusted names are drawn.
    """
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
        axes.set_ylim(2.0, _CLEAREST / 2)  # better is higher
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


def number(value: float | None, digits: int) -> str:
    """Format with fixed digits; "" for None."""
    return "" if value is None else f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.3g}"


def share(value: float | None) -> str:
    """Format as a percentage; "" for None."""
    return "" if value is None else f"{value:.2%}"
