"""Which outputs of a model are scores, whose range is known before calibration."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.graph.rknn.reader import RknnFile
from rkzoo.tasks.registry import spec_of
from rkzoo.toolkit.logscan import Finding
from rkzoo.toolkit.scales import check_scales

_SCORES = ("score", "score_sum", "objectness")


def score_roles(contract: Contract, outputs: Sequence[str]) -> list[str]:
    """The role of each output in the eyes of `toolkit.scales.check_scales`: "" for one that holds
    no scores, or scores that leave the graph before their sigmoid.

    Args:
        contract: What the model promises.
        outputs: The names of its outputs in their order.
    """
    head = contract.head
    if not isinstance(head, DetectHead):
        every = head is not None and spec_of(head).has_bounded_scores(head)
        return ["score" if every else ""] * len(outputs)
    if not head.activated or len(outputs) != len(head.outputs):
        return [""] * len(outputs)
    only = head.coding == "anchor" and not head.coefficients
    roles = ["score" if o.role == "anchors" and only else o.role for o in head.outputs]
    by_name = dict(zip((o.name for o in head.outputs), roles, strict=True))
    # The toolkit may rename outputs, and keeps their order.
    return [by_name.get(name, role) for name, role in zip(outputs, roles, strict=True)]


def score_outputs(contract: Contract, outputs: Sequence[str]) -> tuple[str, ...]:
    """The names of those outputs that hold nothing but scores in 0..1."""
    roles = score_roles(contract, outputs)
    return tuple(name for name, role in zip(outputs, roles, strict=True) if role in _SCORES)


def scale_findings(file: RknnFile, contract: Contract) -> tuple[Finding, ...]:
    """What the output scales of a .rknn say about its scores."""
    return check_scales(
        file.outputs, score_roles(contract, [output.name for output in file.outputs])
    )
