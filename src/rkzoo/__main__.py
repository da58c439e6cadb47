"""`python -m rkzoo` is the same as `rkzoo`."""

from rkzoo.cli.main import run

run()
