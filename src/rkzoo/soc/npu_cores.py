"""Number of usable NPU cores."""

from __future__ import annotations

from rkzoo.soc.machine import Machine
from rkzoo.soc.versions import judge, parse


def usable_cores(machine: Machine) -> int | None:
    """Cores that may each be given work: those of the chip, less those that the driver is known to
    break.

    Returns:
        The number of cores, from 0 on; None where it is unknown and the driver must choose.
    """
    rules = judge({"driver": parse(machine.driver)}, chip=machine.chip)
    left = [rule.cores for rule in rules if rule.cores is not None]
    if machine.npu_cores is not None:
        left.append(machine.npu_cores)
    return min(left, default=None)
