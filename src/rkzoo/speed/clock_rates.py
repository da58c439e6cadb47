"""Clock rates before and after a measurement."""

from __future__ import annotations

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.soc.machine import Machine


class Clock(StrictStruct, frozen=True):
    """A clock before and after a measurement, in Hz."""

    kind: str
    name: str
    governor: str
    before: int | None
    after: int | None


def clocks_of(before: Machine, after: Machine) -> tuple[Clock, ...]:
    """Compare every clock of one machine at two times."""
    later = {clock.path: clock.current for clock in after.clocks}
    rates = [
        Clock(
            kind=clock.kind,
            name=clock.name,
            governor=clock.governor,
            before=clock.current,
            after=later.get(clock.path),
        )
        for clock in before.clocks
    ]
    if before.npu_rate is not None and not before.of("npu"):
        rates.append(
            Clock(
                kind="npu",
                name="clock tree",
                governor="",
                before=before.npu_rate,
                after=after.npu_rate,
            )
        )
    return tuple(rates)
