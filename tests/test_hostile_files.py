"""Files that nobody vouches for: what `rkzoo inspect` says of mutated ones is a verdict or one
error of at most three sentences, within 2 GB and 20 s. RKZOO_FUZZ=3000 is the whole of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
import yaml
from tiny_anchor_heads import Net, anchored, yolox
from tiny_heads import Head, build, vendor
from tiny_plain import one_picture, tokens
from tiny_whole import classifier

from graph.rknn_writer import Sample
from hostile_files.mutate import changed, changed_json, damaged, written
from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.toolkit.recipe import Calibration, InputPlan, Recipe, Sidecar, Source
from rkzoo.workflow.request.pipeline_file import PipelineFile

COUNT = int(os.environ.get("RKZOO_FUZZ", "60"))
SERVER = Path(__file__).parent / "hostile_files" / "server.py"
GROWTH_KB = 2 << 20


def graphs() -> list[onnx.ModelProto]:
    made = [build(Head()), vendor(Head(task="seg")), anchored(), yolox(Net()), classifier()]
    made += [one_picture(), tokens()]
    root = os.environ.get("RKZOO_TEST_ASSETS")
    names = ("lprnet", "retinaface_mobile0.25_320", "yolox_nano")
    files = [Path(root or "") / "models" / f"{name}.onnx" for name in names] if root else []
    return made + [onnx.load(file) for file in files if file.exists()]


def documents() -> dict[str, Any]:
    """A sidecar, a pipeline, a card and a recipe, as JSON has them."""
    outputs = (HeadOutput(name="box_8", role="box"), HeadOutput(name="score_8", role="score"))
    head = DetectHead(outputs=outputs, classes=2, strides=(8,))
    contract = Contract(family="yolov8", picture=ImageInput(size=(64, 64)), head=head)
    inputs = (InputPlan(name="x", shape=(1, 3, 64, 64)),)
    sidecar = Sidecar(
        source=Source(file="m.onnx", sha256="ab" * 32),
        recipe=Recipe(soc="rk3568", dtype="int8", inputs=inputs),
        contract=contract,
        calibration=Calibration(files=("a.jpg",)),
        build="key",
        rkzoo="0.1.0",
    )
    pipeline = PipelineFile(name="p", parts={"det": "d.rknn"}, files={"words": "w.txt"})
    return {
        "m.rknn.json": msgspec.to_builtins(sidecar),
        "p.json": msgspec.to_builtins(pipeline),
        "c.yaml": {
            "name": "c",
            "file": "model.onnx",
            "input": {"size": [64, 96], "color": "RGB", "mean": [0, 0, 0], "std": [255.0] * 3},
            "labels": ["a", "b", "c"],
            "calibration": {"count": 20, "algorithm": "normal", "folder": "pictures"},
        },
        "r.recipe.yaml": {
            "model": "yolov8n",
            "sha256": "ab" * 32,
            "toolkit": "2.3.2",
            "quantise": {"algorithm": "normal"},
            "format": 1,
        },
    }


def hostile(folder: Path, count: int) -> Iterator[Path]:
    """Two .onnx to one of the others."""
    models, built, plain = graphs(), Sample().write(), documents()
    (folder / "model.onnx").write_bytes(models[0].SerializeToString())
    for number in range(count):
        chance = random.Random(number)
        if number % 3 < 2:
            model = chance.choice(models)
            if chance.random() < 0.25:
                data = damaged(model.SerializeToString(), chance)
            else:
                data = changed(model, chance)
            yield written(folder, f"{number}.onnx", data)
            continue
        name = chance.choice(["m.rknn", *plain])
        if name == "m.rknn":
            data = damaged(built, chance)
        elif chance.random() < 0.7:
            data = changed_json(plain[name], chance)
        else:
            data = damaged(json.dumps(plain[name]).encode(), chance)
        if "yaml" in name and chance.random() < 0.3:
            data = damaged(yaml.safe_dump(plain[name]).encode(), chance)
        yield written(folder, f"{number}.{name.partition('.')[2]}", data)


def inspected(folder: Path, paths: list[Path]) -> list[dict[str, Any]]:
    names = folder / "files.txt"
    names.write_text("".join(f"{path}\n" for path in paths))
    environment = os.environ | {"RKZOO_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, str(SERVER), str(names)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def fault(record: dict[str, Any]) -> str:
    """What is wrong with an answer; "" for nothing."""
    text = record["text"]
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    for wrong in ("Traceback", "rkzoo itself failed", "too little memory", "\x1b"):
        if wrong in text:
            return wrong
    if record["code"] not in (0, 1, 2):
        return f"exit code {record['code']}"
    if record["peak"] > GROWTH_KB:
        return f"{record['peak'] >> 10} MB"
    if record["code"] == 2 and len(errors) != 1:
        return f"{len(errors)} errors"
    if record["code"] == 1 and not errors and "FAIL" not in text:
        return "no verdict"
    return ""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are Linux's here")
@pytest.mark.timeout(3 * 3600 if COUNT > 1000 else 600)
def test_mutated_files(tmp_path: Path) -> None:
    records = inspected(tmp_path, list(hostile(tmp_path, COUNT)))
    assert len(records) == COUNT
    faults = [f"{r['file']}: {why}: {r['text'][-600:]}" for r in records if (why := fault(r))]
    assert not faults, f"{len(faults)} of {COUNT}:\n" + "\n".join(faults[:20])
