"""The session protocol, where the runtimes look for it (it lives on the ground floor)."""

from rkzoo.session import Array, Label, Session, dequantise

__all__ = ["Array", "Label", "Session", "dequantise"]
