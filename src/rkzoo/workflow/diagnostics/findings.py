"""Findings of `rkzoo doctor`, with evidence and remedy."""

from __future__ import annotations

from dataclasses import dataclass

from rkzoo.checks import Level


@dataclass(frozen=True)
class Finding:
    """A finding of the doctor.

    Attributes:
        id: stable identifier, for scripts.
        level: severity.
        text: the finding.
        evidence: where it was seen.
        fix: remedy; empty when ok.
        command: command to type, if there is one.
    """

    id: str
    level: Level
    text: str
    evidence: str = ""
    fix: str = ""
    command: str = ""


def ok(name: str, text: str, evidence: str = "") -> Finding:
    """Create an `ok` finding."""
    return Finding(name, "ok", text, evidence)


def warn(name: str, text: str, evidence: str, fix: str, command: str = "") -> Finding:
    """Create a `warn` finding."""
    return Finding(name, "warn", text, evidence, fix, command)


def fail(name: str, text: str, evidence: str, fix: str, command: str = "") -> Finding:
    """Create a `fail` finding."""
    return Finding(name, "fail", text, evidence, fix, command)
