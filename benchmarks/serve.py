"""What `rkzoo serve` costs beside the bare pool of workers, under load, with a stand-in.

.venv/bin/python benchmarks/serve.py [--requests N] [--clients N] [--rounds N] [--no-strangers]

The NPU is the tests' stand-in for Rockchip's library, as in `benchmarks/board.py`: yolov8n of
640, 13.6 ms a run on each of 3 cores, and nothing is computed. The bare pool (`runtime.pool`) has
the server's work without the server: the bytes of a JPEG to boxes, in as many workers. The server
is asked over the loopback by clients that each have a connection and one request at a time, with
pictures (:predict, JSON back) and with tensors (Open Inference Protocol, 1.2 MB of bytes there
and 4.8 MB back). In a last round slow clients and rubbish come beside them. Ways alternate, so
that a busy moment hits all; clients run on the same machine in a process of their own, whose
processor time is told. A missed goal is only printed, since it depends on the machine; an answer
that is lost or wrong, or memory that grows, makes the exit status 1. Needs a C compiler and Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from urllib.parse import urlsplit

import cv2
import httptools
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent / "tests" / "graph")]

from board import CORES, NPU_MS, model, verdict  # noqa: E402
from decode import SIZE  # noqa: E402

from npu_standin import build  # noqa: E402
from rkzoo.protocol.tensors import HEADER_LENGTH, encode_request  # noqa: E402
from rkzoo.runtime.pool import Pool  # noqa: E402
from rkzoo.vision.image import from_bytes  # noqa: E402
from rkzoo.workflow.inference.board import LIBRARY  # noqa: E402
from rkzoo.workflow.inference.load import open_task  # noqa: E402
from rkzoo.workflow.inference.plan import Plan, on_core, plan  # noqa: E402
from rkzoo.workflow.request.request import Request  # noqa: E402
from serving.processes import children, mebibytes, processor_seconds  # noqa: E402
from serving.server import Server, serving  # noqa: E402

GOAL = 0.9
GROWTH = 128  # MiB that a process may have more at the end; a leak of bodies would be more
SLOTS = 2 * CORES
STRANGERS = 16


def pictures() -> list[bytes]:
    """Some JPEGs of 640 x 480."""
    chance = np.random.default_rng(1)
    small = chance.integers(0, 256, (8, 15, 20, 3), np.uint8)
    large = [cv2.resize(image, (640, 480), interpolation=cv2.INTER_CUBIC) for image in small]
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in large]


# ---- the bare pool --------------------------------------------------------------------------


def pooled(planned: Plan, shots: list[bytes], count: int) -> tuple[float, float]:
    """Pictures a second, and processor seconds of each."""

    @contextmanager
    def worker(number: int) -> Iterator[Callable[[int], object]]:
        with ExitStack() as stack:
            task = open_task(on_core(planned, number), stack)
            yield lambda index: task(from_bytes(shots[index % len(shots)], Path("picture")))

    with Pool(worker, SLOTS) as pool:
        start, used = perf_counter(), process_time()
        for outcome in pool.map(range(count)):
            outcome.value()
        return count / (perf_counter() - start), (process_time() - used) / count


# ---- clients --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A request: its head without the length, and its body."""

    path: str
    body: bytes
    headers: str = ""

    def encoded(self) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\n{self.headers}"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


@dataclass
class Tally:
    """What clients saw. `waits`: seconds of each answer, without those that were put off."""

    seconds: float = 0.0
    processor: float = 0.0
    waits: list[float] = field(default_factory=list)
    sizes: set[int] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0


class _Client(asyncio.BufferedProtocol):
    """A connection with one request at a time. Bodies are counted and, but for the last one's
    first bytes, not kept, so that the client costs little."""

    _room = memoryview(bytearray(1 << 20))  # of all: what is read is looked at before the next

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[tuple[int, int]] | None = None
        self._size = 0
        self.retry_after = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("closed"))

    def ask(self, call: bytes) -> asyncio.Future[tuple[int, int]]:
        self._done, self._size = asyncio.get_running_loop().create_future(), 0
        self.transport.write(call)
        return self._done

    def get_buffer(self, hint: int) -> memoryview:
        return self._room

    def buffer_updated(self, count: int) -> None:
        self._parser.feed_data(self._room[:count])

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = float(value)

    def on_body(self, data: bytes) -> None:
        self._size += len(data)

    def on_message_complete(self) -> None:
        assert self._done is not None
        self._done.set_result((self._parser.get_status_code(), self._size))
        self._parser = httptools.HttpResponseParser(self)


async def _clients(address: tuple[str, int], calls: list[bytes], count: int, many: int) -> Tally:
    tally, numbers, loop = Tally(), iter(range(count)), asyncio.get_running_loop()

    async def one() -> None:
        client: _Client | None = None
        for number in numbers:
            began = perf_counter()
            while True:
                try:
                    if client is None or client.transport.is_closing():
                        _, client = await loop.create_connection(_Client, *address)
                    status, size = await client.ask(calls[number % len(calls)])
                except OSError:
                    tally.lost += 1
                    client = None
                    break
                tally.statuses[status] += 1
                if status != 503:
                    break
                # As many as come back at once would only be put off at once.
                await asyncio.sleep(client.retry_after * random.uniform(0.5, 1.0))
                began = perf_counter()
            if client is not None:
                tally.waits.append(perf_counter() - began)
                tally.sizes.add(size)
        if client is not None:
            client.transport.close()

    start, used = perf_counter(), process_time()
    await asyncio.gather(*(one() for _ in range(many)))
    tally.seconds, tally.processor = perf_counter() - start, process_time() - used
    return tally


def _run_clients(pipe: Any, *args: Any) -> None:
    pipe.send(asyncio.run(_clients(*args)))


def asked(server: Server, calls: list[bytes], count: int, many: int) -> Tally:
    """Asks from a process of its own."""
    parts = urlsplit(server.url)
    address = (parts.hostname, parts.port)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=_run_clients, args=(theirs, address, calls, count, many)
    )
    child.start()
    tally: Tally = ours.recv()
    child.join()
    return tally


# ---- strangers ------------------------------------------------------------------------------


async def _stranger(address: tuple[str, int], chance: random.Random, call: bytes) -> None:
    """Connects again and again, and does what it should not."""
    while True:
        with suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection(*address)
            kind = chance.randrange(3)
            if kind == 0:  # rubbish
                writer.write(chance.randbytes(chance.randrange(1, 4000)))
            elif kind == 1:  # a body that comes slowly, and stops
                for place in range(0, 4000, 400):
                    writer.write(call[place : place + 400])
                    await asyncio.sleep(0.2)
            else:  # an answer that is not waited for
                writer.write(call)
            await asyncio.wait_for(reader.read(100), 0.5)
            writer.close()
        await asyncio.sleep(0.05)


def _run_strangers(address: tuple[str, int], call: bytes) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(
            *(_stranger(address, random.Random(seed), call) for seed in range(STRANGERS))
        )

    asyncio.run(all_of_them())


@contextmanager
def strangers(server: Server, call: bytes) -> Iterator[None]:
    parts = urlsplit(server.url)
    child = multiprocessing.get_context("spawn").Process(
        target=_run_strangers, args=((parts.hostname, parts.port), call), daemon=True
    )
    child.start()
    try:
        yield
    finally:
        child.kill()
        child.join()


def processes(server: Server) -> dict[str, int]:
    """The server and its worker."""
    (worker,) = children(server.process.pid)
    return {"server": server.process.pid, "worker": worker}


# ---- the whole ------------------------------------------------------------------------------


@dataclass
class Way:
    """Rounds of one way to ask."""

    calls: list[bytes]
    rates: list[float] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)

    def run(self, server: Server, count: int, many: int) -> None:
        pids = processes(server)
        before = {name: processor_seconds(pid) for name, pid in pids.items()}
        tally = asked(server, self.calls, count, many)
        for name, pid in pids.items():
            self.used[name] += processor_seconds(pid) - before[name]
        self.used["client"] += tally.processor
        self.tallies.append(tally)
        self.rates.append(tally.statuses[200] / tally.seconds)

    def fault(self, count: int) -> str:
        """What was lost or wrong; "" where nothing was."""
        statuses: Counter[int] = sum((tally.statuses for tally in self.tallies), Counter())
        lost = sum(tally.lost for tally in self.tallies)
        wrong = {status: n for status, n in statuses.items() if status not in (200, 503)}
        missing = count - statuses[200]
        return f"{lost} lost, {missing} missing, {wrong} wrong" if lost or missing or wrong else ""


def report(name: str, way: Way, bare: list[float]) -> None:
    answered = sum(tally.statuses[200] for tally in way.tallies)
    put_off = sum(tally.statuses[503] for tally in way.tallies)
    waits = sorted(wait for tally in way.tallies for wait in tally.waits)
    share = statistics.median(ours / pool for ours, pool in zip(way.rates, bare, strict=True))
    costs = ", ".join(f"{who} {1000 * used / answered:.2f}" for who, used in way.used.items())
    print(
        f"  {name:9} {statistics.median(way.rates):6.1f}/s, {share:.0%} of the bare pool;"
        f" p50 {1000 * statistics.median(waits):.0f} ms, p99"
        f" {1000 * waits[len(waits) * 99 // 100]:.0f} ms; {answered} answered, {put_off} put off"
        f" (503); processor ms each: {costs}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000, metavar="N", help="each way")
    parser.add_argument("--clients", type=int, default=200, metavar="N", help="at once (200)")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="(4)")
    parser.add_argument("--ways", default="pictures,tensors", help="pictures, tensors or both")
    parser.add_argument("--no-strangers", action="store_true", help="no slow clients and rubbish")
    parser.add_argument("--arguments", default="", help="more words for rkzoo serve")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    each = args.requests // args.rounds
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        library = str(build.compiled(Path(scratch)))
        os.environ[LIBRARY] = library
        file = model(Path(scratch))
        planned = plan(file, Request())
        shots = pictures()
        array = np.random.default_rng(2).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
        body = encode_request({"images": array})
        header = f"{HEADER_LENGTH}: {body.header_size}\r\n"
        calls = {
            "pictures": [Call("/v1/models/yolov8n:predict", shot).encoded() for shot in shots],
            "tensors": [Call("/v2/models/yolov8n/infer", body.data, header).encoded()],
        }
        ways = {name: Way(calls[name]) for name in args.ways.split(",")}
        words = (str(file), "--workers", str(SLOTS), *args.arguments.split())
        server = stack.enter_context(serving(*words))
        pids = processes(server)
        for way in ways.values():  # what is imported and allocated late
            asked(server, way.calls, args.clients, args.clients)
        before = {name: mebibytes(pid) for name, pid in pids.items()}
        bare: list[float] = []
        costs: list[float] = []
        for number in range(args.rounds):
            rate, cost = pooled(planned, shots, each)
            bare.append(rate)
            costs.append(cost)
            last = number == args.rounds - 1 and not args.no_strangers
            with strangers(server, calls["pictures"][0]) if last else ExitStack():
                for way in ways.values():
                    way.run(server, each, args.clients)
        after = {name: mebibytes(pid) for name, pid in pids.items()}
        assert processes(server) == pids, "a process was replaced"
    limit = 1000 * CORES / NPU_MS
    print(
        f"bare pool: {statistics.median(bare):.1f}/s ({limit:.1f}/s is the NPU's own limit);"
        f" processor ms each: {1000 * statistics.median(costs):.2f}"
    )
    for name, way in ways.items():
        report(name, way, bare)
    for name in pids:
        print(f"  memory of the {name}: {before[name]:.0f} MiB before, {after[name]:.0f} after")
    shares = {
        name: statistics.median(ours / pool for ours, pool in zip(way.rates, bare, strict=True))
        for name, way in ways.items()
    }
    for name, share in shares.items():
        print(f"{name}: {share:.0%} of the bare pool; goal {GOAL:.0%}: {verdict(share >= GOAL)}")
    count = each * args.rounds
    faults = [f"{name}: {fault}" for name, way in ways.items() if (fault := way.fault(count))]
    faults += [
        f"the {name} has grown by {after[name] - before[name]:.0f} MiB"
        for name in pids
        if after[name] - before[name] > GROWTH
    ]
    print("\n".join(faults) or "nothing was lost, memory is flat")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
