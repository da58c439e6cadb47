"""Why a model cannot be opened on an NPU.

Rockchip's library answers -6 to a model for another chip, to too little memory and to a damaged
file alike, -1 to most else, and ends its process over some of them. So what can be known is judged
before it is asked; what remains of a failure is told by the machine's state.
"""

from __future__ import annotations

from rkzoo.errors import RkzooError
from rkzoo.graph.rknn.reader import RknnFile
from rkzoo.runtime.npu_api import NpuError
from rkzoo.soc.chips import chips, same_family
from rkzoo.soc.machine import Machine

_MIB = 1 << 20
# What the library answers where the cause lies outside of the call.
_VAGUE = frozenset({-1, -3, -4, -6})
# The library needs the file, the weights and room to work at the same time.
_ROOM = 2


def refuse(name: str, file: RknnFile | None, machine: Machine) -> None:
    """Raises RkzooError where the model cannot work on this machine. What is not known (no chip,
    an encrypted file) is not judged."""
    if file is None:
        return
    refuse_for(name, file, machine.chip, *_most(machine))


def refuse_for(
    name: str, file: RknnFile, chip: str | None, has: int | None, kind: str, on: str = ""
) -> None:
    """As `refuse`, by what is known of a machine.

    Args:
        name: What the model is called in messages.
        file: The model.
        chip: The machine's chip.
        has: Bytes of memory that there are for a model at the most; None where that is not known.
        kind: What they are, as the end of a sentence.
        on: The machine's address; "" for this one.

    Raises:
        RkzooError: The model cannot work there.
    """
    if chip and file.platforms and not any(same_family(p.lower(), chip) for p in file.platforms):
        raise RkzooError(
            f"{name} cannot run on {on or 'this board'}.",
            f"It was built for {', '.join(file.platforms)}, and {'that' if on else 'this'} is"
            f" {chip}.",
            f"Convert the model for this chip, on a PC: rkzoo convert MODEL --soc {chip}",
        )
    need = needed(file)
    if has is not None and need > has:
        doctor = f"rkzoo doctor --on {on}" if on else "rkzoo doctor"
        raise RkzooError(
            f"{name} does not fit into the memory of {on or 'this board'}.",
            f"It needs {need / _MIB:.0f} MiB, and {has / _MIB:.0f} MiB {kind}.",
            f"End other programs ({doctor} names those that use the NPU), or use a smaller model.",
        )


def needed(file: RknnFile) -> int:
    """Bytes of the NPU's memory that the model takes at least."""
    return (file.weight_bytes or file.file_bytes) + (file.memory_bytes or 0)


def _contiguous(machine: Machine) -> bool:
    """Whether the NPU can use none but contiguous memory."""
    chip = chips().get(machine.chip or "")
    iommu = machine.iommu if machine.iommu is not None else chip and chip.iommu
    return iommu is False


def _most(machine: Machine) -> tuple[int | None, str]:
    """The memory that there is for a model at the most: None where that is not known."""
    if _contiguous(machine) and machine.cma_total is not None:
        # Others may lie there, who can be moved; so all of it counts.
        return machine.cma_total, "is all that is reserved for the NPU (CMA)"
    return machine.free, "are free"


_LINES = (
    (
        "but current platform is",
        "The model was built for another chip.",
        "Convert it for this chip (rkzoo doctor names it), on a PC: rkzoo convert MODEL --soc CHIP",
    ),
    (
        "cannot allocate memory",
        "There is not enough memory that the NPU can use.",
        "End other programs that use the NPU (rkzoo doctor names them), or use a smaller model.",
    ),
    (
        "failed to open rknpu module",
        "The kernel shows no device of the NPU that this user may open.",
        "Run rkzoo doctor: it says what the driver or the permission lacks.",
    ),
)
"""What librknnrt 1.5.2 was seen to print, and what it stands for."""


def cause(error: NpuError, file: RknnFile | None, machine: Machine) -> RkzooError:
    """The error that the library's answer on opening a model stands for, as far as its own line or
    the machine shows it; else the answer itself."""
    if error.number not in _VAGUE:
        return error
    printed = error.log_lines.lower()
    explanation = next(((why, fix) for line, why, fix in _LINES if line in printed), None)
    if explanation is None and machine.board:
        explanation = _no_device(machine) or (file and _little_memory(file, machine)) or None
    if not explanation:
        return error
    why, fix = explanation
    text = f' The library says: "{error.log_lines}".' if error.log_lines else ""
    return RkzooError(error.what, f"{why}{text} (error {error.number})", fix)


def _no_device(machine: Machine) -> tuple[str, str] | None:
    if not machine.nodes:
        return (
            "The kernel shows no device of the NPU.",
            "Run rkzoo doctor: it says what the driver lacks.",
        )
    if all(node.allowed is False for node in machine.nodes):
        return (
            f"This user may not open {machine.nodes[0].path}.",
            "Run rkzoo doctor: it says which group may, or run the same command with sudo.",
        )
    return None


def _little_memory(file: RknnFile, machine: Machine) -> tuple[str, str] | None:
    free = machine.cma_free if _contiguous(machine) else machine.free
    need = needed(file)
    if free is None or free >= _ROOM * need:
        return None
    return (
        f"There is hardly enough memory: the model needs {need / _MIB:.0f} MiB, and"
        f" {free / _MIB:.0f} MiB are free.",
        "End other programs (rkzoo doctor names those that use the NPU), let stream work with"
        " --workers 1, or use a smaller model.",
    )
