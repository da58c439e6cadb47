"""A client's session on this board's NPU, in a worker: tensors in, raw integers out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from math import inf
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError, printable
from rkzoo.progress import NoteKeeper
from rkzoo.protocol.board import Layers, ModelMemory, Opened, Timed
from rkzoo.protocol.tensors import Body, InferRequest, decode_request, encode_response
from rkzoo.runtime.npu import NpuSession, npu_seconds
from rkzoo.runtime.npu_api import Cores
from rkzoo.serving.calls import (
    InferArguments,
    InferReply,
    RecordArguments,
    SessionArguments,
    TimeArguments,
)
from rkzoo.serving.model_slot import answered, fed, raw_of
from rkzoo.serving.worker import Answer
from rkzoo.session import Array, canvas_of
from rkzoo.workflow.inference.board import on_board, open_npu

MOST_RUNS = 10_000


class BoardSlot:
    """One session.

    Args:
        arguments: SessionArguments as JSON.

    Raises:
        RkzooError: The model cannot be opened on the NPU.
    """

    def __init__(self, arguments: msgspec.Raw) -> None:
        given = msgspec.json.decode(arguments, type=SessionArguments)
        self._asked = asked = given.asked
        self.until = inf
        if not 0 <= asked.cores <= Cores.ALL:
            raise RkzooError(f"{asked.cores} names no cores of an NPU.", "", "Give 0 for any.")
        backend, report = on_board(Path(given.file), True), NoteKeeper()
        assert backend is not None  # it was requested
        self._backend = replace(
            backend, cores=Cores(asked.cores) or backend.cores, floats=asked.floats
        )
        self._session = open_npu(
            self._backend,
            report,
            layout=asked.layout,
            picture=asked.picture,
            shapes=asked.shapes,
            profile=asked.profile,
        )
        self._ran = False
        library, driver, stand_in = "", "", False
        if isinstance(self._session, NpuSession):
            library, driver = map(printable, self._session.context.versions())
            stand_in = self._session.context.stand_in
        self.opened = Opened(
            session="",  # the server names it
            inputs=self._session.inputs,
            outputs=self._session.outputs,
            library=backend.library,
            library_version=library,
            driver=driver,
            stand_in=stand_in,
            notes=tuple(report.notes),
        )

    def call(self, kind: str, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        """Answers one of `infer`, `time`, `layers`, `memory` and `record`."""
        return _CALLS[kind](self, arguments, data)

    def close(self) -> None:
        self._session.close()

    def _infer(self, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        asked = msgspec.json.decode(arguments, type=InferArguments)
        answer = answered(self._session, asked, data, outputs=raw_of)
        self._ran = True
        return answer

    def _time(self, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        asked = msgspec.json.decode(arguments, type=TimeArguments)
        if not 1 <= asked.runs <= MOST_RUNS:
            raise RkzooError(
                f"{asked.runs} runs cannot be timed.", f"They are 1 to {MOST_RUNS}.", ""
            )
        arrays = fed(decode_request(Body(data[0], asked.header_size)), self._session)
        arrays = self._placed(arrays)
        seconds, npu = [], []
        for _ in range(asked.runs):
            start = perf_counter()
            self._session.run(arrays)
            seconds.append(perf_counter() - start)
            if (own := npu_seconds(self._session)) is not None and own <= seconds[-1]:
                npu.append(own)
        self._ran = True
        return Answer(Timed(tuple(seconds), tuple(npu)))

    def _placed(self, arrays: list[Array]) -> list[Array]:
        """A picture where the NPU reads it, as every task of rkzoo writes it."""
        spec = self._session.inputs[0]
        if spec.layout != "NHWC" or spec.shape[0] != 1:
            return arrays
        _, height, width, channels = spec.shape
        canvas = canvas_of(self._session, (height, width), channels)
        np.copyto(canvas, arrays[0])
        return [canvas, *arrays[1:]]

    def _layers(self, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        session = self._profiled("times of its layers")
        if not self._asked.profile:
            raise RkzooError(
                f"{self._asked.name} tells no times of its layers.",
                "It was opened without collecting them, since that makes it slower.",
                "Open it with profile.",
            )
        if not self._ran:
            session.run([np.zeros(spec.shape, spec.dtype) for spec in session.inputs])
            self._ran = True
        return Answer(Layers(session.context.layers()))

    def _memory(self, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        use = self._profiled("its memory").context.memory_use()
        return Answer(
            ModelMemory(use.weights, use.internal, use.dma, use.sram_total, use.sram_free)
        )

    def _profiled(self, what: str) -> NpuSession:
        if isinstance(self._session, NpuSession):
            return self._session
        raise RkzooError(
            f"{self._asked.name} does not tell {what} here.",
            "The board has rknn-toolkit-lite2 alone, which gives no such figures.",
            "Install librknnrt.so on the board: rkzoo doctor says where it is to be had.",
        )

    def _record(self, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        filename = msgspec.json.decode(arguments, type=RecordArguments).filename
        record = self._answer(data[0], Path(Path(filename).name or "file"))
        request = InferRequest({}, all_binary=True)
        body = encode_response(self._asked.name, "1", request, record)
        self._ran = True
        return Answer([InferReply(body.header_size)], [body.data])

    @cached_property
    def _answer(self) -> Callable[[bytes, Path], dict[str, Array]]:
        """From a file's bytes to its record, as `rkzoo eval` makes it."""
        from rkzoo.serving.records import answering_of

        if bytes(self._asked.contract) == b"null":
            raise RkzooError(
                f"{self._asked.name} gives no records.",
                "It was opened without a contract, so nothing tells how it is read.",
                "Open it with its contract.",
            )
        try:
            contract = msgspec.json.decode(self._asked.contract, type=Contract)
            return answering_of(
                self._asked.name, contract, self._asked.options, self._backend, self._session
            )
        except (msgspec.DecodeError, RecursionError) as error:
            raise RkzooError(
                "The contract or the options of the session are not understood.",
                f"{error}.",
                "Use the same version of rkzoo on both machines.",
            ) from error


_CALLS: dict[str, Callable[[BoardSlot, msgspec.Raw, list[bytes]], Answer]] = {
    "infer": BoardSlot._infer,
    "time": BoardSlot._time,
    "layers": BoardSlot._layers,
    "memory": BoardSlot._memory,
    "record": BoardSlot._record,
}
