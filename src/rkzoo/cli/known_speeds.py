"""What is known of a card's speed without running it, each figure with who says so."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def known_speeds(name: str, socs: Collection[str] = ()) -> list[str]:
    """Describe published, estimated and independently measured speeds, a line a chip and format.

    Args:
        name: A card's name; other models have no line.
        socs: Chips; empty for all.

    Returns:
        Lines such as "rk3588 int8: 73.5 frames/s published by Rockchip; 53.2 by Q-engineering".
    """
    from rkzoo.errors import RkzooError
    from rkzoo.workflow.reporting.zoo import of_card, results_folder
    from rkzoo.zoo.catalogue import card

    try:
        found = card(name)
    except RkzooError:
        return []
    folder = results_folder()
    if folder is None or found.cpu or found.file or found.task == "asset":
        return []
    chips = of_card(found, folder)["on"].items()
    return [
        f"{soc} {dtype}: {_told(speed)}"
        for soc, on in chips
        if not socs or soc in socs
        for dtype, speed in on.get("speeds", {}).items()
    ]


def _told(speed: dict[str, Any]) -> str:
    if speed["source"] == "published":
        words = [f"{speed['fps']:.1f} frames/s published by {speed['by']}"]
    elif speed["source"] == "bound":
        words = [f"at most {speed['fps']:.1f} frames/s by the compiler's cycles"]
    else:
        words = [f"{speed['fps']:.1f} frames/s {_interval(speed)}"]
    if "estimate" in speed:
        words.append(f"{speed['estimate']['fps']:.1f} {_interval(speed['estimate'])}")
    words += [f"{other['fps']:.1f} measured by {other['by']}" for other in speed.get("others", ())]
    return "; ".join(words)


def _interval(estimate: dict[str, Any]) -> str:
    return f"estimated ({estimate['low']:.1f} to {estimate['high']:.1f})"
