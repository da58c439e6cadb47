"""The custom operators that a .rknn needs on a board."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rkzoo.contract.custom_operator import MARK, CustomOperator
from rkzoo.errors import RkzooError
from rkzoo.graph.rknn.reader import RknnFile

_REGISTER = "register_custom_ops"


def custom_operators(
    path: Path, file: RknnFile | None, has: Callable[[str], bool]
) -> tuple[CustomOperator, ...]:
    """What is to be registered for a model, from the file beside it.

    Args:
        path: The .rknn.
        file: What it says; None where it is encrypted.
        has: Whether the NPU's library has a function.

    Returns:
        Its custom operators; none for most models.

    Raises:
        RkzooError: The library takes none, or what computes one is not there.
    """
    named = {step.type for step in file.steps if step.type.startswith(MARK)} if file else set()
    if not named:
        return ()
    what = f"{path.name} cannot run here."
    holds = f"It holds {', '.join(sorted(named))}, which the NPU's library does not compute itself"
    if not has(_REGISTER):
        raise RkzooError(
            what,
            f"{holds}, and this library takes no custom operators: it has no rknn_{_REGISTER}.",
            "Use a librknnrt.so that is newer than 1.5.2 (rkzoo doctor says where it lies), or end "
            "the model before them, with the `outputs` of a card.",
        )
    if not path.with_name(path.name + ".json").exists():
        raise RkzooError(
            what,
            f"{holds}, and {path.name}.json, which holds what does, is not beside it.",
            "Copy both files here, as rkzoo convert wrote them. Over --on it is not sent: run the "
            "command on the board itself.",
        )
    from rkzoo.workflow.request.sidecar import read_sidecar

    known = read_sidecar(path).recipe.custom
    if missing := named - {one.type for one in known}:
        raise RkzooError(
            what,
            f"{path.name}.json does not say what computes {', '.join(sorted(missing))}.",
            "Convert the model again with rkzoo convert.",
        )
    return tuple(one for one in known if one.type in named)
