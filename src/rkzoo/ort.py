"""ONNX Runtime sessions whose memory and time are bounded.

A graph decides how much memory it takes, and much of that only while it runs: so ONNX Runtime's
own allocator is given a limit, which covers every operator, shapes made of data included.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.errors import RkzooError, is_memory_shortage, too_little_memory

if TYPE_CHECKING:
    import onnxruntime

# What a graph that is only looked at may take: no tail of a known head needs a tenth of it.
LOOKED_AT_BYTES = 3 << 28
LOOKED_AT_SECONDS = 15.0
# Numbers of one tensor that rkzoo makes up to try a graph out: a picture of 8192 x 2730 pixels.
# No tensor of a network for an NPU is as large.
MOST_BYTES = 1 << 31
MOST_NUMBERS = 1 << 26
_LEFT_FREE = 0.95
_ARENA_FULL = ("Available memory of", "BFCArena")
_ENDED = "terminate flag"
_LOCK = threading.Lock()


class CannotRun(RkzooError):
    """ONNX Runtime refuses a graph."""


class OutOfBounds(RkzooError):
    """A graph asks for more memory or time than one that is only looked at may have."""


_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def looking(seconds: float = LOOKED_AT_SECONDS) -> Iterator[None]:
    """Bounds what runs inside: memory (LOOKED_AT_BYTES), and `seconds` of this process' computing
    in all. Inside another such block, the outer one counts."""
    token = _deadline.set(_deadline.get() or time.process_time() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


class BoundedSession:
    """An ONNX Runtime session on the CPU, with at most the memory that is free when it is opened,
    or what `looking` allows.

    Args:
        model: The .onnx file, or the serialized graph.
        what: What it is called in an error.
        fix: The remedy where ONNX Runtime refuses it.
        threads: Number of threads; 0 leaves it to ONNX Runtime.

    Raises:
        CannotRun: It cannot be loaded.
        OutOfBounds: It asks for too much memory or time.
        RkzooError: This machine has too little memory.
        ImportError: There is no ONNX Runtime.
    """

    def __init__(self, model: Path | bytes, *, what: str, fix: str, threads: int = 0) -> None:
        import onnxruntime

        self._fix = fix
        self._looking = _deadline.get() is not None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        try:
            with _LOCK:
                if _limited(LOOKED_AT_BYTES if self._looking else _free_bytes()):
                    options.add_session_config_entry("session.use_env_allocators", "1")
                self.session = onnxruntime.InferenceSession(
                    model if isinstance(model, bytes) else str(model),
                    options,
                    providers=["CPUExecutionProvider"],
                    enable_fallback=0,  # otherwise it retries, and prints so on stdout
                )
        except Exception as error:  # ONNX Runtime has many exception classes
            raise self._explained(error, f"{what} cannot be loaded by ONNX Runtime.") from error

    def run(self, feeds: Mapping[str, Any], names: Sequence[str] | None = None) -> list[Any]:
        """Run the graph: its outputs `names`, or all. Raises as when it was opened."""
        import onnxruntime

        deadline = _deadline.get()
        options = onnxruntime.RunOptions()
        done = threading.Event()
        if deadline is not None:
            threading.Thread(target=_end_at, args=(deadline, options, done), daemon=True).start()
        try:
            return list(self.session.run(names, dict(feeds), options))
        except Exception as error:
            raise self._explained(error, "ONNX Runtime cannot run the graph.") from error
        finally:
            done.set()

    def _explained(self, error: Exception, what: str) -> RkzooError:
        text = " ".join(str(error).split())
        if _ENDED in text:
            return OutOfBounds(
                "The graph computes for too long.",
                f"A part of it took more than {LOOKED_AT_SECONDS:.0f} s, and it was only looked "
                "at.",
                _ABSURD,
            )
        if self._looking and any(words in text for words in _ARENA_FULL):
            return too_large(_node(text), LOOKED_AT_BYTES)
        if is_memory_shortage(error) or any(words in text for words in _ARENA_FULL):
            return too_little_memory()
        return CannotRun(what, text[:300] + ("…" if len(text) > 300 else ""), self._fix)


_ABSURD = "Check the shapes and attributes around there, or export the model again."


def too_large(node: str, most: int) -> OutOfBounds:
    """The error for a graph with a tensor that is too large; `node` names what makes it."""
    return OutOfBounds(
        "The graph asks for too much memory.",
        f"{node} means a tensor that does not fit into {most / 2**30:.3g} GB.",
        _ABSURD,
    )


def _node(text: str) -> str:
    """ "The Pad node /neck/Pad" of ONNX Runtime's message."""
    _, found, rest = text.partition("while running ")
    kind, _, rest = rest.partition(" node. Name:'")
    name = rest.partition("'")[0]
    return f"The {kind} node {name}".rstrip() if found and kind.isidentifier() else "A node"


def _end_at(deadline: float, options: onnxruntime.RunOptions, done: threading.Event) -> None:
    while not done.wait(max(0.05, min(0.5, deadline - time.process_time()))):
        if time.process_time() > deadline:
            options.terminate = True
            return


# ---- memory -------------------------------------------------------------------------

_now: list[int] = []


def _limited(most: int | None) -> bool:
    """Whether sessions opened from now on share an allocator that gives `most` bytes."""
    import onnxruntime as ort

    if most is None:
        return False
    info = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    try:
        # Only as much as is asked for: the default doubles.
        ort.create_and_register_allocator(info, ort.OrtArenaCfg(most, 1, -1, -1))
        _now[:] = [most]
    except Exception:  # older versions take one allocator a process
        return _now == [most]
    return True


def _free_bytes() -> int | None:
    """Memory that this machine can give; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):
        return None
    return int(int(kilobytes) * 1024 * _LEFT_FREE)
