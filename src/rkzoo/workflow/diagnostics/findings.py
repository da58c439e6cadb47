"""What doctor says: findings, each with its evidence and the step that mends it."""

from __future__ import annotations

from dataclasses import dataclass

from rkzoo.checks import Level


@dataclass(frozen=True)
class Finding:
    """`id` never changes, for scripts. `text` is the finding, `evidence` where it was seen,
    `fix` what to do (empty when ok); `command` is the one to type, where there is one."""

    id: str
    level: Level
    text: str
    evidence: str = ""
    fix: str = ""
    command: str = ""


def ok(name: str, text: str, evidence: str = "") -> Finding:
    return Finding(name, "ok", text, evidence)


def warn(name: str, text: str, evidence: str, fix: str, command: str = "") -> Finding:
    return Finding(name, "warn", text, evidence, fix, command)


def fail(name: str, text: str, evidence: str, fix: str, command: str = "") -> Finding:
    return Finding(name, "fail", text, evidence, fix, command)
