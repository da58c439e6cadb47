"""Operators that the toolkit fails on, or leaves to the processor, in others: a table of rewrites,
each proved equal on the model in hand before a build."""
