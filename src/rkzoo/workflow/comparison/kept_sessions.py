"""Sessions of a comparison, which cache their inputs and outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from rkzoo.contract.detect import DetectHead
from rkzoo.files import os_errors_explained
from rkzoo.progress import ProgressReporter
from rkzoo.protocol.board import Opened as BoardOpened
from rkzoo.runtime.batched import BatchedSession
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.runtime.simulator import fed_spec
from rkzoo.session import Array, Closeable, Session
from rkzoo.toolkit import environment
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan
from rkzoo.workflow.comparison.diagnosis import Runtime
from rkzoo.workflow.compile.simulate import inputs_at, simulate_in
from rkzoo.workflow.inference.plan import ModelPart, Plan
from rkzoo.workflow.inference.remote_backend import RemoteBackend, open_remote


class KeptSession(Closeable):
    """Session that caches inputs and outputs for one image. It takes the inputs of the built model,
    so that float gets the same batches and sizes.
    """

    def __init__(self, session: Session, inputs: Sequence[InputPlan]) -> None:
        self._session, self.label = session, session.label
        self.inputs = tuple(map(fed_spec, inputs))
        self.outputs = session.outputs
        self.calls: dict[bytes, tuple[list[Array], list[Array]]] = {}

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        key = hashlib.blake2b(
            b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        ).digest()
        if key not in self.calls:
            # Copied, since the caller reuses its arrays.
            fed = [np.array(array) for array in arrays]
            self.calls[key] = fed, self._session.run(fed)
        return self.calls[key][1]

    def close(self) -> None:
        self._session.close()


Opened = dict[str, KeptSession]


def open_on_board(
    planned: Plan, base: Plan, stack: ExitStack, report: ProgressReporter
) -> tuple[Opened, list[BoardOpened]]:
    """Open the sessions of a board by role, fed as those of `base` are, and what it told of them;
    `stack` closes them. Raises RkzooError."""
    opened: Opened = {}
    told = []
    for role, part in planned.parts.items():
        assert isinstance(part.backend, RemoteBackend)
        session = open_remote(part.backend, part.contract, report, layout="plain")
        told.append(session.opened)
        inputs = base.parts[role].built.recipe.inputs
        opened[role] = stack.enter_context(KeptSession(session, inputs))
    return opened, told


def open_sessions(
    planned: Plan, runtime: Runtime, stack: ExitStack, report: ProgressReporter
) -> tuple[Opened, dict[str, ToolkitProcess]]:
    """Open the sessions by role, and the toolkit processes of simulated ones; `stack` closes
    them.
    """
    opened: Opened = {}
    processes: dict[str, ToolkitProcess] = {}
    for role, part in planned.parts.items():
        build = part.built
        session: Session
        if runtime == "onnx":
            session = OnnxSession(float_graph(part), part.contract.picture)
        else:
            env = environment.ensure_for(build.recipe, report=report)
            process = stack.enter_context(ToolkitProcess(env, report=report))
            session = simulate_in(process, build, _size(part))
            if build.recipe.batch > 1:
                session = BatchedSession(session)  # float takes one at a time
            processes[role] = process
        inputs = inputs_at(build.recipe, _size(part))
        opened[role] = stack.enter_context(KeptSession(session, inputs))
    return opened, processes


def _size(part: ModelPart) -> tuple[int, int] | None:
    return part.contract.picture.size if part.contract.picture else None


def is_resized(part: ModelPart) -> bool:
    """Whether a build of several sizes is asked at another than its first."""
    recipe = part.built.recipe
    return inputs_at(recipe, _size(part)) != recipe.inputs


def float_graph(part: ModelPart) -> bytes:
    """The graph that a build is made of, which takes the picture at the size of the part's
    contract. Raises RkzooError."""
    build, head = part.built, part.contract.head
    with os_errors_explained("The model's graph cannot be read from the cache."):
        graph = build.onnx.read_bytes()
    if not isinstance(head, DetectHead) or not is_resized(part):
        return graph
    from rkzoo.graph.onnx.dynamic_size import with_dynamic_size
    from rkzoo.graph.onnx.read import parse

    freed: bytes = with_dynamic_size(parse(graph), max(head.strides)).SerializeToString()
    return freed
