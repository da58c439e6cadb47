"""Pictures brought into the model's size by Rockchip's 2D engine (RGA), where it is right and
faster than the processor.

That RGA is chosen is said once. That it is not is said only where RKZOO_LIBRGA names it, since
nothing is lost; `reason` tells whoever asks. Not measured on a board.

RGA's filter is another one than that of `vision.letterbox.fit`, which the model was calibrated
with. They agree to a level or two where a picture is smooth and differ where it holds detail finer
than the model's pixels. So RGA is not used where results are measured, and what it makes is held
against the processor's: averages of blocks of 16x16 may differ by 2 levels in the mean and 10 at
the most, those of a smooth sample by 1.5 and 6. On 14 photographs here, scaled by area or cubic
instead, it was 0.5 and 2.6 at the most; a picture moved by two pixels gave 2.2 in the mean at
least, exchanged colours 7.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from threading import Lock
from time import perf_counter

import cv2
import numpy as np

from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Sync
from rkzoo.runtime.npu_context import Context, NpuMemory
from rkzoo.runtime.rga import ImportedBuffer, RgaLibrary, memory_size
from rkzoo.runtime.rga_api import Format, Rect, Surface, unsupported_reason
from rkzoo.session import Closeable, Session
from rkzoo.soc.machine import RGA_LIBRARIES
from rkzoo.soc.tree import Tree
from rkzoo.vision import letterbox
from rkzoo.vision.letterbox import Image, Letterbox
from rkzoo.workflow.inference.board import fitting_library

LIBRARY = "RKZOO_LIBRGA"
"""Names librga.so in place of the one that is found; `off` leaves RGA out."""

# So many pictures of one size in a row make a stream, for which a contest pays.
_STREAM = 3
# Rounds of the contest; what RGA must be below, times the processor's time.
_ROUNDS, _WINS = 7, 0.9
# Failures after which RGA is not asked again.
_FAILURES = 3
# What blocks may differ by, in the mean and at the most: of a picture, and of the sample.
_BLOCK = 16
PICTURE, SAMPLE = (2.0, 10.0), (1.5, 6.0)


def attach_rga(session: Session, stack: ExitStack, report: ProgressReporter = SILENT) -> None:
    """Gives a session on the NPU a `fit` of its own where librga is here; `stack` ends it.
    Raises RkzooError where RKZOO_LIBRGA names what cannot be used."""
    if not isinstance(session, NpuSession) or session.memory is None:
        return
    path = find_rga()
    library = _loaded(path) if path else None
    if library is not None:
        session.fit = stack.enter_context(
            RgaPreprocess(session.context, session.memory, library, report)
        )


def find_rga() -> str | None:
    """librga.so: RKZOO_LIBRGA, else where the NPU's library may lie. None where there is none
    or RKZOO_LIBRGA is `off`. Raises RkzooError when it names no file."""
    rga = os.environ.get(LIBRARY)
    if not rga:
        return fitting_library(Tree(Path("/")), RGA_LIBRARIES)
    if rga == "off":
        return None
    if not Path(rga).is_file():
        raise RkzooError(
            f"{LIBRARY} names {rga}, which is no file.",
            "",
            "Point it at librga.so, or set it to off.",
        )
    return rga


_LOADING = Lock()
_NOTED: set[tuple[str, str]] = set()


def _loaded(path: str) -> RgaLibrary | None:
    with _LOADING:
        try:
            return _load(path)
        except RkzooError:
            if os.environ.get(LIBRARY):
                raise
            return None  # the machine's own, and too old: the processor does as well


@cache
def _load(path: str) -> RgaLibrary:
    return RgaLibrary(path)


@dataclass
class _SpeedTrial:
    """What is known of pictures of one kind. `by_rga` and `by_cpu`: seconds of each round."""

    seen: int = 0
    by_rga: list[float] = field(default_factory=list)
    by_cpu: list[float] = field(default_factory=list)
    won: bool = False
    reason: str = ""


class RgaPreprocess(Closeable):
    """As `vision.letterbox.fit`, for one context's memory and one thread.

    The third picture of one size begins a contest: RGA must bring a test picture, and those of
    the next rounds, to what the processor makes of them, in less time. `chosen` and `reason`
    tell how it stands. A canvas elsewhere is left to the processor.
    """

    def __init__(
        self,
        context: Context,
        memory: NpuMemory,
        library: RgaLibrary,
        report: ProgressReporter = SILENT,
    ) -> None:
        self._context, self._memory, self._library = context, memory, library
        self._report = report
        self._kind: object = None
        self._contest = _SpeedTrial()
        self._target: ImportedBuffer | None = None
        # Whose border the canvas has, where nothing else was written there by the processor.
        self._border: object = None
        self._failures = 0
        self._closed = False

    @property
    def chosen(self) -> bool:
        """Whether RGA does the work."""
        return self._contest.won

    @property
    def reason(self) -> str:
        """Why RGA does not do the work, or nothing where it does."""
        if self._contest.reason or self._contest.won:
            return self._contest.reason
        return f"Not settled yet: {self._contest.seen} pictures of one size were seen."

    def close(self) -> None:
        """Lets go of the session's memory; the processor does what still comes."""
        self._closed = True
        self._contest.won, self._contest.reason = False, "The session is closed."
        self._forget()

    def __call__(
        self, image: Image, spec: ImageInput, canvas: Image | None = None
    ) -> tuple[Image, Letterbox]:
        if self._closed or canvas is None or canvas.ctypes.data != self._memory.address:
            return letterbox.fit(image, spec, canvas)
        kind = (image.shape, image.strides, spec)
        if kind != self._kind:
            self._kind, self._contest = kind, _SpeedTrial(reason=self._for_good())
        contest = self._contest
        if contest.won:
            return self._by_rga(image, spec, canvas)
        contest.seen += 1
        if not contest.reason and contest.seen >= _STREAM:
            return self._round(image, spec, canvas)
        return self._by_cpu(image, spec, canvas)

    def _for_good(self) -> str:
        return self._contest.reason if self._failures >= _FAILURES else ""

    def _by_cpu(self, image: Image, spec: ImageInput, canvas: Image) -> tuple[Image, Letterbox]:
        self._border = None
        return letterbox.fit(image, spec, canvas)

    def _by_rga(self, image: Image, spec: ImageInput, canvas: Image) -> tuple[Image, Letterbox]:
        try:
            return canvas, self._placed(image, spec, canvas)[0]
        except _RgaRejected:
            return self._by_cpu(image, spec, canvas)
        except RkzooError as error:
            self._failures += 1
            if self._failures >= _FAILURES:
                self._give_up(str(error))
            return self._by_cpu(image, spec, canvas)

    def _give_up(self, reason: str) -> None:
        self._contest.won, self._contest.reason = False, reason
        self._forget()
        if os.environ.get(LIBRARY):
            self._note_once(f"The processor prepares the pictures. {reason}")

    def _note_once(self, text: str) -> None:
        """Once for a model, of which each worker has a session."""
        if (self._context.name, text) not in _NOTED:
            _NOTED.add((self._context.name, text))
            self._report.note(text)

    # ---- the contest ----------------------------------------------------------------

    def _round(self, image: Image, spec: ImageInput, canvas: Image) -> tuple[Image, Letterbox]:
        """One round. What the processor makes is what is given out."""
        contest = self._contest
        try:
            if not contest.by_rga:
                self._check(image, spec, canvas)
                self._compare(sample_picture(image.shape), spec, canvas, SAMPLE)
            by_rga, by_cpu, box = self._compare(image, spec, canvas, PICTURE)
        except _RgaRejected as lost:
            self._give_up(str(lost))
            return self._by_cpu(image, spec, canvas)
        except RkzooError as error:
            self._failures += 1
            self._give_up(str(error))
            return self._by_cpu(image, spec, canvas)
        contest.by_rga.append(by_rga)
        contest.by_cpu.append(by_cpu)
        if len(contest.by_rga) == _ROUNDS:
            self._settle()
        return canvas, box

    def _check(self, image: Image, spec: ImageInput, canvas: Image) -> None:
        """Raises _Lost where RGA cannot do this, before it is asked to."""
        if spec.channels != 3 or image.shape[2:] not in ((), (3,)):
            raise _RgaRejected("RGA brings pictures of three channels only.")
        if spec.fit == "crop" or spec.smooth:
            raise _RgaRejected("A picture that is cropped or bicubic is averaged by the processor.")
        if self._memory.fd < 0 or self._memory.offset or canvas.strides[1] % 3:
            raise _RgaRejected(
                "The NPU's memory for the picture is not such that RGA can write there."
            )
        source, target = surface_of(image), _target(spec, canvas)
        box = letterbox.plan((source.height, source.width), spec)
        able = self._library.engines
        if why := unsupported_reason(able, source, target, _place(box), memory_size()):
            raise _RgaRejected(why)

    def _settle(self) -> None:
        rga, cpu = (median(times[1:]) for times in (self._contest.by_rga, self._contest.by_cpu))
        if rga < _WINS * cpu:
            self._contest.won = True
            self._note_once(
                f"The 2D engine (RGA) prepares the pictures; {LIBRARY}=off turns it off."
            )
        else:
            self._give_up(f"RGA took {rga * 1e3:.2f} ms, the processor {cpu * 1e3:.2f} ms.")

    def _compare(
        self, image: Image, spec: ImageInput, canvas: Image, limits: tuple[float, float]
    ) -> tuple[float, float, Letterbox]:
        """Seconds of RGA and of the processor. Raises _Lost where what they make differs."""
        _, by_rga = self._placed(image, spec, canvas)
        self._context.sync(self._memory, Sync.FROM_DEVICE)
        result = canvas.copy()
        start = perf_counter()
        _, box = self._by_cpu(image, spec, canvas)
        by_cpu = perf_counter() - start
        mean, most = image_difference(result[0], canvas[0])
        if mean > limits[0] or most > limits[1]:
            raise _RgaRejected(
                f"What RGA makes differs from what the processor makes by {mean:.1f} levels in"
                f" the mean and {most:.0f} at the most."
            )
        return by_rga, by_cpu, box

    # ---- RGA at work ----------------------------------------------------------------

    def _placed(self, image: Image, spec: ImageInput, canvas: Image) -> tuple[Letterbox, float]:
        """The picture into the canvas by RGA, and the seconds it took, without what is done only
        after the processor wrote there. Raises RkzooError where it fails."""
        source = surface_of(image)
        box = letterbox.plan((source.height, source.width), spec)
        target = self._known(_target(spec, canvas))
        sync, border = self._context.sync, (box, spec.pad)
        fresh = self._border != border
        if fresh:
            # What the processor still holds of the canvas must not come down on RGA's pixels.
            sync(self._memory, Sync.TO_DEVICE)
        start = perf_counter()
        with self._library.borrowed(image.ctypes.data, source) as imported_buffer:
            self._library.place(imported_buffer, target, _place(box))
        seconds = perf_counter() - start
        if fresh:
            # After RGA, and on lines read anew, for border and picture share some.
            sync(self._memory, Sync.FROM_DEVICE)
            letterbox.border(canvas[0], box, spec.pad)
            sync(self._memory, Sync.TO_DEVICE)
            self._border = border
        return box, seconds

    def _known(self, target: Surface) -> ImportedBuffer:
        """The session's memory as RGA's driver knows it, for as long as RGA is used."""
        if self._target is None or self._target.surface != target:
            self._forget()
            self._target = self._library.import_fd(self._memory.fd, target)
        return self._target

    def _forget(self) -> None:
        if self._target is not None:
            self._library.release(self._target)
            self._target = None


class _RgaRejected(Exception):
    """RGA is not to be used for pictures of this kind; the text says why."""


def _target(spec: ImageInput, canvas: Image) -> Surface:
    height, width = spec.size
    colour = Format.RGB if spec.color == "RGB" else Format.BGR
    return Surface(width, height, canvas.strides[1] // 3, colour)


def _place(box: Letterbox) -> Rect:
    return Rect(box.left, box.top, box.scaled[1], box.scaled[0])


_ALIGNED = 16  # bytes; the driver's own rule is nowhere written


def surface_of(image: Image) -> Surface:
    """A picture as RGA reads it: BGR (H, W, 3) or NV12 (H * 3 / 2, W), in one piece. Raises
    _Lost where it lies otherwise."""
    if not image.flags.c_contiguous or image.ctypes.data % _ALIGNED:
        raise _RgaRejected("The picture does not lie in one piece in memory.")
    if image.ndim == 3:
        return Surface(image.shape[1], image.shape[0], image.shape[1], Format.BGR)
    return Surface(image.shape[1], image.shape[0] * 2 // 3, image.shape[1], Format.NV12)


def sample_picture(shape: tuple[int, ...]) -> Image:
    """A smooth picture of a shape that `fit` takes, in which a wrong colour order, a place that
    is one pixel off or a part left out shows: waves along both sides, others in each channel."""
    rows, columns = shape[:2]
    period = max(rows, columns) / 16
    sample_picture = np.empty(shape, np.uint8)
    for channel in range(3):
        across, down = (
            np.asarray(64 + 60 * np.cos(2 * np.pi * np.arange(count) / period + turn), np.uint8)
            for count, turn in ((columns, 2.1 * channel), (rows, 1.3 * channel))
        )
        if len(shape) == 3:
            np.add(across[None, :], down[:, None], out=sample_picture[..., channel])
        elif channel == 0:
            np.add(across[None, :], down[:, None], out=sample_picture)
        else:
            # The colours of NV12, at half the size: two numbers in turn.
            half = sample_picture[rows * 2 // 3 :, channel - 1 :: 2]
            np.add(across[None, ::2], down[: len(half), None], out=half)
    return sample_picture


def image_difference(array: Image, other: Image) -> tuple[float, float]:
    """How far two pictures (H, W, 3) differ in averages of blocks: levels in the mean, and at
    the most. A filter hardly changes those."""
    height, width = array.shape[:2]
    size = max(1, width // _BLOCK), max(1, height // _BLOCK)
    blocks = [
        cv2.resize(np.asarray(picture, np.float32), size, interpolation=cv2.INTER_AREA)
        for picture in (array, other)
    ]
    differ = np.abs(blocks[0] - blocks[1])
    return float(differ.mean()), float(differ.max())
