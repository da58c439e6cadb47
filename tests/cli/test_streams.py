"""Where text goes out: closed and full outputs, terminals without Unicode, other people's names."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_yolo import stock

from rkzoo.cli import streams
from rkzoo.cli.console import ProgressBars
from rkzoo.toolkit import environment

RKZOO = f"{sys.executable} -m rkzoo"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\r\x08evil\nerror: fake"
CARD = HOSTILE.replace("\n", " ")  # a card is text, whose lines are kept


def shell(line: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", line.replace("rkzoo", RKZOO)]
    return subprocess.run(command, capture_output=True, env=os.environ | environ, timeout=120)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(stock(names=repr(["cat", "dog", "cow"])), path)
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8))
    return path


FULL = b"error: The output could not be written: No space left on device.\n"
CLOSED = b"error: The output could not be written: Bad file descriptor.\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
@pytest.mark.parametrize("verb", ["list", "list --json", "--help", "list --help", "soc", "clocks"])
def test_a_full_or_closed_output_is_one_sentence(verb: str) -> None:
    for where, told in (("/dev/full", FULL), ("&-", CLOSED)):
        done = shell(f"rkzoo {verb} >{where}")
        assert (done.returncode, done.stderr) == (1, told), where
        done = shell(f"rkzoo {verb} >{where} 2>&-")
        assert (done.returncode, done.stderr) == (1, b""), where


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_the_work_is_done_all_the_same(model: Path, picture: Path, tmp_path: Path) -> None:
    done = shell(f"rkzoo run {model} {picture} -o {tmp_path}/out >/dev/full")
    assert done.returncode == 1
    assert FULL in done.stderr
    assert b"Traceback" not in done.stderr
    done = shell(f"rkzoo run {model} {picture} -o {tmp_path}/b.png 2>/dev/full")
    assert done.returncode == 0
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize("verb", ["list", "soc", "list --json", "nosuchverb --json"])
@pytest.mark.parametrize("pipe", ["| true", "| head -1", "2>&1 | true", "<&- | head -1"])
def test_a_reader_that_goes_is_no_error(verb: str, pipe: str) -> None:
    done = shell(f"rkzoo {verb} {pipe}")
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert b"rkzoo itself" not in done.stderr


def test_closed_streams_are_not_given_to_the_files_that_are_opened(
    model: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    done = shell(f"rkzoo run {model} {picture} -o {out} <&- >&- 2>&-")
    assert done.returncode == 1
    assert cv2.imread(str(out)) is not None
    # Messages do not go to stdout where stderr is closed.
    done = shell(f"rkzoo run {model} {picture} -o {out} --json 2>&-")
    assert json.loads(done.stdout)["model"] == str(model)


@pytest.mark.parametrize(
    "environ",
    [
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-8:strict"},
    ],
)
def test_every_locale_prints(environ: dict[str, str], model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "图片 é 😀"
    folder.mkdir()
    strange = os.fsencode(folder) + b"/\xff.onnx"  # no UTF-8
    shutil.copy(model, strange)
    # Which weights are there changes while other tests run.
    cache = {"RKZOO_CACHE": str(tmp_path / "cache")}
    environ = environ | cache
    encoding = environ.get("PYTHONIOENCODING", "ascii").partition(":")[0]
    for words in (["list"], ["soc", "rk3588"], ["info", "ppocr"], ["inspect", strange]):
        command = [sys.executable, "-m", "rkzoo", *words]
        done = subprocess.run(command, capture_output=True, env=os.environ | environ)
        assert done.returncode == 0, (words, done.stderr)
        done.stdout.decode(encoding)
        done.stderr.decode(encoding)
    # A document means the same as anywhere.
    for words in (["list"], ["inspect", strange], ["run", "图\x85é😀", "x"]):
        command = [sys.executable, "-m", "rkzoo", *words, "--json"]
        here = subprocess.run(command, capture_output=True, env=os.environ | environ).stdout
        usual = subprocess.run(
            command, capture_output=True, env=os.environ | cache | {"PYTHONIOENCODING": "utf-8"}
        ).stdout
        document = json.loads(here.decode(encoding))
        # There Python reads the command line's own words in another way.
        assert "PYTHONUTF8" in environ or document == json.loads(usual), words


def unseen(text: str) -> set[str]:
    """Characters that steer a terminal, by Unicode's own classes: control, reordering, broken."""
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return {
        c
        for c in text
        if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(c) in bidi
    } - {"\n"}


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_spelled_steers_nothing_and_json_keeps_its_meaning(text: str) -> None:
    assert unseen(streams.visible(text)) <= {"\t"}
    assert unseen(streams.one_line(text)) == set()
    assert "\n" not in streams.one_line(text)
    for plain in (False, True):
        document = json.dumps(text, ensure_ascii=plain)
        assert json.loads(streams.visible(document)) == text


def test_what_can_be_shown_is_left_as_it_is() -> None:
    text = "naïve 中文\u3000 שלום नमस्ते 👩\u200d🚀 می\u200cخواهم · → …"
    assert streams.one_line(text) == text
    assert streams.one_line("a\x1b\n\x9b\u202e\udcff") == r"a\x1b\x0a\u009b\u202e\udcff"


def test_a_live_bar_spells_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    bars = ProgressBars()
    with bars.task("reading \x1b]0;owned\x07 x") as task:
        task.update(1, 2)
        bars.note("a\x1b]0;owned\x07")
        print("b\x9b\u202e")
    assert "\x1b]0" not in shown.getvalue()
    assert "\x07" not in shown.getvalue()
    assert r"\x1b]0;owned\x07" in shown.getvalue()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pictures, a truth and a card whose every name would steer the terminal."""
    folder = tmp_path_factory.mktemp("hostile") / "\x1b[31m\x9b\u202e\r"
    folder.mkdir()
    graph = stock(names=repr([HOSTILE, "\x1b[1m\u202edog", "cow\rcat"]))
    graph.producer_name = HOSTILE
    graph.doc_string = HOSTILE
    for key in ("author", "description", HOSTILE):
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, HOSTILE
    graph.graph.name = HOSTILE
    for number, node in enumerate(graph.graph.node[:5]):
        node.name = f"{HOSTILE}{number}"
    onnx.save(graph, folder / "tiny\x1b[2J.onnx")
    (folder / "pictures").mkdir()
    noise = np.random.default_rng(1)
    images, boxes = [], []
    for number in range(4):
        name = f"pictures/{number}\x1b[2J\u202e\n.png"
        picture = noise.integers(0, 256, (64, 96, 3), np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        images.append({"id": number, "file_name": name, "width": 96, "height": 64})
        box = {"bbox": [8, 8, 40, 30], "area": 1200, "iscrowd": 0, "category_id": number % 3 + 1}
        boxes.append({"id": number + 1, "image_id": number, **box})
    names = (HOSTILE, "\x1b[1m\u202edog", "cow\rcat")
    kinds = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    truth = {"images": images, "annotations": boxes, "categories": kinds}
    (folder / "truth\x1b[2J.json").write_text(json.dumps(truth))
    (folder / "cards").mkdir()
    card = {
        "name": "hostile",
        "base": "yolov8",
        "title": CARD,
        "summary": CARD,
        "notes": [CARD, "\x1b[1m"],
        "licence": {"name": CARD, "url": "https://example.org/LICENSE"},
        "sources": [{"url": "https://example.org/m.onnx", "sha256": "0" * 64, "size": 1}],
        "labels": ["cat"],
    }
    (folder / "cards/hostile.yaml").write_text(json.dumps(card))
    return folder


VERBS = {
    "run": "{model} {picture} --conf 0.0001 -o {out}",
    "inspect": "{model}",
    "inspect of a picture": "{model} --image {picture}",
    "eval": "{model} --data coco:{truth}",
    "bench": "{model} --image {picture} --frames 2 -o {out}.yml",
    "compare": "{model} --image {picture} --calib {pictures} --no-layers -o {out}",
    "list": "",
    "info": "hostile",
    "fetch": "hostile",
    "info of nothing": "{model}x",
    "run of nothing": "{model}x {picture}",
    "run without a picture": "{model} {picture}x",
    "stream": "{model} {pictures} --jsonl {out}/x.jsonl",
    "estimate": "{model} --soc rk3588",
}


@pytest.mark.parametrize("title", VERBS)
def test_no_name_steers_the_terminal(
    title: str, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb = title.split()[0]
    if verb in ("compare", "estimate") and environment.unavailable() is not None:
        pytest.skip("no toolkit runs here")
    places = {
        "model": str(hostile / "tiny\x1b[2J.onnx"),
        "picture": str(hostile / "pictures/0\x1b[2J\u202e\n.png"),
        "pictures": str(hostile / "pictures"),
        "truth": str(hostile / "truth\x1b[2J.json"),
        "out": str(tmp_path / "out\x1b[2J"),
    }
    words = [verb, *(word.format(**places) for word in VERBS[title].split())]
    environ = os.environ | {"RKZOO_CARDS": str(hostile / "cards"), "RKZOO_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-m", "rkzoo", *words], capture_output=True, env=environ)
    told = done.stdout.decode() + done.stderr.decode()
    assert (done.returncode == 0) == (
        " of nothing" not in title and " without " not in title and verb != "fetch"
    ), told
    assert unseen(told) == set(), told
    assert r"\x1b" in told
    assert "\nerror: fake" not in told, told
