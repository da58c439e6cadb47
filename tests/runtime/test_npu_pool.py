"""The pool on the stand-in for the NPU's library: three cores, random delays, failures."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from npu_models import BOX, numbers, picture, small

from npu_standin import build
from rkzoo.errors import RkzooError
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Cores
from rkzoo.runtime.npu_context import Context, NpuLibrary
from rkzoo.runtime.pool import Pool

Run = Callable[[int], bytes]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


def opener(original: Context, cores: int) -> Callable[[int], object]:
    """Worker n has a context of its own on core n, with the weights of the original."""

    @contextmanager
    def opened(number: int) -> Iterator[Run]:
        context = original.duplicate()
        context.set_cores(Cores(1 << number % cores))
        with NpuSession(context) as session:
            yield lambda seed: session.run([picture(seed % 3)])[0].tobytes()

    return opened


def original(built: Path, **settings: int) -> Context:
    return Context.open(NpuLibrary(built), small(**settings).bytes())


def expected(seed: int) -> bytes:
    return BOX.stored(numbers(seed % 3, BOX)).tobytes()


def test_order_is_kept_and_nothing_lost(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_JITTER_US", "3000")
    monkeypatch.setenv("STANDIN_STRICT", "1")
    monkeypatch.setenv("STANDIN_FAIL", "run:7:-2,run:20:-1,run:21:-1")
    first = original(built)
    failed = []
    with Pool(opener(first, 3), 6, waiting=64) as pool:  # type: ignore[arg-type]
        for seed in range(60):
            pool.submit(seed)
        pool.finish()
        for number, outcome in enumerate(pool.results()):
            assert outcome.number == outcome.item == number
            if outcome.error is not None:
                assert isinstance(outcome.error, RkzooError)
                failed.append(number)
            else:
                assert outcome.result == expected(number)
    assert number == 59
    assert len(failed) == 3
    first.close()
    gc.collect()
    after = build.state(built)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0)


def test_three_cores_do_the_work_of_three(built: Path) -> None:
    """The stand-in sleeps where an NPU computes, so this shows that nothing here is in the way;
    it says nothing about an NPU. The machine may be busy: the bounds are wide."""
    delay = 0.03
    first = original(built, delay_us=int(delay * 1e6))

    def seconds(workers: int, frames: int) -> float:
        with Pool(opener(first, 3), workers) as pool:  # type: ignore[arg-type]
            start = time.perf_counter()
            assert sum(1 for _ in pool.map(range(frames))) == frames
            return time.perf_counter() - start

    one, six = seconds(1, 15), seconds(6, 45)
    assert one >= 15 * delay
    assert six >= 45 * delay / 3  # three cores, not six
    assert six < 1.6 * one
    first.close()
    gc.collect()
    assert build.state(built).contexts == 0
