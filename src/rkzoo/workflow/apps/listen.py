"""Speech recognition from the microphone, incremental where the model is streaming."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.sound import Sound
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.workflow.inference.inputs import SOUND, input_kind_of_head
from rkzoo.workflow.inference.load import open_task
from rkzoo.workflow.inference.model import Prediction
from rkzoo.workflow.inference.plan import plan
from rkzoo.workflow.request.request import Request

RATE = 16000
_BLOCK = 0.1  # seconds

Samples = NDArray[np.float32]


class StreamingRecognizer(Protocol):
    """Incremental recognition of one sound (tasks.speech.transducer.Stream)."""

    def accept(self, samples: Samples) -> None: ...

    def finish(self) -> None: ...

    def transcript(self) -> Prediction: ...


def transcribe_live(
    model: str,
    request: Request | None = None,
    *,
    blocks: Iterable[Samples] | None = None,
    tell: Callable[[Prediction], None],
    ready: Callable[[], None] = lambda: None,
    report: ProgressReporter = SILENT,
) -> Prediction:
    """Hears `blocks` (16 kHz; the microphone where None) until they end or Ctrl-C, and gives what
    was understood. `tell` is called with what is understood so far, `ready` when the model is
    open. Raises RkzooError where the model hears nothing, or there is no microphone."""
    planned = plan(model, request, report)
    if input_kind_of_head(planned.head).name != SOUND.name:
        raise RkzooError(
            f"{model} takes no sound.", "The microphone is for audio models.", "See rkzoo list."
        )
    with ExitStack() as stack:
        task = open_task(planned, stack, report=report)
        ready()
        source = microphone() if blocks is None else iter(blocks)
        return _transcribe(task, source, tell)


def _transcribe(
    task: Any, blocks: Iterator[Samples], tell: Callable[[Prediction], None]
) -> Prediction:
    stream: StreamingRecognizer | None = task.stream() if hasattr(task, "stream") else None
    kept: list[Samples] = []
    with _ended_by_ctrl_c():
        for block in blocks:
            if stream is None:
                kept.append(block)
            else:
                stream.accept(block)
                tell(stream.transcript())
    if stream is not None:
        stream.finish()
        return stream.transcript()
    if not kept:
        raise RkzooError("Nothing was recorded.", "", "Speak, then press Ctrl-C.")
    prediction: Prediction = task(Sound(np.concatenate(kept), RATE))
    return prediction


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C, the usual way to stop, ends the block and nothing else."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler) if main else None
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def microphone() -> Iterator[Samples]:
    """Yield blocks of 0.1 s, float32 (N,) at 16 kHz, from the default microphone, endlessly. Raises
    RkzooError.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio itself is missing
        raise RkzooError(
            "The microphone cannot be used.",
            f"The package sounddevice does not load ({error}).",
            'Install it with: pip install "rkzoo[mic]" and, on Linux, apt install libportaudio2',
        ) from error
    arrived: queue.SimpleQueue[Samples] = queue.SimpleQueue()

    def put(data: NDArray[np.float32], frames: int, time: object, status: object) -> None:
        arrived.put(data[:, 0].copy())

    size = round(RATE * _BLOCK)
    try:
        with sounddevice.InputStream(RATE, size, channels=1, dtype="float32", callback=put):
            while True:
                yield arrived.get()
    except sounddevice.PortAudioError as error:
        raise RkzooError(
            "The microphone cannot be used.", f"{error}.", "Connect one, and try again."
        ) from error
