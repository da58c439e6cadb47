"""The man page: made of the parser, committed as made, and taken by the programs that show it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import rkzoo
from rkzoo.cli.arguments import commands
from rkzoo.cli.main import main
from rkzoo.cli.man_page import ENVIRONMENT, _text
from rkzoo.cli.parser import VERBS, build_parser

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/rkzoo.1"


def test_the_committed_page_is_that_of_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "--man"]) == 0
    same = PAGE.read_text("utf-8") == capsys.readouterr().out
    assert same, "write it again: rkzoo help --man > docs/rkzoo.1"


def test_it_has_every_verb_and_option() -> None:
    text = PAGE.read_text("utf-8")
    for command in commands(build_parser(VERBS)):
        if command.path:
            assert f".SS {' '.join(('rkzoo', *command.path))}\n" in text
        for argument in command.arguments:
            for name in argument.options:
                assert name in ("-h", "--help") or f"\\fB{_text(name)}\\fR" in text


def test_it_has_every_variable_that_is_read() -> None:
    source = "".join(path.read_text("utf-8") for path in Path(rkzoo.__file__).parent.rglob("*.py"))
    assert set(re.findall(r"\bRKZOO_[A-Z]+\b", source)) <= set(ENVIRONMENT)


@pytest.mark.parametrize(
    "command",
    [
        ["mandoc", "-Tlint", "-Wwarning"],
        ["groff", "-man", "-Tutf8", "-ww", "-z"],
        ["man", "--warnings", "-l"],
    ],
)
def test_it_is_shown_without_a_warning(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed here")
    done = subprocess.run([*command, str(PAGE)], capture_output=True, text=True)
    said = [
        # A page without a date is the same whenever it is made.
        line
        for line in (done.stderr + (done.stdout if command[0] == "mandoc" else "")).splitlines()
        if "missing date" not in line
    ]
    assert said == []
