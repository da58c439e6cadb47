"""The command as a user meets it: exit codes, one sentence each, JSON on stdout only."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rkzoo.cli import main as front
from rkzoo.cli.console import parse_size, table, width
from rkzoo.cli.main import main
from rkzoo.cli.parser import VERBS
from rkzoo.errors import RkzooError


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from rkzoo.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'cv2', 'onnx', 'rich', 'msgspec', 'yaml'} & set(sys.modules)\n"
        "sys.exit(1 if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    for verb in VERBS:
        assert re.search(rf"^    {verb}\s", done.stdout, re.M)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert "--debug" in capsys.readouterr().out


def _help(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["convert"], ["report", "zoo"], ["help"]])
def test_help_on_a_verb_is_that_of_its_option(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", *words]) == 0
    assert capsys.readouterr().out == _help(words, capsys)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("covnert m.onnx --soc rk3588", "convert m.onnx --soc rk3588"),
        ("help covnert", "help convert"),
        ("toolkit instal", "toolkit install"),
        ("convert m.onnx --soc rk3588 --calb p", "convert m.onnx --soc rk3588 --calib p"),
        ("convert m.onnx --soc rk3588 --cal p", "convert m.onnx --soc rk3588 --calib p"),
        ("convert m.onnx --calb=p --soc rk3588", "convert m.onnx --calib=p --soc rk3588"),
        ("run m.onnx a.jpg --runtime simulater", "run m.onnx a.jpg --runtime simulator"),
        ("run m.onnx a.jpg --dtype=int-8", "run m.onnx a.jpg --dtype=int8"),
        ("convert m.onnx --soc rk3568,rk35888", "convert m.onnx --soc rk3568,rk3588"),
        ("soc rk3399", "soc rk3399pro"),
        ("soc rk3588x", "soc rk3588"),
        ("run ppokr 'my page.jpg'", "run ppocr 'my page.jpg'"),
        ("info yolo11-n", "info yolo11n"),
        ("list --task detct", "list --task detect"),
        ("toolkit install 2.30.2", "toolkit install 2.3.2"),
        (
            "tune m.onnx --soc rk3588 --data d --stages head-from",
            "tune m.onnx --soc rk3588 --data d --stages head-form",
        ),
    ],
)
def test_a_misspelled_word_is_told_with_the_whole_command(
    typed: str, meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my page.jpg").touch()
    words = [str(tmp_path / w) if w == "my page.jpg" else w for w in shlex.split(typed)]
    assert main(words) == 2
    wanted = shlex.join(
        [str(tmp_path / w) if w == "my page.jpg" else w for w in shlex.split(meant)]
    )
    fix = capsys.readouterr().err.splitlines()[-1].strip()
    assert fix.startswith("Did you mean ")
    assert fix.endswith(f"? Run: rkzoo {wanted}")


def test_a_chip_that_cannot_be_built_for_is_no_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["convert", "m.onnx", "--soc", "rk3399"]) == 2
    told = capsys.readouterr().err
    assert "The nearest is rk3399pro. Its NPU is of the first generation" in told
    assert "Did you mean" not in told


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "rkzoo demo" in capsys.readouterr().out


def test_an_error_is_sentences_on_stderr_and_json_on_stdout(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"no picture")
    assert main(["run", "ppokr", str(picture), "--json"]) == 2
    told = capsys.readouterr()
    error = json.loads(told.out)["error"]
    assert "ppokr" in error["what"]
    assert error["code"] == 2
    assert told.err.startswith("error: ")
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    ("words", "said", "see"),
    [
        (["run", "m", "p", "--conf", "abc", "--json"], "--conf", "rkzoo run --help"),
        (["list", "--bogus", "--json"], "--bogus", "rkzoo list --help"),
        (["list", "more", "--json"], "more is one word too many", "rkzoo list --help"),
        (["nosuchverb", "--json"], "nosuchverb", "rkzoo --help"),
        (["eval", "m", "--json"], "--data", "rkzoo eval --help"),
    ],
)
def test_a_wrong_command_line_is_told_as_every_other_error(
    words: list[str], said: str, see: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    error = json.loads(told.out)["error"]
    assert said in error["why"]
    assert error["why"].endswith(".")
    assert see in error["fix"]
    assert told.err.startswith("error: ")
    assert "usage:" not in told.err
    assert main(words[:-1]) == 2
    assert capsys.readouterr().out == ""


def test_examples_in_the_help_stand_on_lines_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == ["Example: rkzoo run ppocr page.jpg", "rkzoo run yolov8n.onnx photos/ --json"]


def test_our_own_fault_is_one_sentence_unless_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import rkzoo.zoo.catalogue

    def broken(report: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(rkzoo.zoo.catalogue, "cards", broken)
    assert main(["list"]) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError: planted" in told
    assert "--debug" in told
    with pytest.raises(ZeroDivisionError):
        main(["list", "--debug"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import rkzoo.zoo.catalogue

    def stopped(report: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rkzoo.zoo.catalogue, "cards", stopped)
    assert main(["list"]) == 130
    assert "Stopped" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m rkzoo list | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rkzoo 0.")


@pytest.mark.parametrize(
    ("text", "size"), [("640", (640, 640)), ("480x640", (480, 640)), ("32X64", (32, 64))]
)
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "640x", "0", "1x2x3", "-5", "99999999", "6e2"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(RkzooError, match="not a size"):
        parse_size(text)


def test_tables_align_wide_characters() -> None:
    lines = table(("name", "n"), [("中文", 1), ("abcdef", 22)]).splitlines()
    assert [width(line[: line.rindex(" ") + 1]) for line in lines] == [8, 8, 8]


def test_the_parser_knows_the_verbs_modules() -> None:
    folder = Path(front.__file__).parent
    shared = {"__init__", "entry", "main", "parser", "arguments", "signals", "streams"}
    shared |= {"console", "model_options", "listen", "search", "man_page", "known_speeds"}
    modules = {path.stem for path in folder.glob("*.py")} - shared
    assert modules == set(VERBS)


def test_headings_are_plain_lower_case_words(tmp_path: Path) -> None:
    """Of every table that a verb prints: units and names of the trade apart."""
    known = {"NPU", "TOPS", "CPU", "FPS", "INT8", "FP16", "MHz", "MB"}
    for path in Path(front.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "table"
            if not called or not isinstance(node.args[0], ast.Tuple | ast.List):
                continue
            titles = [item.value for item in node.args[0].elts if isinstance(item, ast.Constant)]
            words = {word.strip("[]") for title in titles for word in str(title).split()}
            assert all(word in known or word == word.lower() for word in words), titles
            assert "%" not in words, titles


@pytest.mark.parametrize(
    ("said", "command"),
    [
        (["run", "--helpp"], "rkzoo run --help"),
        (["stream", "--sav", "x.mp4"], "rkzoo stream --save x.mp4"),
    ],
)
def test_a_misspelled_option_is_told_before_what_is_missing(
    said: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(said) == 2
    assert capsys.readouterr().err.rstrip().endswith(f"Run: {command}")


def test_an_error_of_the_system_is_no_fault_of_rkzoos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RKZOO_CARDS", str(tmp_path / ("x" * 300)))
    assert main(["eval", "m.onnx", "--data", "y" * 400]) == 2
    shown = capsys.readouterr().err
    assert "rkzoo itself failed" not in shown
