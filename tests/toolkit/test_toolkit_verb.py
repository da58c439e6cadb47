"""rkzoo toolkit install | list | remove, as a user calls it."""

from __future__ import annotations

import json
import sys

import pytest

from rkzoo.cli.main import main
from rkzoo.files import cache_dir
from rkzoo.toolkit import environment
from rkzoo.toolkit.versions import LAYOUT


@pytest.fixture
def pretended(cache):
    folder = cache_dir("toolkits") / "2.3.2"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    mark = {
        "version": "2.3.2",
        "python": "3.11.7",
        "size": 5_300_000,
        "layout": LAYOUT,
    }
    (folder / environment.READY).write_text(json.dumps(mark))
    return folder


def test_list_shows_what_is_and_what_could_be(pretended, capsys):
    assert main(["toolkit", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["2.3.2", "lean", "3.11.7", "5", "MB", str(pretended)]
    assert "2.5.0    not installed" in "\n".join(lines)


def test_list_as_json(pretended, capsys):
    assert main(["toolkit", "list", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["installed"] == [
        {
            "version": "2.3.2",
            "kind": "lean",
            "python": str(pretended / "bin" / "python"),
            "python_version": "3.11.7",
            "bytes": 5_300_000,
        }
    ]
    assert answer["default"] == "2.5.0"
    assert "2.2.0" in answer["known"]


def test_install_of_an_installed_one_says_ready(pretended, capsys):
    assert main(["toolkit", "install", "2.3.2"]) == 0
    assert "2.3.2 is ready" in capsys.readouterr().out


def test_remove(pretended, capsys):
    assert main(["toolkit", "remove", "2.3.2"]) == 0
    assert "removed RKNN-Toolkit2 2.3.2" in capsys.readouterr().out
    assert not pretended.exists()
    assert main(["toolkit", "remove", "2.3.2"]) == 2
    assert "not installed" in capsys.readouterr().err


def test_unknown_versions_are_the_users_mistake(cache, capsys):
    assert main(["toolkit", "install", "1.7.5"]) == 2
    assert "Known versions" in capsys.readouterr().err
