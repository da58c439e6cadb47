"""What rkzoo adds to each frame on a board, and what three cores give, with a stand-in.

.venv/bin/python benchmarks/board.py [--frames N] [--rounds N]

The NPU is the tests' stand-in for Rockchip's library: it answers a yolov8n of 640 (nine
outputs, made) after 13.6 ms, the vendor's published time, and computes nothing. So what is
measured is this processor's work around an NPU, and nothing here says how fast a board is.
From a decoded frame of 1080p to boxes. One thread, and what is around the call of the NPU is
its processor time: waiting for a busy machine does not count, though its caches and clock still
tell. Rounds alternate, so that a busy moment hits all; a missed goal is only printed, since it
depends on the machine. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, thread_time

import cv2
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent / "tests" / "graph")]

from decode import BOXES, SCENES, SCORE, SIZE, V8_HEAD, v8  # noqa: E402
from rknn_writer import Sample  # noqa: E402

from npu_standin import build  # noqa: E402
from npu_standin.recording import In, Out, Recording  # noqa: E402
from rkzoo.contract.inputs import ImageInput  # noqa: E402
from rkzoo.contract.model import Contract  # noqa: E402
from rkzoo.runtime.npu import NpuSession  # noqa: E402
from rkzoo.runtime.pool import Pool  # noqa: E402
from rkzoo.tasks.detect.task import Detector  # noqa: E402
from rkzoo.workflow.compile.convert import custom_string  # noqa: E402
from rkzoo.workflow.inference.board import LIBRARY  # noqa: E402
from rkzoo.workflow.inference.load import open_task  # noqa: E402
from rkzoo.workflow.inference.plan import Plan, in_floats, npu_workers, on_core, plan  # noqa: E402
from rkzoo.workflow.request.request import Request  # noqa: E402

NPU_MS, CORES = 13.6, 3
GOAL_MS, GOAL_SHARE = 2.0, 0.85


def model(folder: Path) -> Path:
    """A .rknn whose recording has one answer for whatever it is shown."""
    contract = Contract(family="yolov8", picture=ImageInput(size=(SIZE, SIZE)), head=V8_HEAD)
    tensors = v8(np.random.default_rng(0), SCENES[0])
    outs = [
        Out(head.name, tensor.shape, "int8", *(BOXES[head.level] if head.role == "box" else SCORE))
        for head, tensor in zip(V8_HEAD.outputs, tensors, strict=True)
    ]
    picture = In("images", (1, SIZE, SIZE, 3))
    recording = Recording((picture,), outs, cores=CORES, delay_us=int(NPU_MS * 1000))
    recording.answer([np.zeros(picture.shape, np.uint8)], tensors)
    path = folder / "yolov8n.rknn"
    path.write_bytes(recording.bytes(Sample(custom=custom_string(contract)).write()))
    return path


def frames() -> list[np.ndarray]:
    """Some frames of 1080p, as many as do not fit into the processor's cache together."""
    random = np.random.default_rng(1)
    small = random.integers(0, 256, (8, 54, 96, 3), np.uint8)
    return [cv2.resize(image, (1920, 1080), interpolation=cv2.INTER_CUBIC) for image in small]


@dataclass(frozen=True)
class Opened:
    """A model and how a frame's outputs are decoded."""

    task: Detector
    decode: Callable[..., object]

    def __call__(self, frame: np.ndarray) -> tuple[float, float, float]:
        """Seconds of work before the NPU is called, of the call beside the NPU's own time, and
        of work after it."""
        began = thread_time()
        arrays, letterbox = self.task.preprocess(frame)
        fed = thread_time()
        called = perf_counter()
        outputs = self.task.session.run(arrays)
        waited = perf_counter() - called
        ran = thread_time()
        self.decode(outputs, letterbox)
        ended = thread_time()
        session = self.task.session
        assert isinstance(session, NpuSession)
        return fed - began, waited - session.context.run_seconds(), ended - ran


def opened(planned: Plan, stack: ExitStack, *, plainly: bool = False) -> Opened:
    task = open_task(planned, stack)
    assert isinstance(task, Detector)
    return Opened(task, task.postprocess_unsuppressed if plainly else task.postprocess)


def pooled(planned: Plan, cores: int, shots: list[np.ndarray], count: int) -> float:
    """Frames a second of a pool over the first `cores` cores of the NPU."""

    @contextmanager
    def worker(number: int) -> Iterator[Callable[[int], object]]:
        with ExitStack() as stack:
            task = open_task(on_core(planned, number % cores), stack)
            yield lambda index: task(shots[index % len(shots)])

    with Pool(worker, npu_workers(planned) * cores // CORES) as pool:
        start = perf_counter()
        for outcome in pool.map(range(count)):
            outcome.value()
        return count / (perf_counter() - start)


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=100, metavar="N", help="a round (100)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(5)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        os.environ[LIBRARY] = str(build.compiled(Path(scratch)))
        planned = plan(model(Path(scratch)), Request())
        part = planned.parts["model"]
        assert part.board is not None
        # This machine's chip is no Rockchip, so how many cores it has must be told.
        wide = replace(part, board=replace(part.board, available=CORES))
        planned = replace(planned, parts={"model": wide})
        shots = frames()
        ours = opened(planned, stack)
        plain = opened(in_floats(planned), stack, plainly=True)
        measured: dict[str, list[tuple[float, float, float]]] = {"rkzoo": [], "floats": []}
        single, triple = [], []
        for _ in range(args.rounds):
            for name, way in (("rkzoo", ours), ("floats", plain)):
                way(shots[0])
                measured[name] += [way(shots[n % len(shots)]) for n in range(args.frames)]
            single.append(pooled(planned, 1, shots, args.frames))
            triple.append(pooled(planned, CORES, shots, CORES * args.frames))
    print(f"ms a frame, p50 of {args.rounds} x {args.frames}, beside the {NPU_MS} ms of the NPU")
    for name, rows in measured.items():
        middle = [1000 * statistics.median(column) for column in zip(*rows, strict=True)]
        total = 1000 * statistics.median(map(sum, rows))
        print(
            f"  {name:7} {total:6.2f}  (before {middle[0]:.2f}, call {middle[1]:.2f},"
            f" after {middle[2]:.2f})"
        )
    overhead = 1000 * statistics.median(map(sum, measured["rkzoo"]))
    print(f"rkzoo adds {overhead:.2f} ms; goal {GOAL_MS} ms: {verdict(overhead <= GOAL_MS)}")
    shares = [three / (CORES * alone) for alone, three in zip(single, triple, strict=True)]
    share = statistics.median(shares)
    print(
        f"pool: {statistics.median(single):.1f} FPS on one core, {statistics.median(triple):.1f} on"
        f" {CORES}: {share:.0%} of {CORES} times one; goal {GOAL_SHARE:.0%}:"
        f" {verdict(share >= GOAL_SHARE)}"
    )


if __name__ == "__main__":
    main()
