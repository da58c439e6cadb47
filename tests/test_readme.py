"""README.md, walked by a newcomer: every command of its code blocks is run as it stands, in an
empty folder with files of the names it uses, or is listed here with the reason why it cannot be.

The quick ones run in the suite; `RKZOO_README=all pytest -n0 tests/test_readme.py` runs all, which
takes half an hour, and fetches the weights that are not in the cache.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from serving.server import serving
from upstream_networks import network

README = Path(__file__).parent.parent / "README.md"
ALL = os.environ.get("RKZOO_README") == "all"


@dataclass(frozen=True)
class Step:
    """What a command does: `writes` the files it says it writes, `weights` the models of the zoo
    it needs, `slow` where it takes more than a few seconds, `code` its exit code."""

    writes: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    slow: bool = False
    code: int = 0


RKNN = "yolov8n-rk3588-int8.rknn"
RUN: dict[str, Step] = {
    "rkzoo inspect yolov8n.onnx": Step(),
    "rkzoo run yolov8n.onnx photos/ -o out": Step(("out",)),
    "rkzoo convert yolov8n.onnx --soc rk3588 --calib photos/": Step(
        (RKNN, f"{RKNN}.json"), slow=True
    ),
    f"rkzoo run {RKNN} photos/ -o out-int8": Step(("out-int8",), slow=True),
    "rkzoo convert yolov8n.onnx --soc rk3588 --dtype fp16 --sizes 640x640,320x320 "
    "-o sizes.rknn": Step(("sizes.rknn",), slow=True),
    "rkzoo run sizes.rknn photo.jpg --size 320x320": Step(("rkzoo-out/photo.jpg",), slow=True),
    "rkzoo convert yolov8n.onnx --soc rk3588 --calib photos/ --batch 4 -o four.rknn": Step(
        ("four.rknn",), slow=True
    ),
    "rkzoo convert mobilenetv2.onnx --soc rk3576 --dtype w4a16": Step(
        ("mobilenetv2-rk3576-w4a16.rknn",), slow=True
    ),
    "rkzoo advise yolov8n.onnx --soc rk3588": Step(slow=True),
    "rkzoo stream yolov8n.onnx film.mp4 --track --reid osnet.onnx": Step(slow=True),
    "rkzoo run faces crowd.jpg --known people/": Step(("rkzoo-out/crowd.jpg",), ("yunet", "sface")),
    'rkzoo run kokoro "Any text." -o said.wav': Step(("said.wav",), ("kokoro",), True),
    "rkzoo run yolov8n.onnx photos/ --classes person,car "
    "--save-txt labels/ --save-json found.json": Step(("labels", "found.json")),
    "rkzoo convert tracker.onnx --soc rk3588 --calib samples/": Step(
        ("tracker-rk3588-int8.rknn",), slow=True
    ),
    "rkzoo run tracker.onnx template=a.jpg search=b.jpg -o out.npz": Step(("out.npz",)),
    "rkzoo run text.onnx sample.npz": Step(("rkzoo-out",)),
    "rkzoo run depth.onnx a.jpg --fit stretch": Step(("rkzoo-out",)),
    "rkzoo compare tracker.onnx --calib samples/": Step(("rkzoo-compare/report.html",), slow=True),
    "rkzoo eval tracker.onnx --data samples/ --runtime simulator": Step(slow=True),
    "rkzoo eval yolov8n.onnx --data instances.json": Step(),
    "rkzoo eval yolov8n.onnx --data instances.json --runtime simulator": Step(slow=True),
    "rkzoo eval yolov8n.onnx --data instances.json --explain": Step(
        ("yolov8n-explain.png",), slow=True
    ),
    "rkzoo compare yolov8n.onnx --soc rk3588 --calib photos/ --image a.jpg": Step(
        ("rkzoo-compare/report.html",), slow=True
    ),
    "rkzoo tune yolov8n.onnx --soc rk3588 --data instances.json --max-drop 1": Step(
        ("rkzoo-tune/yolov8n-rk3588.yaml",), slow=True
    ),
    "rkzoo convert yolov8n.onnx --soc rk3588 --recipe rkzoo-tune/yolov8n-rk3588.yaml": Step(
        (RKNN,), slow=True
    ),
    "rkzoo soc rk3588": Step(),
    "rkzoo estimate yolov8n.onnx --soc all": Step(slow=True),
    "rkzoo bench yolov8n.onnx --frames 200": Step(("rkzoo-bench.json",), slow=True),
    "rkzoo bench whisper-base --input talk.wav": Step(weights=("whisper-base",), slow=True),
    f"rkzoo run {RKNN} photo.jpg": Step(("rkzoo-out/photo.jpg",), slow=True),
    "rkzoo stream yolov8n.onnx film.mp4 --save boxes.mp4 --track": Step(("boxes.mp4",)),
    "rkzoo stream yolov8n.onnx a.mp4 b.mp4 --save boxes.mp4": Step(("boxes-0.mp4", "boxes-1.mp4")),
    "rkzoo list": Step(),
    "rkzoo info ppocr": Step(),
    "rkzoo run ppocr page.jpg": Step(("rkzoo-out/page.jpg",), ("ppocr", "font-cjk")),
    "rkzoo run whisper-base talk.mp3 -o talk.srt": Step(("talk.srt",), ("whisper-base",), True),
    'rkzoo run piper-joe "Any text." -o said.wav': Step(("said.wav",), ("piper-joe",)),
    "rkzoo run yamnet yard.wav": Step(weights=("yamnet",), slow=True),
    "rkzoo run deeplabv3.tflite street.jpg": Step(("rkzoo-out/street.jpg",), slow=True),
    "rkzoo run centerface crowd.jpg": Step(("rkzoo-out/crowd.jpg",), ("centerface",)),
    'rkzoo run minilm notes/ --search "a pet"': Step(weights=("minilm",)),
    "rkzoo eval whisper-base --data FOLDER": Step(weights=("whisper-base",), slow=True),
    "rkzoo info llm": Step(),
}
URL = "http://127.0.0.1:8000"
PREDICT = f"{URL}/v1/models/yolov8n:predict"
SERVED: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "rkzoo serve yolov8n.onnx ppocr": (
        ("ppocr",),
        {
            f"curl --data-binary @street.jpg {PREDICT}": '"label": "bus"',
            f'curl --data-binary @street.jpg "{PREDICT}?format=jpg" -o boxes.jpg': "",
        },
    ),
    "rkzoo serve whisper-base piper-joe minilm --wyoming 10300": (
        ("whisper-base", "piper-joe", "minilm"),
        {f"curl -F model=whisper-base -F file=@talk.mp3 {URL}/v1/audio/transcriptions": ("gospel")},
    ),
}
"""Servers: the weights that each needs, and the commands that ask it, with words of the answer."""
ASKING = {command for _, asking in SERVED.values() for command in asking}

_MACHINE = "it judges this machine: its code is what it finds here (tests/workflow/diagnostics)"
_BOARD = "it needs a board: tests/board_over_ssh has one that is emulated, behind a real ssh"
ON = "--on ssh://radxa@rock5b"
ELSEWHERE: dict[str, str] = {
    "rkzoo board setup ssh://radxa@rock5b": _BOARD,
    f"rkzoo doctor {ON}": _BOARD,
    f"rkzoo run {RKNN} photo.jpg {ON}": _BOARD,
    f"rkzoo check {RKNN} {ON}": _BOARD,
    f"rkzoo bench {RKNN} {ON}": _BOARD,
    f"rkzoo compare yolov8n.onnx --calib photos/ {ON}": _BOARD,
    f"rkzoo eval {RKNN} --data instances.json {ON}": _BOARD,
    "rkzoo serve models/ --grpc 8001 --host 0.0.0.0 --token-file token.txt": (
        "it listens to the network: tests/serving does so with free ports"
    ),
    "git clone <this repository> && cd rkzoo": "it stands for what the reader did",
    "make demo": "tests/workflow/apps/test_demo.py runs the demo",
    "make test": "this is the suite",
    'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]"': "it needs a package index",
    ".venv/bin/rkzoo demo": "tests/workflow/apps/test_demo.py runs the demo",
    ".venv/bin/python -m pytest": "this is the suite",
    "rkzoo doctor": _MACHINE,
    "rkzoo doctor model.rknn": _MACHINE,
    "rkzoo doctor --capture board.tar": _MACHINE,
    "rkzoo clocks lock --apply": "it needs a board, and root",
    f"rkzoo stream {RKNN} rtsp://camera/stream --http 0.0.0.0:8080": "it needs a camera",
    "rkzoo stream yolov8n.onnx 0 --camera 1280x720@30/MJPG": "it needs a camera",
    f"rkzoo check {RKNN}": "it needs a board",
}


def blocks(language: str) -> list[str]:
    """The code blocks of README in a language; shell has none."""
    text = README.read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands() -> list[str]:
    """Every command of the shell blocks, without its comment; `;` stands between two."""
    lines = [line.split(" #")[0] for block in blocks("") for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split(" ; ") if part.strip()]


def test_every_command_is_run_or_said_why_not() -> None:
    tables = (set(RUN), set(ELSEWHERE), set(SERVED), ASKING)
    assert len(set().union(*tables)) == sum(map(len, tables))
    assert set(commands()) == set().union(*tables)


@pytest.fixture(scope="module")
def home(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of the names that README uses, and nothing else."""
    import onnx
    from tiny_plain import one_picture, sample, tokens, two_pictures

    home = tmp_path_factory.mktemp("newcomer")
    models, data = assets / "models", assets / "data"
    shutil.copy(models / "yolov8n.onnx", home)
    shutil.copy(models / "deeplabv3_mnv2_pascal_quant.tflite", home / "deeplabv3.tflite")
    known = json.loads((data / "coco128_val/instances_bbox.json").read_text())
    known["images"] = known["images"][:4]
    there = {image["id"] for image in known["images"]}
    known["annotations"] = [note for note in known["annotations"] if note["image_id"] in there]
    (home / "instances.json").write_text(json.dumps(known))
    for folder in ("images", "photos"):
        (home / folder).mkdir()
        for image in known["images"]:
            shutil.copy(data / "coco128_val/images" / image["file_name"], home / folder)
    for name in ("photo.jpg", "a.jpg", "b.jpg", "street.jpg"):
        shutil.copy(data / "images/bus_640.jpg", home / name)
    shutil.copy(data / "images/face.jpg", home / "crowd.jpg")
    shutil.copy(data / "images/ocr_page.jpg", home / "page.jpg")
    (home / "people").mkdir()
    shutil.copy(data / "images/face.jpg", home / "people/ann.jpg")
    shutil.copy(models / "mobilenetv2.onnx", home)
    onnx.save(network("osnet-x0-25"), str(home / "osnet.onnx"))
    tracker = two_pictures()
    onnx.save(tracker, str(home / "tracker.onnx"))
    onnx.save(tokens(), str(home / "text.onnx"))
    onnx.save(one_picture(), str(home / "depth.onnx"))
    (home / "samples").mkdir()
    for seed in range(3):
        np.savez(home / "samples" / f"{seed}.npz", **sample(tracker, seed))
    np.savez(home / "sample.npz", **sample(tokens()))
    (home / "notes").mkdir()
    (home / "notes/one.txt").write_text("The cat sleeps on the sofa.\nThe rent is due on Monday.\n")
    for name in ("film.mp4", "a.mp4", "b.mp4"):
        _film(home / name, data / "images/bus_640.jpg")
    _sounds(home, data / "audio")
    return home


def _film(path: Path, picture: Path) -> None:
    import cv2

    image = cv2.imread(str(picture))
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (image.shape[1], image.shape[0])
    )
    for shift in range(8):
        writer.write(np.roll(image, shift, axis=1))
    writer.release()


def _sounds(home: Path, audio: Path) -> None:
    import soundfile

    shutil.copy(audio / "animal.wav", home / "yard.wav")
    shutil.copy(audio / "speech_en.wav", home / "talk.wav")
    samples, rate = soundfile.read(audio / "speech_en.wav")
    soundfile.write(home / "talk.mp3", samples, rate, format="MP3")
    (home / "FOLDER").mkdir()
    shutil.copy(audio / "speech_en.wav", home / "FOLDER/talk.wav")
    (home / "FOLDER/talk.txt").write_text("yesterday it was thirty five degrees in barcelona")


def ran(home: Path, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=home,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


@pytest.mark.timeout(2000)
@pytest.mark.parametrize("command", list(dict.fromkeys(commands())))
def test_the_command_does_what_readme_says(home: Path, command: str) -> None:
    if command in ELSEWHERE:
        pytest.skip(ELSEWHERE[command])
    if command in SERVED or command in ASKING:
        pytest.skip("test_a_server_answers_what_readme_asks does")
    step = RUN[command]
    if step.slow and not ALL:
        pytest.skip("slow: RKZOO_README=all runs it")
    program, *words = shlex.split(command)
    assert program == "rkzoo"
    _need(home, step.weights)
    done = ran(home, ["-m", "rkzoo", *words])
    assert done.returncode == step.code, done.stdout[-2000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    for name in step.writes:
        path = home / name
        assert path.exists()
        assert any(path.iterdir()) if path.is_dir() else path.stat().st_size


def _need(home: Path, weights: tuple[str, ...]) -> None:
    for name in weights:
        if not ALL and ran(home, ["-m", "rkzoo", "fetch", name], RKZOO_OFFLINE="1").returncode:
            pytest.skip(f"{name} is not in the cache: RKZOO_README=all fetches it")


@pytest.mark.parametrize("command", list(SERVED))
def test_a_server_answers_what_readme_asks(home: Path, command: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("something listens at port 8000, which README's commands take")
    weights, asking = SERVED[command]
    if "whisper-base" in weights and not ALL:
        pytest.skip("slow: RKZOO_README=all runs it")
    _need(home, weights)
    words = shlex.split(command)[2:]
    with serving(*words, "--port", "8000", cwd=home):
        for asked, answer in asking.items():
            done = subprocess.run(
                [*shlex.split(asked), "--silent", "--show-error", "--fail"],
                cwd=home, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert answer in done.stdout
            if " -o " in asked:
                assert (home / asked.split(" -o ")[1]).stat().st_size > 10_000


def test_the_python_of_readme_runs(home: Path) -> None:
    (block,) = blocks("python")
    tree = ast.parse(block)
    if not ALL:  # convert builds
        tree.body = [line for line in tree.body if "convert" not in ast.unparse(line)]
    # The classes of the example are not those of the weights at hand.
    code = ast.unparse(tree).replace(", labels=['cat', 'dog']", "")
    done = ran(home, ["-c", code])
    assert done.returncode == 0, done.stderr[-3000:]
    assert (home / "boxes.jpg").stat().st_size


def test_the_card_of_readme_is_taken(home: Path) -> None:
    import onnx
    from tiny_plain import one_picture

    (block,) = blocks("yaml")
    place = home / "card"
    place.mkdir(exist_ok=True)
    onnx.save(one_picture(("h", "w")), str(place / "my_model.onnx"))
    # The one picture of that graph is its only input, and its output has another name.
    lines = [line for line in block.splitlines() if not re.match(r"arrays|  - |outputs", line)]
    (place / "names.txt").write_text("one\ntwo\n")
    (place / "mine.yaml").write_text("\n".join(lines) + "\n")
    done = ran(home, ["-m", "rkzoo", "run", "card/mine.yaml", "a.jpg"])
    assert done.returncode == 0, done.stderr[-3000:]
