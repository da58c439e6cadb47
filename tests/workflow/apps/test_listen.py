"""The microphone, by one that stands in for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rkzoo.cli.main import main
from rkzoo.contract.audio import TransducerHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.speech.transcript import Segment, Transcript
from rkzoo.workflow.apps import listen as listening
from rkzoo.workflow.inference.plan import Plan
from rkzoo.workflow.request.request import Request


class Counts:
    """A task that tells how many blocks it heard, while it hears them."""

    def __init__(self) -> None:
        self.blocks = 0
        self.ended = False

    def stream(self) -> Counts:
        return self

    def accept(self, samples: Any) -> None:
        self.blocks += 1

    def finish(self) -> None:
        self.ended = True

    def transcript(self) -> Transcript:
        text = "".join(f" {i}" for i in range(self.blocks)) + (" end" if self.ended else "")
        return Transcript((Segment(0, 1, text),))


def speaker(blocks: int) -> Iterator[Any]:
    """Says something, then presses Ctrl-C."""
    for _ in range(blocks):
        yield np.zeros(1600, np.float32)
    raise KeyboardInterrupt


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    tasks: list[Any] = [Counts()]
    monkeypatch.setattr(listening, "plan", lambda *_: Plan("x", "onnx", {}, head=TransducerHead()))
    monkeypatch.setattr(listening, "open_task", lambda *_, **__: tasks[0])
    return tasks


def test_it_tells_while_it_hears_until_ctrl_c(opened: list[Any]) -> None:
    told: list[str] = []
    found = listening.transcribe_live(
        "x", Request(), blocks=speaker(3), tell=lambda found: told.append(found.text)
    )
    assert told == ["0", "0 1", "0 1 2"]
    assert found.text == "0 1 2 end"


def test_a_model_that_hears_whole_sounds_hears_the_whole(opened: list[Any]) -> None:
    opened[0] = lambda sound: Transcript((Segment(0, sound.seconds, f"{len(sound.samples)}"),))
    found = listening.transcribe_live("x", Request(), blocks=speaker(4), tell=lambda found: None)
    assert found.text == "6400"
    with pytest.raises(RkzooError, match="Nothing was recorded"):
        listening.transcribe_live("x", Request(), blocks=speaker(0), tell=lambda found: None)


class StandIn:
    """sounddevice, with somebody who speaks three blocks."""

    PortAudioError = RuntimeError

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.closed = False

    def InputStream(self, rate: int, size: int, **settings: Any) -> Any:  # noqa: N802
        if self.fault:
            raise RuntimeError(self.fault)
        assert (rate, size, settings["channels"]) == (16000, 1600, 1)
        for number in range(3):
            settings["callback"](np.full((size, 1), number, np.float32), size, None, None)
        return self

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def test_the_microphone_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    device = StandIn()
    monkeypatch.setitem(sys.modules, "sounddevice", device)  # type: ignore[arg-type]
    source = listening.microphone()
    assert [float(next(source)[0]) for _ in range(3)] == [0, 1, 2]
    source.close()  # type: ignore[attr-defined]
    assert device.closed


@pytest.mark.parametrize("device", [StandIn("no device"), None])
def test_no_microphone_is_one_sentence(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    with pytest.raises(RkzooError, match="The microphone cannot be used"):
        next(listening.microphone())


def test_run_mic_prints_what_is_said(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listening, "microphone", lambda: speaker(2))
    assert main(["run", "zipformer-zh-en", "mic"]) == 0
    out, err = capsys.readouterr()
    assert out == "0 1 end\n"
    assert "Ctrl-C" in err
