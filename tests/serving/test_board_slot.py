"""A session in its worker, without the worker: what it opens is closed, as the stand-in counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from golden_net import CONTRACT, Net

from npu_standin import build
from rkzoo.errors import RkzooError
from rkzoo.protocol.board import Layers, ModelMemory, OpenSession, Timed
from rkzoo.protocol.tensors import Body, decode_response
from rkzoo.serving.board_slot import BoardSlot
from rkzoo.serving.calls import SessionArguments, TimeArguments
from rkzoo.workflow.evaluation.evaluate import STANDARD
from rkzoo.workflow.evaluation.jobs import EvaluationJob, answering
from rkzoo.workflow.inference.plan import plan
from rkzoo.workflow.request.request import Request
from serving.board_server import Model, request_body, small_model

MODEL = small_model()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def file(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RKZOO_LIBRKNNRT", str(library))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    path = tmp_path / "small.rknn"
    path.write_bytes(MODEL.data)
    yield path
    after = build.state(library)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0)


def opened(file: Path, model: Model = MODEL, **asked: Any) -> BoardSlot:
    wanted = OpenSession(sha256=model.sha256, name=file.name, **asked)
    return BoardSlot(msgspec.Raw(msgspec.json.encode(SessionArguments(str(file), wanted))))


def test_each_call_and_then_nothing_is_left_open(file: Path, library: Path) -> None:
    slot, beside = opened(file, profile=True), opened(file, profile=True)
    assert build.state(library).contexts == 2
    body, head = request_body(MODEL.picture)
    asked = msgspec.json.encode(TimeArguments(3, int(next(iter(head.values())))))
    timed = slot.call("time", msgspec.Raw(asked), [body]).value
    assert isinstance(timed, Timed)
    assert len(timed.seconds) == 3
    assert isinstance(slot.call("layers", msgspec.Raw(b"null"), []).value, Layers)
    memory = slot.call("memory", msgspec.Raw(b"null"), []).value
    assert isinstance(memory, ModelMemory)
    assert memory.weights == 3_000_000
    slot.close()
    beside.close()


def test_one_that_cannot_be_opened_leaves_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_FAIL", "set_io_mem:2:-5")
    with pytest.raises(RkzooError, match="memory of out is not accepted"):
        opened(file)


def test_a_record_is_the_one_that_eval_makes_here(
    file: Path, tmp_path: Path, library: Path
) -> None:
    net = Net(tmp_path)
    job = EvaluationJob(plan(net.file, Request()), replace(STANDARD, confidence=0.3))
    options = {"detect": {"confidence": 0.3, "iou": job.options.iou}}
    options["detect"] |= {"limit": job.options.limit, "multi_label": job.options.multi_label}
    contract = msgspec.Raw(msgspec.json.encode(CONTRACT))
    wanted = OpenSession(
        sha256="", name="net.rknn", layout="native", contract=contract, options=options
    )
    slot = BoardSlot(msgspec.Raw(msgspec.json.encode(SessionArguments(str(net.file), wanted))))
    with answering(job) as answer:
        for (picture,), _ in net.runs:
            png = cv2.imencode(".png", picture[0][..., ::-1])[1].tobytes()  # fed as RGB
            expected = answer(png, Path("x.png"))
            told = slot.call("record", msgspec.Raw(b'{"filename": "x.png"}'), [png])
            body = Body(bytes(told.buffers[0]), told.value[0].header_size)
            record = decode_response(body)
            assert set(record) == set(expected)
            assert len(record["score"]) == 4
            for name, array in expected.items():
                assert record[name].dtype == array.dtype
                np.testing.assert_array_equal(record[name], array)
    slot.close()


def test_records_need_a_contract_that_is_one(file: Path) -> None:
    slot = opened(file)
    with pytest.raises(RkzooError, match="without a contract"):
        slot.call("record", msgspec.Raw(b'{"filename": "x.jpg"}'), [b"x"])
    slot.close()
    for contract in ({}, {"head": {"type": "odd"}}, [1], "x"):
        slot = opened(file, contract=msgspec.Raw(msgspec.json.encode(contract)))
        with pytest.raises(RkzooError, match="not understood"):
            slot.call("record", msgspec.Raw(b'{"filename": "x.jpg"}'), [b"x"])
        slot.close()
