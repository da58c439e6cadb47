"""The scripts for the shells: loaded by the real shell, and asked for completions."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from rkzoo.cli.arguments import commands
from rkzoo.cli.main import main
from rkzoo.cli.parser import VERBS, build_parser

ASKED = [
    ("rkzoo co", {"convert", "compare", "completion"}, set()),
    ("rkzoo report z", {"zoo"}, set()),
    ("rkzoo convert yolo11n", {"yolo11n", "yolo11n-seg", "yolo11n-obb"}, {"yolov8n"}),
    ("rkzoo convert m.onnx --soc rk356", {"rk3562", "rk3566", "rk3568"}, {"rk3588"}),
    ("rkzoo run m.onnx --dtype in", {"int8"}, {"fp16"}),
    ("rkzoo run m.onnx --ca", {"--calib"}, {"--conf"}),
    ("rkzoo run m.onnx pict", {"picture one.jpg", "pictures/"}, {"yolo11n"}),
    ("rkzoo run pict", {"picture one.jpg", "pictures/"}, {"piper-joe"}),
    ("rkzoo eval m.onnx --data pict", {"picture one.jpg", "pictures/"}, set()),
    ("rkzoo run m.onnx --conf pict", set(), {"picture one.jpg", "pictures/"}),
    ("rkzoo completion z", {"zsh"}, {"bash"}),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture one.jpg").touch()
    (tmp_path / "pictures").mkdir()
    return tmp_path


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert f"rkzoo completion {shell} >" in text  # how it is installed
    path = folder / f"script.{shell}"
    path.write_text(text)
    return path


def _is(found: set[str], there: set[str], absent: set[str], line: str) -> None:
    plain = {word.rstrip("/") for word in found}
    assert {word.rstrip("/") for word in there} <= plain, line
    assert not {word.rstrip("/") for word in absent} & plain, line


def test_bash(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"source {script('bash', folder, capsys)}"]
    asked = [
        *ASKED,
        ("rkzoo convert m.onnx --soc rk3588 rv1103", {"rv1103", "rv1103b"}, set()),
        ("rkzoo run m.onnx --runtime = s", {"simulator"}, set()),
    ]
    for line, _, _ in asked:
        words = line.split(" ")
        lines.append(f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _rkzoo")
        lines.append("printf '%s\\n' \"${COMPREPLY[@]}\" ----")
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.stderr == ""
    parts = done.stdout.split("----\n")
    for (line, there, absent), part in zip(asked, parts, strict=False):
        _is(set(part.splitlines()), there, absent, line)


def test_fish(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("fish", folder, capsys)
    for line, there, absent in ASKED:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {path}; complete -C {shlex.quote(line)}"],
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        found = {row.split("\t")[0] for row in done.stdout.splitlines()}
        _is(found, there, absent, line)


def test_zsh(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a terminal, since zsh completes only there: Tab lists what is possible."""
    path = script("zsh", folder, capsys)
    (folder / ".zshrc").write_text(
        "autoload -Uz compinit; compinit -u -d .zdump\n"
        "unsetopt beep; setopt autolist; unsetopt automenu alwayslastprompt; LISTMAX=9999\n"
        f"source {path}\nPS1='ready> '\n"
        # A key that prints the line as it stands, takes it away, and so tells that it was answered.
        "told() { print -r -- \"<$BUFFER>END\"; BUFFER= }; zle -N told; bindkey '^T' told\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"ZDOTDIR": str(folder), "TERM": "dumb", "HOME": str(folder)}
        os.execlp("zsh", "zsh", "-i")
    try:
        _until(terminal, "ready> ")
        for line, there, absent in ASKED:
            os.write(terminal, f"{line}\t\t\x14".encode())
            found = _until(terminal, ">END").replace("\\ ", " ")
            for word in there:
                assert word.rstrip("/") in found, line
            for word in absent:
                assert word.rstrip("/") not in found, line
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _until(terminal: int, mark: str) -> str:
    """What is printed until a mark."""
    text, end = "", time.monotonic() + 60
    while mark not in text:
        ready, _, _ = select.select([terminal], [], [], 1)
        assert ready or time.monotonic() < end, text
        if ready:
            text += os.read(terminal, 65536).decode("utf-8", "replace")
    return text


def test_every_option_is_in_every_script(capsys: pytest.CaptureFixture[str]) -> None:
    every = commands(build_parser(VERBS))
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        text = capsys.readouterr().out
        for command in every:
            for argument in command.arguments:
                for name in argument.options:
                    wanted = f"-l {name[2:]}" if shell == "fish" and name[:2] == "--" else name
                    assert wanted.removeprefix("-") in text


def test_a_metavar_says_what_completes_it() -> None:
    """A new metavar is taken for a file, unless it is in a list: this list is to be looked at."""
    files = {
        argument.metavar
        for command in commands(build_parser(VERBS))
        for argument in command.arguments
        if argument.kind == "file"
    }
    assert files == {
        "DIR", "DIR|FILE", "FILE", "FILE.npy", "FILE.py:FUNCTION", "FILE|LIST", "FOLDER",
        "FOLDER|LIST", "HTML", "INPUT", "MD", "NAME.yaml", "OUT.rknn", "OUT.tar", "PATH", "PEM",
        "PICTURE", "PLACE", "SOURCE", "SPEC", "VIDEO", "YAML",
    }  # fmt: skip
