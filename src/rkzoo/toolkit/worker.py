"""The only file that imports RKNN-Toolkit2: a script for the interpreter of its environment.

It needs the standard library, numpy and rknn, works on Python 3.8 and does not import
rkzoo; process.py starts it and uses `send` and `receive` of it, so that the protocol is
written once. A message is a length (4 bytes, little endian), a JSON header of that length,
and the raw bytes of the arrays that the header lists under "arrays".

Arguments: the descriptor to read requests from, the one to write answers to, the process
id of the parent. Descriptors 1 and 2 are the log, opened by the parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Header = dict[str, Any]
    Answer = tuple[Header, list[Any]]

_LENGTH = struct.Struct("<I")


def send(write: Callable[[Any], None], header: Header, arrays: Sequence[Any] = ()) -> None:
    """Writes one message. `write` must take all the bytes it is given."""
    blocks = [np.ascontiguousarray(array) for array in arrays]
    listed = [{"dtype": block.dtype.str, "shape": block.shape} for block in blocks]
    text = json.dumps({**header, "arrays": listed}).encode("utf-8")
    write(_LENGTH.pack(len(text)) + text)
    for block in blocks:
        write(block.reshape(-1).view(np.uint8).data)


def receive(read: Callable[[int], bytes]) -> Answer:
    """Reads one message. `read(n)` must return n bytes, or raise EOFError."""
    header = json.loads(read(_LENGTH.unpack(read(_LENGTH.size))[0]).decode("utf-8"))
    arrays = []
    for listed in header.pop("arrays"):
        dtype = np.dtype(listed["dtype"])
        count = int(np.prod(listed["shape"], dtype=np.int64)) * dtype.itemsize
        arrays.append(np.frombuffer(read(count), dtype).reshape(listed["shape"]))
    return header, arrays


class Refused(Exception):
    """A toolkit call that did not raise and did not succeed either."""


class Jobs:
    """What the parent can ask for; one built model at a time."""

    def __init__(self) -> None:
        self._model: Any = None
        self._formats: list[str] = []
        self._running = False

    def start(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """Imports the toolkit, so that a broken environment shows at once."""
        import rknn.api  # noqa: F401

        return {}, []

    def build(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """Builds header["onnx"] and exports it to header["export"].

        "inputs": a list of {name, shape, mean, std}; one with a mean is a picture.
        "config": further arguments of RKNN.config. "calibration": a folder with
        calibration-<i>.npy for input i, or null for a model that stays in float.
        """
        from rknn.api import RKNN

        if self._model is not None:
            self._model.release()
        self._running = False
        # The toolkit resets it after each build, and the next would print no layer table.
        os.environ["RKNN_LOG_LEVEL"] = "5"
        self._model = model = RKNN()
        inputs = header["inputs"]
        pictures = [bool(one["mean"]) for one in inputs]
        self._formats = ["nhwc" if picture else "nchw" for picture in pictures]
        _done(
            "config",
            model.config(
                mean_values=[one["mean"] for one in inputs],
                std_values=[one["std"] for one in inputs],
                **header["config"],
            ),
        )
        _done(
            "load_onnx",
            model.load_onnx(
                header["onnx"],
                inputs=[one["name"] for one in inputs],
                input_size_list=[one["shape"] for one in inputs],
            ),
        )
        if header["calibration"] is None:
            _done("build", model.build(do_quantization=False))
        else:
            dataset = unpack_calibration(Path(header["calibration"]), inputs)
            _done("build", model.build(do_quantization=True, dataset=dataset))
        _done("export_rknn", model.export_rknn(header["export"]))
        return {}, []

    def infer(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """The built model in the simulator: float32 outputs in the graph's own layout."""
        if self._model is None:
            raise Refused("infer was asked for before build")
        if not self._running:
            _done("init_runtime", self._model.init_runtime())
            self._running = True
        outputs = self._model.inference(inputs=list(arrays), data_format=self._formats)
        if outputs is None:
            raise Refused("inference returned None")
        return {}, [np.asarray(output) for output in outputs]


def _done(call: str, status: Any) -> None:
    if status != 0:
        raise Refused(f"{call} returned {status}")


def unpack_calibration(folder: Path, inputs: Sequence[Header]) -> str:
    """One .npy per sample and input in the working directory, and the list of them.

    The toolkit wants NCHW, not normalised, and no space in a name; relative names are
    looked up beside the list. Returns the list's name.
    """
    names: list[list[str]] = []
    for number, one in enumerate(inputs):
        stack = np.load(folder / f"calibration-{number}.npy", mmap_mode="r")
        names.append([])
        for index, sample in enumerate(stack):
            array = np.moveaxis(sample, -1, 0) if one["mean"] else sample
            name = f"c{number}-{index:05d}.npy"
            np.save(name, np.ascontiguousarray(array).reshape(one["shape"]))
            names[-1].append(name)
    lines = [" ".join(row) for row in zip(*names)]  # noqa: B905
    Path("dataset.txt").write_text("\n".join(lines) + "\n")
    return "dataset.txt"


def _serve(requests: int, answers: int, libc: ctypes.CDLL) -> None:
    jobs = Jobs()

    def read(count: int) -> bytes:
        parts = []
        while count:
            part = os.read(requests, min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def write(block: Any) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(answers, view) :]

    while True:
        try:
            header, arrays = receive(read)
        except EOFError:
            return
        found: list[Any] = []
        try:
            reply, found = getattr(Jobs, header.pop("do"))(jobs, header, arrays)
        except Exception as error:
            if not isinstance(error, Refused):
                traceback.print_exc()
            reply = {"error": str(error) or type(error).__name__, "kind": type(error).__name__}
        reply["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        sys.stdout.flush()
        libc.fflush(None)
        send(write, reply, found)


def main() -> None:
    requests, answers, parent = (int(text) for text in sys.argv[1:4])
    libc = ctypes.CDLL(None)
    # Dies with its parent, whatever happens to that one.
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return
    os.set_inheritable(requests, False)
    os.set_inheritable(answers, False)
    # The native half prints through stdio: by lines, so that a crash loses nothing.
    libc.setlinebuf(ctypes.c_void_p.in_dll(libc, "stdout"))
    _serve(requests, answers, libc)


if __name__ == "__main__":
    main()
