"""`python -m rkzoo` is the same as `rkzoo`."""

from rkzoo.cli.entry import run

run()
