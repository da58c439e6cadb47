"""How many of the NPU's cores a program may use."""

from __future__ import annotations

from rkzoo.soc.machine import Machine
from rkzoo.soc.versions import judge, parse


def usable_cores(machine: Machine) -> int | None:
    """Cores 0 to this one may each be given work: those that the chip has, less those that its
    driver is known to break. None where neither is known; the driver must choose then."""
    rules = judge({"driver": parse(machine.driver)}, chip=machine.chip)
    left = [rule.cores for rule in rules if rule.cores is not None]
    if machine.npu_cores is not None:
        left.append(machine.npu_cores)
    return min(left, default=None)
