"""A board without onnx: every verb that takes a .rknn works, nothing stands in for the package,
and who asks for what needs it is told so. The NPU's library is the stand-in in C."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from npu_standin import build
from rkzoo.workflow.inference import board
from workflow.comparison.test_check import Net

# What a board's install leaves out.
HIDDEN = ("onnx", "onnxruntime", "uv", "supervision")
HIDES = f"""
import contextlib, importlib, io, json, pkgutil, sys
from importlib.machinery import PathFinder

class Hides(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.split(".")[0] in {HIDDEN!r}
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[:] = [Hides if one is PathFinder else one for one in sys.meta_path]
import rkzoo
"""
LOOKS = """
try:
    import onnx
except ImportError as error:
    told["onnx"] = str(error)
rooms = ("onnx", "rkzoo.graph.onnx", "rkzoo.graph.families", "rkzoo.graph.lowering",
         "rkzoo.graph.from_weights")
told["there"] = sorted(n for n in sys.modules if n.startswith(rooms) or n == "onnxruntime")
print(json.dumps(told))
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    """A .rknn and the two pictures that it knows, as frames/0.bmp and frames/1.bmp."""
    monkeypatch.setenv(board.LIBRARY, str(build.compiled(tmp_path)))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    made = Net(tmp_path)
    (tmp_path / "frames").mkdir()
    for number, ((picture,), _) in enumerate(made.runs):
        cv2.imwrite(str(tmp_path / f"frames/{number}.bmp"), picture[0, :, :, ::-1])
    return made


def told_by(script: str, folder: Path) -> dict[str, object]:
    """What a program says that cannot import what a board lacks."""
    command = [sys.executable, "-c", f"{HIDES}\ntold = {{}}\n{script}\n{LOOKS}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_rknn_is_loaded_and_run(net: Net, tmp_path: Path) -> None:
    told = told_by(
        "with rkzoo.load('net.rknn') as model:\n"
        "    told['runtime'] = model.runtime\n"
        "    told['found'] = [len(model(f'frames/{number}.bmp')) for number in range(2)]\n",
        tmp_path,
    )
    # Of each picture the stand-in plays four sure cells.
    assert told == {
        "runtime": "board",
        "found": [4, 4],
        "onnx": "No module named 'onnx'",
        "there": [],
    }


VERBS = {
    "run": ["run", "net.rknn", "frames/0.bmp", "--json"],
    "stream": ["stream", "net.rknn", "frames", "--jsonl", "out.jsonl"],
    "check": ["check", "net.rknn", "--json"],
    "bench": ["bench", "net.rknn", "--image", "frames/0.bmp", "--frames", "3", "--json"],
    "inspect": ["inspect", "net.rknn", "--json"],
    "doctor": ["doctor", "net.rknn", "--json"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_a_rknn(
    net: Net, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if verb == "bench":  # it feeds floats too, which are not what the stand-in was told of
        monkeypatch.setenv("STANDIN_STRICT", "0")
    told = told_by(
        "from rkzoo.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    told['code'] = main({[*VERBS[verb], '--debug']!r})\n",
        tmp_path,
    )
    # doctor finds much to say of this machine, inspect that no board would read such a head.
    assert told["code"] == (verb == "inspect") or verb == "doctor"
    assert (told["onnx"], told["there"]) == ("No module named 'onnx'", [])
    if verb == "stream":
        lines = (tmp_path / "out.jsonl").read_text().splitlines()
        assert [len(json.loads(line)["results"]) for line in lines] == [4, 4]


def test_every_module_is_importable_or_says_in_words_why_not(tmp_path: Path) -> None:
    told = told_by(
        "told['refused'] = []\n"
        "for found in pkgutil.walk_packages(rkzoo.__path__, 'rkzoo.', onerror=lambda name: None):\n"
        "    if found.name in ('rkzoo.__main__', 'rkzoo.toolkit.worker'):\n"
        "        continue\n"
        "    try:\n"
        "        importlib.import_module(found.name)\n"
        "    except rkzoo.RkzooError as error:\n"
        "        told['refused'].append([found.name, error.fix])\n",
        tmp_path,
    )
    refused = dict(told["refused"])  # type: ignore[call-overload]
    assert "rkzoo.graph.onnx" in refused
    assert {fix for fix in refused.values() if "rkzoo[pc]" not in fix} == set()
    assert [name for name in refused if name.startswith("rkzoo.workflow.inference")] == []
    assert (told["onnx"], told["there"]) == ("No module named 'onnx'", [])


def test_an_onnx_is_refused_in_words_and_a_name_that_is_none_is_too(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    told = told_by(
        "for name in ('model.onnx', 'yolov8x7'):\n"
        "    try:\n"
        "        rkzoo.load(name)\n"
        "    except rkzoo.RkzooError as error:\n"
        "        told[name] = [error.what, error.fix]\n",
        tmp_path,
    )
    assert told["model.onnx"] == [
        "ONNX models cannot be handled here.",
        'Do this on a PC, or install it with: pip install "rkzoo[pc]"',
    ]
    assert "yolov8x7" in told["yolov8x7"][0]  # type: ignore[index]
    assert told["onnx"] == "No module named 'onnx'"


def test_an_onnx_that_is_broken_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "__init__.py").write_text("raise ImportError('protobuf is too old')")
    script = (
        "import rkzoo\n"
        "try:\n"
        "    rkzoo.load('model.onnx')\n"
        "except rkzoo.RkzooError as error:\n"
        "    print(error.why)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "The package onnx cannot be imported: protobuf is too old.\n"
