"""A served model in a worker: tensors by name, and natural inputs to answers as JSON or a file."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from threading import Lock
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.files import temporary_folder
from rkzoo.progress import NoteKeeper
from rkzoo.protocol.tensors import Body, InferRequest, decode_request, encode_response_pieces
from rkzoo.serving.calls import (
    DEFAULTS,
    InferArguments,
    InferReply,
    ModelArguments,
    OpenedModel,
    PartSpecs,
    Predicted,
    PredictOptions,
)
from rkzoo.serving.channel import Buffer
from rkzoo.serving.errors import problem_of
from rkzoo.serving.worker import Answer
from rkzoo.session import Array, Label, Session, dequantise, plain, plain_spec
from rkzoo.vision.letterbox import with_channels

if TYPE_CHECKING:
    from rkzoo.workflow.inference.model import Answer as AnswerOf
    from rkzoo.workflow.inference.model import Draw, Prediction
    from rkzoo.workflow.inference.plan import Plan

WORKERS: dict[Label, int] = {"onnx": 2, "simulator": 1, "board": 2}
"""Slots where nothing is asked; on a board where the cores are not known."""

_MOST_TASKS = 8  # tasks with options of a request's own that are kept


class _OpenTask(NamedTuple):
    """A task, as it answers with a second look, and how its answers are drawn."""

    task: Callable[[Any], Prediction]
    answer: AnswerOf
    painter: Draw


_PLANS: dict[bytes, Plan] = {}
_PLANNING = Lock()


def _planned(arguments: ModelArguments) -> Plan:
    """The plan of the model, found once in this process."""
    from rkzoo.workflow.inference.plan import plan
    from rkzoo.workflow.request.request import request_of

    key = msgspec.json.encode((arguments.model, arguments.request))
    with _PLANNING:
        if key not in _PLANS:
            request = request_of(None, arguments.request)
            _PLANS[key] = plan(arguments.model, request, _Noted())
        return _PLANS[key]


class _Noted(NoteKeeper):
    """What is said of a model when it is found goes to stderr, which is the server's log."""

    def note(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)


class ModelSlot:
    """One slot of a served model: its sessions, and the task on top of them.

    Args:
        arguments: ModelArguments as JSON.

    Raises:
        RkzooError: It cannot be opened.
    """

    def __init__(self, arguments: msgspec.Raw) -> None:
        from rkzoo.progress import SILENT
        from rkzoo.workflow.inference.inputs import of_plan
        from rkzoo.workflow.inference.plan import npu_workers, on_core, open_part
        from rkzoo.workflow.inference.rga_preprocess import attach_rga

        asked = msgspec.json.decode(arguments, type=ModelArguments)
        whole = _planned(asked)
        self.until = inf
        self._asked = asked.request
        self._plan = on_core(whole, asked.number)
        self._kind = of_plan(whole)
        self._stack = ExitStack()
        self._tasks: OrderedDict[bytes, _OpenTask] = OrderedDict()
        slots = asked.slots or npu_workers(whole) or WORKERS[whole.label]
        threads = max(1, (os.cpu_count() or 1) // slots) if whole.label == "onnx" else 0
        try:
            self._parts = {
                role: (
                    part.answers,
                    self._stack.enter_context(open_part(part, threads=threads)),
                )
                for role, part in self._plan.parts.items()
            }
            for _, session in self._parts.values():
                self._give_up_late(session)
            head = self._plan.head
            self._head = (
                self._parts["model"][0].head if head is None and len(self._parts) == 1 else head
            )
            for _, session in self._parts.values():
                attach_rga(session, self._stack, SILENT)
            self._task(PredictOptions())
        except BaseException:
            self._stack.close()
            raise
        self.opened = self._describe(slots)

    def _give_up_late(self, session: Session) -> None:
        """Lets no run of the session begin for which nobody waits any more: the answer to a long
        sound takes many, and would hold the slot for all of them."""
        run = session.run

        def run_in_time(arrays: Sequence[Array]) -> list[Array]:
            if monotonic() > self.until:
                raise RkzooError(
                    "The request is given up.", "Nobody waits for its answer any more."
                )
            return run(arrays)

        session.run = run_in_time  # type: ignore[method-assign]

    def _describe(self, slots: int) -> OpenedModel:
        from rkzoo.tasks.registry import spec_of

        contracts = [contract for contract, _ in self._parts.values()]
        return OpenedModel(
            kind=self._kind.name,
            task=spec_of(self._head).name,
            runtime=self._plan.label,
            parts={role: _specs(session) for role, (_, session) in self._parts.items()},
            slots=slots,
            labels=contracts[0].labels if len(contracts) == 1 else (),
            written=tuple(sorted(self._kind.written)),
            languages=spec_of(self._head).languages(self._head),
        )

    def call(self, kind: str, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        """Answers `infer` (several requests for one part), `predict` (one input's bytes) or
        `embed` (texts and pictures)."""
        return _CALLS[kind](self, arguments, data)

    def close(self) -> None:
        self._stack.close()

    def _infer(self, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        asked = msgspec.json.decode(arguments, type=InferArguments)
        if asked.part not in self._parts:
            raise RkzooError(f"There is no part {asked.part}.", code=1)
        session = self._parts[asked.part][1]
        return answered(session, asked, data, outputs=floats_of)

    def _predict(self, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        from rkzoo.json_values import json_text
        from rkzoo.tasks.embed.sentence import SentenceEmbedder
        from rkzoo.workflow.inference.model import Result

        options = msgspec.json.decode(arguments, type=PredictOptions)
        if options.format != "json" and options.format not in self._kind.written:
            raise RkzooError(
                f"The answer cannot be given as {options.format}.",
                f"It is given as json, {', '.join(sorted(self._kind.written))}.",
                "Ask for one of these.",
            )
        path = Path(Path(options.filename).name or self._kind.name)
        source = self._kind.decode(data[0], path)
        task, answer, painter = self._task(options)
        if isinstance(task, SentenceEmbedder) and not self._plan.options.prompts:
            raise RkzooError(
                f"{self._plan.name} makes vectors of texts, and compares them with nothing here.",
                "It was given no text to compare with.",
                "POST /v1/embeddings gives the vectors, as OpenAI's API has it.",
            )
        start = perf_counter()
        prediction, warnings = answer(source)
        seconds = perf_counter() - start
        told = Predicted(options.format, seconds, _duration(source))
        if isinstance(source, np.ndarray) and source.ndim == 3:
            source = with_channels(source, 3)
        label = self._plan.label
        result = Result(prediction, source, None, label, seconds, painter, warnings)
        if options.format == "json":
            document = result.to_json() | {"file": options.filename or None}
            return Answer(told, [json_text(document).encode()])
        with temporary_folder() as folder:
            written = result.save(folder / f"answer{options.format}")
            return Answer(told, [written.read_bytes()])

    def _embed(self, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        from rkzoo.serving.embedding import embed

        return embed(self._task(PredictOptions()).task, msgspec.msgpack.decode(data[0]))

    def _task(self, options: PredictOptions) -> _OpenTask:
        """The task with a request's options on top of the model's own."""
        asked = options.asked()
        key = msgspec.json.encode(asked)
        if key not in self._tasks:
            self._tasks[key] = self._new_task(asked)
            while len(self._tasks) > _MOST_TASKS:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(key)
        return self._tasks[key]

    def _new_task(self, asked: Mapping[str, Any]) -> _OpenTask:
        from rkzoo.tasks.registry import validate_options
        from rkzoo.workflow.inference.load import checked, painter_of, task_of
        from rkzoo.workflow.request.request import request_of

        whole = self._plan.options
        own = {name: value for name, value in self._asked.items() if name in DEFAULTS}
        request = request_of(None, own | dict(asked))
        validate_options(self._head, request.given())
        options = replace(
            request.task_options, prompts=whole.prompts, against=whole.against, known=whole.known
        )
        task = task_of(self._plan, self._parts, options, _Noted())
        return _OpenTask(task, checked(task), painter_of(task))


_CALLS: dict[str, Callable[[ModelSlot, msgspec.Raw, list[bytes]], Answer]] = {
    "infer": ModelSlot._infer,
    "predict": ModelSlot._predict,
    "embed": ModelSlot._embed,
}


def _duration(source: Any) -> float | None:
    """Of a sound, in seconds."""
    from rkzoo.audio.sound import Sound

    return source.seconds if isinstance(source, Sound) else None


# ---- tensors ------------------------------------------------------------------------------


def _specs(session: Session) -> PartSpecs:
    return PartSpecs(tuple(session.inputs), tuple(map(plain_spec, session.outputs)))


def floats_of(session: Session, outputs: Sequence[Array]) -> dict[str, Array]:
    """Outputs by name in the graph's order: dequantised where they are integers with a scale."""
    named = {}
    for array, spec in zip(outputs, session.outputs, strict=True):
        ordered = plain(array, spec)
        floats = spec.scale is not None or ordered.dtype.kind == "f"
        named[spec.name] = dequantise(ordered, spec) if floats else ordered
    return named


def raw_of(session: Session, outputs: Sequence[Array]) -> dict[str, Array]:
    """Outputs by name as the session gives them."""
    return {spec.name: array for array, spec in zip(outputs, session.outputs, strict=True)}


def answered(
    session: Session,
    asked: InferArguments,
    data: Sequence[bytes],
    *,
    outputs: Callable[[Session, Sequence[Array]], dict[str, Array]],
) -> Answer:
    """The answer of a slot to `infer`: what `infer_each` gives, for its call.

    Args:
        session: What runs the requests.
        asked: What they call the model, and the JSON parts of their bodies.
        data: Their bodies.
        outputs: As for `infer_each`.
    """
    bodies = [Body(body, size) for body, size in zip(data, asked.header_sizes, strict=True)]
    replies = infer_each(session, bodies, asked.name, asked.version, outputs=outputs)
    return Answer([reply for reply, _ in replies], [body for _, body in replies])


def infer_each(
    session: Session,
    bodies: Sequence[Body],
    name: str,
    version: str,
    *,
    outputs: Callable[[Session, Sequence[Array]], dict[str, Array]],
) -> list[tuple[InferReply, Buffer]]:
    """Answers requests, as many at once as the model's batch takes.

    Args:
        session: What runs them.
        bodies: The requests.
        name: What the answers call the model.
        version: Likewise.
        outputs: Makes named arrays of what the session gives: `floats_of` or `raw_of`.

    Returns:
        An answer and its body for each, in order; a request that is wrong gets an error of its
        own and costs the others nothing.
    """
    replies: dict[int, tuple[InferReply, Buffer]] = {}
    requests: dict[int, tuple[InferRequest, list[Array]]] = {}
    for index, body in enumerate(bodies):
        try:
            request = decode_request(body)
            requests[index] = request, fed(request, session)
        except RkzooError as error:
            replies[index] = InferReply(error=problem_of(error)), b""
    for group in _groups(session, {index: fed for index, (_, fed) in requests.items()}):
        try:
            parts = _run_together(session, [requests[index][1] for index in group], outputs)
            for index, arrays in zip(group, parts, strict=True):
                replies[index] = _reply(name, version, requests[index][0], arrays)
        except RkzooError as error:
            replies |= {index: (InferReply(error=problem_of(error)), b"") for index in group}
    return [replies[index] for index in range(len(bodies))]


def _reply(
    name: str, version: str, request: InferRequest, arrays: dict[str, Array]
) -> tuple[InferReply, Buffer]:
    try:
        pieces, header_size = encode_response_pieces(name, version, request, arrays)
    except RkzooError as error:
        return InferReply(error=problem_of(error)), b""
    return InferReply(header_size), pieces


def fed(request: InferRequest, session: Session) -> list[Array]:
    """The request's arrays in the session's order. Raises RkzooError where they do not fit."""
    names = [spec.name for spec in session.inputs]
    if set(names) != set(request.inputs):
        raise RkzooError(
            "The inputs do not fit the model.",
            f"It takes {', '.join(names)}, and was given {', '.join(request.inputs) or 'none'}.",
            "GET /v2/models/NAME tells names, shapes and datatypes.",
        )
    return [_checked(request.inputs[spec.name], spec) for spec in session.inputs]


def _checked(array: Array, spec: TensorSpec) -> Array:
    """Raises RkzooError for another shape or type; fewer samples than the batch are taken."""
    same = len(array.shape) == len(spec.shape) and all(
        want in (-1, have) for have, want in zip(array.shape[1:], spec.shape[1:], strict=True)
    )
    first = not spec.shape or (
        same and (spec.shape[0] == -1 or 0 < array.shape[0] <= spec.shape[0])
    )
    if not (same and first) or str(array.dtype) != spec.dtype:
        raise RkzooError(
            f"The input {spec.name} is {array.dtype} {list(array.shape)}.",
            f"The model takes {spec.dtype} {list(spec.shape)}.",
            "GET /v2/models/NAME tells names, shapes and datatypes.",
        )
    return array


def _groups(session: Session, fed: Mapping[int, list[Array]]) -> list[list[int]]:
    """Which requests are run together: as many in order as the batch takes."""
    batch = _specs(session).batch
    groups: list[list[int]] = []
    room = 0
    for index, arrays in fed.items():
        count = arrays[0].shape[0] if arrays and arrays[0].ndim else 1
        if batch > 1 and groups and count <= room:
            groups[-1].append(index)
            room -= count
        else:
            groups.append([index])
            room = batch - count
    return groups


def _run_together(
    session: Session,
    requests: Sequence[list[Array]],
    outputs: Callable[[Session, Sequence[Array]], dict[str, Array]],
) -> list[dict[str, Array]]:
    """One run for all; each gets its part of the outputs."""
    batch = _specs(session).batch
    counts = [arrays[0].shape[0] if batch > 1 else 1 for arrays in requests]
    if batch <= 1 or (len(requests) == 1 and counts[0] == batch):
        return [outputs(session, session.run(requests[0]))]
    stacked = [np.concatenate(parts) for parts in zip(*requests, strict=True)]
    missing = batch - len(stacked[0])
    # What fills the batch up is the last sample again: any valid one will do.
    filled = [np.concatenate([array, *[array[-1:]] * missing]) for array in stacked]
    named = outputs(session, session.run(filled))
    ends = np.cumsum(counts)
    shared = all(array.ndim and array.shape[0] == batch for array in named.values())
    if not shared:
        raise RkzooError(
            "The outputs of this model cannot be told apart by sample.",
            f"Not all of them have {batch} rows.",
            f"Send whole batches of {batch}.",
        )
    return [
        {key: array[end - count : end] for key, array in named.items()}
        for count, end in zip(counts, ends, strict=True)
    ]
