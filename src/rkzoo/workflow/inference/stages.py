"""One answer in three stages, each timed: what bench and stream tell apart."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import NDArray

from rkzoo.session import Session
from rkzoo.workflow.inference.model import Image


@runtime_checkable
class StagedTask(Protocol):
    """A task whose stages can be called one by one. What comes back to the place that it had in
    the picture is prepared as a pair: the arrays, and how they lay in it."""

    session: Session

    def preprocess(self, image: Image) -> list[NDArray[Any]] | tuple[list[NDArray[Any]], Any]: ...

    def postprocess(self, outputs: list[NDArray[Any]], *place: Any) -> Any: ...


class StageTimes(NamedTuple):
    """Seconds."""

    preprocess: float
    inference: float
    postprocess: float


def run_stages(
    task: StagedTask, image: Image, decode: Callable[..., Any] | None = None
) -> tuple[Any, StageTimes]:
    """What `task` makes of a BGR picture, and the seconds of its stages; `decode` in the place of
    the task's own."""
    began = perf_counter()
    prepared = task.preprocess(image)
    arrays, *place = prepared if isinstance(prepared, tuple) else (prepared,)
    fed = perf_counter()
    outputs = task.session.run(arrays)
    ran = perf_counter()
    prediction = (decode or task.postprocess)(outputs, *place)
    return prediction, StageTimes(fed - began, ran - fed, perf_counter() - ran)
