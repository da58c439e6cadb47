"""What runs in the emulated board: Rockchip's library, under rkzoo's own runtime code.

    python inside.py QUESTION FOLDER

Models lie in FOLDER as NAME.rknn with NAME.npz (`in0_0`: set 0, input 0; `out0_0`: what the
simulator computed for it). Writes FOLDER/QUESTION.json.
"""

from __future__ import annotations

import contextlib
import ctypes as c
import gc
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.runtime.npu import Layout, NpuSession
from rkzoo.runtime.npu_api import Format, Query, Type, structure
from rkzoo.runtime.npu_context import Context, NpuLibrary, NpuMemory, NpuTensor

Array = NDArray[Any]

# Registers that hold addresses: where a convolution and a pointwise unit read their maps, and
# where results are written. (Public: the RKNPU register names of the mainline `rocket` driver.)
READS = (0x1070, 0x5018, 0x5038)
WRITES = (0x4020,)
_ADDRESSES = np.array(READS + WRITES, np.uint64)


# ---- the fake driver --------------------------------------------------------------------

_DRIVER = c.CDLL(None)
_HOOK = c.CFUNCTYPE(None, c.c_uint32, c.c_uint32)


@dataclass(frozen=True)
class Object:
    """A piece of NPU memory: where it lies here, and where the NPU sees it."""

    number: int
    address: int
    size: int
    dma: int

    def bytes(self, start: int = 0, size: int | None = None) -> bytes:
        return c.string_at(self.address + start, self.size - start if size is None else size)


def objects() -> list[Object]:
    function = _DRIVER.npu_object
    function.restype = c.c_void_p
    found = []
    for number in range(1, _DRIVER.npu_objects()):
        size, dma = c.c_uint64(), c.c_uint64()
        if address := function(number, c.byref(size), c.byref(dma)):
            found.append(Object(number, address, size.value, dma.value))
    return found


LAYOUTS: tuple[Layout, ...] = ("native", "plain")
STATE = (
    "opens", "creates", "destroys", "live", "bytes", "submits", "syncs", "played", "unknown",
)  # fmt: skip


def state() -> dict[str, int]:
    told = (c.c_int64 * len(STATE))()
    _DRIVER.npu_state(told)
    return dict(zip(STATE, told, strict=True))


@contextlib.contextmanager
def on_submit(act: Callable[[int, int], None]) -> Iterator[None]:
    """Calls `act` with the range of tasks while the NPU would compute."""
    hook = _HOOK(act)
    place = c.c_void_p.in_dll(_DRIVER, "npu_hook")
    place.value = c.cast(hook, c.c_void_p).value
    # Memory that `act` looks at must not go meanwhile, with the context of an earlier model.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        place.value = None


def play(path: Path | None) -> None:
    _DRIVER.npu_play(os.fsencode(path) if path else None)


# ---- register commands --------------------------------------------------------------------

_TASK = struct.Struct("<8IQ")


@dataclass(frozen=True)
class Word:
    """A register command that holds an address: which task, which word of it."""

    task: int
    word: int
    register: int
    address: int


def _object_at(found: Sequence[Object], address: int) -> Object | None:
    return next((one for one in found if one.dma <= address < one.dma + one.size), None)


def words(start: int, number: int) -> list[Word]:
    """The address commands of the tasks start..start+number, from the list of tasks that the
    library submitted."""
    found, listed = objects(), c.c_uint64()
    _DRIVER.npu_tasks.restype = c.c_void_p
    address = _DRIVER.npu_tasks(c.byref(listed))
    raw = c.string_at(address, listed.value)
    told = []
    for task in range(start, start + number):
        *_, count, _, commands = _TASK.unpack_from(raw, task * _TASK.size)
        where = _object_at(found, commands)
        if where is None:
            continue
        data = np.frombuffer(where.bytes(commands - where.dma, 8 * count), np.uint64)
        registers = data & np.uint64(0xFFFF)
        for index in np.flatnonzero(np.isin(registers, _ADDRESSES)):
            value = int(data[index]) >> 16 & 0xFFFFFFFF
            if _object_at(found, value):
                told.append(Word(task, int(index), int(registers[index]), value))
    return told


# ---- one model ----------------------------------------------------------------------------


def library() -> NpuLibrary:
    return NpuLibrary(os.environ["RKZOO_LIBRKNNRT"])


def told(tensor: NpuTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": tensor.shape,
        "format": tensor.format.name,
        "type": Type(tensor.type).name,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
        "w_stride": tensor.w_stride,
        "bytes": tensor.bytes,
    }


def attributes(context: Context) -> dict[str, list[dict[str, Any]]]:
    inputs, outputs = context.counts()
    questions = {
        "inputs": (Query.INPUT_ATTR, inputs),
        "native_inputs": (Query.NATIVE_INPUT_ATTR, inputs),
        "outputs": (Query.OUTPUT_ATTR, outputs),
        "native_outputs": (Query.NATIVE_OUTPUT_ATTR, outputs),
    }
    return {
        name: [told(context.tensor(question, index)) for index in range(count)]
        for name, (question, count) in questions.items()
    }


def data_of(folder: Path, name: str) -> tuple[list[list[Array]], list[list[Array]]]:
    """Inputs and the simulator's outputs, a list for each set."""
    with np.load(folder / f"{name}.npz") as held:
        sets = 1 + max(int(key[2:].split("_")[0]) for key in held.files if key.startswith("in"))

        def of(kind: str, number: int) -> list[Array]:
            keys = [key for key in held.files if key.startswith(f"{kind}{number}_")]
            return [held[f"{kind}{number}_{i}"] for i in range(len(keys))]

        return [of("in", n) for n in range(sets)], [of("out", n) for n in range(sets)]


@dataclass(frozen=True)
class Given:
    """Bytes at an address that a register command holds."""

    word: Word
    offset: int
    content: bytes


def write_play(file: Path, entries: Sequence[tuple[Sequence[Given], Sequence[Given]]]) -> None:
    """What the driver is to play back; the form is told in driver.c."""
    parts = [b"RKNPLAY1", struct.pack("<Q", len(entries))]
    for given, written in entries:
        parts.append(struct.pack("<II", len(given), len(written)))
        for one in (*given, *written):
            place = (one.word.task, one.word.word, len(one.content), one.offset)
            parts += [struct.pack("<IIII", *place), one.content]
    file.write_bytes(b"".join(parts))


@dataclass(frozen=True)
class Output:
    """Where the NPU writes an output. `offsets`: how many bytes behind the address each number
    lies, in the graph's order, as the library itself reads them. `direct`: it is written where
    the session reads it; else the library copies it from memory of its own."""

    word: Word
    offsets: NDArray[np.int64]
    direct: bool = True


@dataclass(frozen=True)
class Places:
    """The commands that hold the address of each input and output; None where the processor
    reads or computes it."""

    inputs: list[Word | None]
    outputs: list[Output | None]


def bind(
    context: Context, inputs: Query, outputs: Query, **changed: int
) -> list[list[tuple[NpuTensor, NpuMemory, Object]]]:
    """Binds memory of our own to every input and output, as these questions describe them; it
    lives as long as what is returned."""
    counts = context.counts()
    before = {one.number for one in objects()}
    ends: list[list[tuple[NpuTensor, NpuMemory, Object]]] = [[], []]
    questions = ((inputs, counts[0]), (outputs, counts[1]))
    tensors = [[context.tensor(q, i) for i in range(count)] for q, count in questions]
    for side, end, how in zip(tensors, ends, (changed, {}), strict=True):
        for tensor in side:
            memory = context.create_memory(tensor.bytes)
            memory.array((tensor.bytes,), "uint8")[:] = 0  # tokens, say, must be ones that exist
            context.use(memory, tensor, **how)
            (new,) = [one for one in objects() if one.number not in before]
            before.add(new.number)
            end.append((tensor, memory, new))
    return ends


def places(lib: NpuLibrary, file: Path) -> Places:
    """Learned from the library: memory of our own is bound to every end, and the commands are
    searched for its addresses. Then the outputs are read as the library gives them, plain, with
    numbers in them that tell where they stand."""
    native = Context.open(lib, file)
    ins, outs = bind(native, Query.NATIVE_INPUT_ATTR, Query.NATIVE_OUTPUT_ATTR, pass_through=1)
    seen: list[Word] = []
    with on_submit(lambda start, number: seen.extend(words(start, number))):
        native.run()

    def first(place: Object, registers: tuple[int, ...]) -> Word | None:
        fits = (w for w in seen if w.address == place.dma and w.register in registers)
        return next(fits, None)

    direct = [first(place, WRITES) for *_, place in outs]
    written = reversed([word for word in seen if word.register in WRITES])
    last = list({word.address: word for word in written}.values())[:_LAST]
    plain = Context.open(lib, file)
    _held, wanted = bind(plain, Query.NATIVE_INPUT_ATTR, Query.OUTPUT_ATTR, pass_through=1)
    spans = [tensor.bytes for tensor, *_ in outs]
    ends = [(tensor, memory) for tensor, memory, _ in wanted]
    learned = _offsets(plain, [(d, s, *e) for d, s, e in zip(direct, spans, ends, strict=True)])
    for index, word in enumerate(direct):
        candidates = last if word is None else []
        for other in candidates:
            tensor, memory = ends[index]
            span = 2 * tensor.bytes + 65536
            (learned[index],) = _offsets(plain, [(other, span, tensor, memory)])
            if (found := learned[index]) is not None:
                learned[index] = replace(found, direct=False)
                break
    return Places([first(place, READS) for *_, place in ins], learned)


_DIGIT = {1: 7, 2: 14}
"""Bits of an index that one run tells, by the bytes of a number: as positive numbers, which
conversions keep."""
_LAST = 6


def _offsets(
    context: Context, outputs: Sequence[tuple[Word | None, int, NpuTensor, NpuMemory]]
) -> list[Output | None]:
    """Where the numbers of outputs lie behind the address that a command holds: so many bytes
    there are filled with numbers that tell their place, and what the library gives is read.
    None where they do not come out again, since the processor computes with them."""
    known = [one for one in outputs if one[0] is not None]
    index = {id(one): np.zeros(int(np.prod(one[2].shape)), np.int64) for one in known}
    most = max((span for _, span, _, _ in known), default=0)
    for digit in range(1 + most.bit_length() // min(_DIGIT.values())):
        written = []
        for one in known:
            word, span, tensor, _ = one
            kind = _kind(tensor)
            bits = _DIGIT[kind.itemsize]
            data = np.arange(span // kind.itemsize) >> bits * digit & (1 << bits) - 1
            written.append(Given(word, 0, data.astype(kind).tobytes()))
        playing = Path(f"/tmp/offsets-{os.getpid()}")
        write_play(playing, [((), written)])
        play(playing)
        context.run()
        play(None)
        playing.unlink()
        for one in known:
            found = index[id(one)]
            answer = one[3].array((len(found),), one[2].dtype)
            kind = _kind(one[2])
            if answer.itemsize == kind.itemsize:
                found |= answer.view(kind).astype(np.int64) << _DIGIT[kind.itemsize] * digit
    learned: list[Output | None] = []
    for one in outputs:
        found = index.get(id(one))
        sure = found is not None and len(np.unique(found)) == len(found) and found.min() >= 0
        learned.append(Output(one[0], found * _kind(one[2]).itemsize) if sure else None)
    return learned


def _kind(tensor: NpuTensor) -> np.dtype[Any]:
    return np.dtype(np.int8 if np.dtype(tensor.dtype).itemsize == 1 else np.int16)


@dataclass(frozen=True)
class Scaling:
    """What the model does to a picture's numbers first: (x - mean) / std, a channel each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


Piece = tuple[int, bytes]
"""Bytes, and how far behind an address they stand."""


def packed(array: Array, tensor: NpuTensor, kind: str, scaling: Scaling | None) -> list[Piece]:
    """An input as the library announces that the NPU reads it (NATIVE_INPUT_ATTR); `array` as a
    session takes it, `kind` its type there. Pictures of an INT8 model stay as they are (the NPU
    itself applies mean and std), those of a float16 model are scaled by the library."""
    if kind == "uint8":
        if Type(tensor.type) == Type.FLOAT16 and scaling is not None:
            values = (array.astype(np.float32) - np.float32(scaling.mean)) / np.float32(scaling.std)
            array = values.astype(np.float16)
        height, width, channels = array.shape[1:]
        row = max(tensor.w_stride, width) * channels * array.itemsize
        rows = array.reshape(-1, width * channels)
        if row == width * channels * array.itemsize:
            return [(0, array.tobytes())]
        return [(row * number, one.tobytes()) for number, one in enumerate(rows)]
    dtype = np.dtype(tensor.dtype)
    stored = array
    if dtype == np.int8:
        codes = np.rint(array / np.float32(tensor.scale)) + tensor.zero_point
        stored = np.clip(codes, -128, 127)
    stored = stored.astype(dtype)
    if stored.ndim == 4:
        if tensor.format == Format.NC1HWC2:
            batch, blocks, height, width, depth = tensor.shape
            whole = np.zeros((batch, blocks * depth, height, width), dtype)
            whole[:, : stored.shape[1]] = stored
            whole = whole.reshape(batch, blocks, depth, height, width)
            stored = whole.transpose(0, 1, 3, 4, 2)
        else:
            stored = stored.transpose(0, 2, 3, 1)
    return [(0, np.ascontiguousarray(stored).tobytes())]


def unpacked(array: Array, shape: Sequence[int]) -> Array:
    """NC1HWC2 to NCHW by the meaning of its name."""
    batch, channels, height, width = shape
    plain = array.transpose(0, 1, 4, 2, 3).reshape(batch, -1, height, width)
    return plain[:, :channels]


def announced(tensor: NpuTensor, shape: Sequence[int]) -> NDArray[np.int64]:
    """How many bytes behind its address each number of an output (graph's `shape`) lies,
    according to NATIVE_OUTPUT_ATTR."""
    size = np.dtype(tensor.dtype).itemsize
    if tensor.format != Format.NC1HWC2 or len(shape) != 4:
        return np.arange(int(np.prod(shape))) * size
    _, blocks, rows, columns, depth = tensor.shape
    b, channel, y, x = np.indices(shape)
    cell = (b * blocks + channel // depth) * rows * columns + y * shape[3] + x
    return ((cell * depth + channel % depth) * size).ravel()


def scattered(array: Array, output: Output, tensor: NpuTensor, size: int) -> Given:
    """An output as it is written. What is padding, up to `size` bytes, holds the largest number,
    so that who takes it for a score shows it."""
    dtype = np.dtype(tensor.dtype)
    places = output.offsets // dtype.itemsize
    worst = np.iinfo(dtype).max if dtype.kind == "i" else np.finfo(dtype).max
    whole = np.full(max(places.max() + 1, size // dtype.itemsize), worst, dtype)
    whole[places] = array.astype(dtype).ravel()
    return Given(output.word, 0, whole.tobytes())


class Model:
    """One model with what the library tells of it, and where its ends are."""

    def __init__(self, lib: NpuLibrary, folder: Path, name: str) -> None:
        self.lib, self.name, self.file = lib, name, folder / f"{name}.rknn"
        self.inputs, self.outputs = data_of(folder, name)
        scalings = json.loads((folder / f"{name}.scalings.json").read_text())
        self.scalings = [Scaling(**one) if one else None for one in scalings]
        context = Context.open(lib, self.file)
        self.attributes = attributes(context)
        counts = context.counts()
        self.native_inputs = [context.tensor(Query.NATIVE_INPUT_ATTR, i) for i in range(counts[0])]
        self.native_outputs = [
            context.tensor(Query.NATIVE_OUTPUT_ATTR, i) for i in range(counts[1])
        ]
        del context
        self.places = places(lib, self.file)

    def expected(self, number: int, kinds: Sequence[str]) -> list[list[Piece]]:
        """Set `number`, as each input is to stand in memory."""
        return [
            packed(*one)
            for one in zip(
                self.inputs[number], self.native_inputs, kinds, self.scalings, strict=True
            )
        ]

    def play_file(self, folder: Path, kinds: Sequence[str], *, native: bool = True) -> Path:
        """`native`: the outputs lie in memory of their own, as large as announced; else among
        others."""
        entries = []
        # Where the NPU reads no input, nothing tells the sets apart: the first is played.
        sets = len(self.outputs) if any(self.places.inputs) else 1
        for number, outputs in enumerate(self.outputs[:sets]):
            ins = zip(self.places.inputs, self.expected(number, kinds), strict=True)
            outs = zip(self.places.outputs, self.native_outputs, outputs, strict=True)
            given = [Given(word, *piece) for word, pieces in ins if word for piece in pieces]
            written = [
                scattered(array, place, tensor, tensor.bytes if native and place.direct else 0)
                for place, tensor, array in outs
                if place
            ]
            entries.append((given, written))
        file = folder / f"{self.name}.{'native' if native else 'plain'}.play"
        write_play(file, entries)
        return file


def arrivals(model: Model, session: NpuSession, number: int) -> list[str]:
    """Where the bytes of each input were when the NPU would read them: "read" where its commands
    say, "memory" elsewhere in memory of the NPU (for the processor), "nowhere"."""
    expected = model.expected(number, [spec.dtype for spec in session.inputs])
    answers: list[str] = []

    def look(start: int, submitted: int) -> None:
        if answers:
            return
        found = objects()
        here = {(w.task, w.word): w.address for w in words(0, start + submitted)}
        for word, pieces in zip(model.places.inputs, expected, strict=True):
            address = here.get((word.task, word.word)) if word else None
            place = _object_at(found, address) if address is not None else None
            if (
                place
                and address
                and all(
                    place.bytes(address - place.dma + offset, len(data)) == data
                    for offset, data in pieces
                )
            ):
                answers.append("read")
            elif any(all(data in one.bytes() for _, data in pieces) for one in found):
                answers.append("memory")
            else:
                answers.append("nowhere")

    with on_submit(look):
        session.run(model.inputs[number])
    return answers or ["no submit"] * len(expected)


def equal_shares(model: Model, session: NpuSession, number: int) -> list[float | None]:
    """Of each output: which share of its numbers the session gives as the simulator computed
    them; None for one that the processor writes, which is not played."""
    answers = session.run(model.inputs[number])
    shares: list[float | None] = []
    for answer, spec, wanted, place in zip(
        answers, session.outputs, model.outputs[number], model.places.outputs, strict=True
    ):
        if place is None:
            shares.append(None)
            continue
        plain = unpacked(answer, wanted.shape) if spec.layout == "NC1HWC2" else answer
        if spec.layout == "NHWC":
            plain = answer.transpose(0, 3, 1, 2)
        fits = plain.shape == wanted.shape
        shares.append(float(np.mean(plain == wanted.astype(plain.dtype))) if fits else 0.0)
    return shares


def survey_one(lib: NpuLibrary, folder: Path, name: str) -> dict[str, Any]:
    model = Model(lib, folder, name)
    as_announced = [
        bool(np.array_equal(place.offsets, announced(tensor, array.shape)))
        if place and place.direct
        else None
        for place, tensor, array in zip(
            model.places.outputs, model.native_outputs, model.outputs[0], strict=True
        )
    ]
    answer: dict[str, Any] = {
        "attributes": model.attributes,
        "as_announced": as_announced,
        "layouts": {},
    }
    for layout in LAYOUTS:
        with NpuSession.open(lib, model.file, layout=layout) as session:
            kinds = [spec.dtype for spec in session.inputs]
            arrived = arrivals(model, session, 0)
            play(model.play_file(folder, kinds, native=layout == "native"))
            before = state()
            sets = len(model.inputs) if any(model.places.inputs) else 1
            shares = [equal_shares(model, session, n) for n in range(sets)]
            after = state()
            play(None)
            answer["layouts"][layout] = {
                "zero_copy": session.zero_copy,
                "inputs": [[s.name, s.shape, s.dtype, s.layout] for s in session.inputs],
                "outputs": [[s.name, s.shape, s.dtype, s.layout] for s in session.outputs],
                "arrived": arrived,
                "sets": sets,
                "equal": shares,
                "played": after["played"] - before["played"],
                "unknown": after["unknown"] - before["unknown"],
            }
    return answer


def survey(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Everything about each model; an error stands in its place."""
    lib, answers = library(), {}
    for name in names:
        began = time.monotonic()
        try:
            answers[name] = survey_one(lib, folder, name)
            answers[name]["seconds"] = round(time.monotonic() - began, 1)
        except Exception as error:
            answers[name] = {"error": f"{type(error).__name__}: {error}"}
    return answers


def photos(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """What rkzoo finds in NAME=PHOTO, as the library hands on what is played."""
    import rkzoo
    from rkzoo.contract.detect import DetectHead
    from rkzoo.workflow.inference.board import contract_of

    answers = {}
    for one in names:
        name, _, photo = one.partition("=")
        file = folder / f"{name}.rknn"
        native = isinstance(contract_of(file).head, DetectHead)
        play(folder / f"{name}.{'native' if native else 'plain'}.play")
        before = state()
        with rkzoo.load(file) as model:
            document = model(photo).to_json()
        after = state()
        document |= {key: after[key] - before[key] for key in ("played", "unknown")}
        answers[name] = document
    play(None)
    return answers


def opens(folder: Path, names: Sequence[str]) -> dict[str, int]:
    """What is left after NAME was opened and closed COUNT times."""
    name, count = names
    lib = library()

    def once() -> None:
        with NpuSession.open(lib, folder / f"{name}.rknn"):
            pass

    def left() -> dict[str, int]:
        gc.collect()
        now = state()
        descriptors = len(os.listdir("/proc/self/fd"))
        return {"objects": now["live"], "bytes": now["bytes"], "descriptors": descriptors}

    for _ in range(3):
        once()
    before = left()
    for _ in range(int(count)):
        once()
    return {key: value - before[key] for key, value in left().items()}


def workers(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Six sessions of one model in threads, whose origin is closed before they run: how many of
    COUNT answers are those that belong to the input, and what is left afterwards."""
    right = _work(folder, *names)
    gc.collect()
    return {"right": right, "left": state()["live"]}


def _work(folder: Path, name: str, count: str) -> int:
    model = Model(library(), folder, name)
    play(folder / f"{name}.native.play")
    origin = NpuSession.open(model.lib, model.file)
    sessions = [origin.duplicate() for _ in range(6)]
    origin.close()

    def work(number: int) -> int:
        right = 0
        for turn in range(number, int(count), 6):
            shares = equal_shares(model, sessions[number], turn % len(model.inputs))
            right += set(shares) == {1.0}
        return right

    with ThreadPoolExecutor(6) as pool:
        right = sum(pool.map(work, range(6)))
    play(None)
    for session in sessions:
        session.close()
    return right


def memory_order(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Who wrote to output memory before the NPU did, with NPU_FILL=165 and a log: shares of
    untouched bytes of each output, and the log of one run."""
    return {
        f"{name} {layout}": _order(Model(library(), folder, name), layout)
        for name in names
        for layout in LAYOUTS
    }


def _order(model: Model, layout: Layout) -> dict[str, Any]:
    log = Path(os.environ["NPU_LOG"])
    before = {one.number for one in objects()}
    with NpuSession.open(model.lib, model.file, layout=layout) as session:
        # Made last, in this order: the input's memory, and that of each output.
        new = [one for one in objects() if one.number not in before]
        fed, *outputs = new[-1 - len(session.outputs) :]
        untouched: list[float] = []

        def look(start: int, number: int) -> None:
            if not untouched:
                untouched.extend(one.bytes().count(165) / one.size for one in outputs)

        begun = log.stat().st_size
        with on_submit(look):
            session.run(model.inputs[0])
        lines = log.read_text()[begun:].splitlines()
    return {"untouched": untouched, "input": fed.number, "log": lines}


def refusal(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """What rkzoo says of a model that the library refuses."""
    from rkzoo.errors import RkzooError
    from rkzoo.workflow.inference.board import BoardBackend, contract_of, open_board

    (name,) = names
    file = folder / f"{name}.rknn"
    model = BoardBackend(file, os.environ["RKZOO_LIBRKNNRT"])
    try:
        with open_board(model, contract_of(file)) as session:
            session.run([np.zeros(spec.shape, spec.dtype) for spec in session.inputs])
    except RkzooError as error:
        return {"error": str(error), "code": error.code}
    return {"error": "", "code": 0}


def findings(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """What the library does that its interface does not tell, seen on the models of the tests."""
    lib = library()
    context = Context.open(lib, folder / "33-classes.rknn")
    counts, versions = context.counts(), context.versions()
    blocks = {}
    for name in ("channels", "channels-fp16"):
        model = Model(lib, folder, name)
        blocks[name] = [
            [array.shape[1], tensor.shape[1], tensor.shape[4]]
            for array, tensor in zip(model.outputs[0], model.native_outputs, strict=True)
        ]
    return {
        "library": versions[0],
        "driver": versions[1],
        "blocks": blocks,
        "nchw": _nchw(Model(lib, folder, "map")),
        "beyond": _beyond(Model(lib, folder, "vector")),
        "spare": _spare(context, counts[1]),
        "batch": _batch(Model(lib, folder, "batch-fp16")),
    }


def _at_submit(context: Context, word: Word, size: int) -> bytes:
    """What stands where a command reads, when it is submitted."""
    found: list[bytes] = []

    def look(start: int, number: int) -> None:
        here = {(one.task, one.word): one.address for one in words(start, number)}
        if not found and (address := here.get((word.task, word.word))):
            place = _object_at(objects(), address)
            found.append(place.bytes(address - place.dma, size) if place else b"")

    with on_submit(look):
        context.run()
    return found[0]


def _handed_over(model: Model, array: Array, layout: Format) -> tuple[int, bytes]:
    """The code of rknn_inputs_set for float32 in this layout, and what arrives."""
    context = Context.open(model.lib, model.file)
    (row,) = rows = (structure("input") * 1)()
    row.index, row.buf, row.size = 0, array.ctypes.data, array.nbytes
    row.type, row.fmt = Type.FLOAT32, layout
    code = model.lib.function("inputs_set")(context._number, 1, c.byref(rows))
    (word,) = model.places.inputs
    assert word
    return code, _at_submit(context, word, model.native_inputs[0].bytes)


def _nchw(model: Model) -> dict[str, Any]:
    """A feature map in the graph's own order."""
    array = np.ascontiguousarray(model.inputs[0][0])
    code, arrived = _handed_over(model, array, Format.NCHW)
    ((_, wanted),) = packed(array, model.native_inputs[0], "float32", None)
    same = np.frombuffer(arrived, np.int8) == np.frombuffer(wanted, np.int8)
    return {"code": code, "arrived": round(float(same.mean()), 3)}


def _beyond(model: Model) -> dict[str, Any]:
    """A number that lies 8 codes beyond the largest of an INT8 input."""
    tensor = model.native_inputs[0]
    array = np.zeros_like(model.inputs[0][0])
    array.flat[0] = (127 + 8 - tensor.zero_point) * (tensor.scale or 0)
    code, arrived = _handed_over(model, array, Format.UNDEFINED)
    return {"code": code, "asked": 135, "stored": int(np.frombuffer(arrived, np.int8)[0])}


def _spare(context: Context, outputs: int) -> list[list[Any]]:
    """Native shapes before and after memory was set: those that changed."""

    def asked() -> list[tuple[int, ...]]:
        told = [context.query(Query.NATIVE_OUTPUT_ATTR, "tensor_attr", i) for i in range(outputs)]
        return [tuple(one.dims[: one.n_dims]) for one in told]

    before = asked()
    held = bind(context, Query.NATIVE_INPUT_ATTR, Query.NATIVE_OUTPUT_ATTR, pass_through=1)
    changed = [[b, a] for b, a in zip(before, asked(), strict=True) if a != b]
    del held
    return changed


def _batch(model: Model) -> dict[str, Any]:
    """Bytes from one picture of a batch to the next: announced, and as the NPU writes."""
    (place,), (tensor,) = model.places.outputs, model.native_outputs
    assert place
    each = model.outputs[0][0][0].size
    return {
        "announced": tensor.bytes // tensor.shape[0],
        "written": int(place.offsets[each] - place.offsets[0]),
    }


def main() -> None:
    question, folder, *names = sys.argv[1:]
    answer = QUESTIONS[question](Path(folder), names)
    (Path(folder) / f"{question}.json").write_text(json.dumps(answer))


QUESTIONS: dict[str, Callable[[Path, Sequence[str]], Any]] = {
    one.__name__: one for one in (survey, photos, opens, workers, memory_order, refusal, findings)
}

if __name__ == "__main__":
    main()
