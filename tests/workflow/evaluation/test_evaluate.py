"""Evaluation gives the same figures however the work is spread, stopped or disturbed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_yolo import stock

from rkzoo.accuracy import answers
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.progress import Failure
from rkzoo.workflow.evaluation import evaluate as evaluation
from rkzoo.workflow.evaluation.evaluate import STANDARD, evaluate
from rkzoo.workflow.evaluation.jobs import EvaluationJob, Piece, run_inline
from rkzoo.workflow.evaluation.process_pool import run_in_processes
from rkzoo.workflow.inference.plan import plan
from rkzoo.workflow.request import resolve as resolving
from rkzoo.workflow.request.request import Request

PICTURES = 40
# What a network of random weights scores is of no interest, so that everything counts.
ALL = replace(STANDARD, confidence=0.0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(stock(names=repr(["cat", "dog", "cow"])), path)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Coloured noise with random boxes as its truth, in the form of COCO."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(7)
    images, notes = [], []
    for number in range(PICTURES):
        name = f"{number:03d}.png"
        cv2.imwrite(str(folder / name), random.integers(0, 256, (80, 120, 3), np.uint8))
        images.append({"id": number, "file_name": name, "width": 120, "height": 80})
        for _ in range(4):
            x, y, w, h = (float(v) for v in random.uniform((0, 0, 20, 20), (80, 50, 40, 30)))
            notes.append(
                {
                    "id": len(notes) + 1,
                    "image_id": number,
                    "category_id": int(random.integers(1, 4)),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    kinds = [{"id": i + 1, "name": name} for i, name in enumerate(("cat", "dog", "cow"))]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": notes, "categories": kinds}))
    return str(truth)


def figures(found: evaluation.Evaluation) -> list[tuple[str, float]]:
    return [(metric.name, metric.value) for metric in found.metrics]


def work(model: str, data: str) -> tuple[EvaluationJob, list[Piece]]:
    files = sorted(Path(data).parent.glob("*.png"))
    pieces = [(i, files[i * 4 : i * 4 + 4]) for i in range(len(files) // 4)]
    return EvaluationJob(plan(model, Request()), ALL), pieces


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        all(np.array_equal(a[key], b[key]) for key in a)
        for index in one
        for a, b in zip(one[index], other[index], strict=True)
    )


def test_the_same_to_the_last_digit_on_one_process_and_on_three(model: str, data: str) -> None:
    alone = evaluate(model, data, options=ALL, workers=1)
    many = evaluate(model, data, options=ALL, workers=3, fresh=True)
    assert alone.images == many.images == PICTURES
    assert alone.main.value > 0
    assert figures(alone) == figures(many)
    assert (alone.reused, many.reused) == (0, 0)


def test_the_drop_is_told_where_floats_answers_are_kept(model: str, data: str) -> None:
    job, _ = work(model, data)
    dataset = evaluation.open_dataset(data, "detect", ("cat", "dog", "cow"))
    worse = replace(ALL, confidence=0.5)  # stands for INT8: it loses some boxes

    def drop_now() -> evaluation.Evaluation:
        return evaluation.evaluate_plan(
            job.plan, dataset, options=worse, workers=1, floating=replace(job.plan, name="float")
        )

    alone = drop_now()
    assert alone.drop is not None, "the same job, whose answers were kept a moment ago"
    assert alone.drop.points == 0
    assert alone.drop.interval == (0, 0)
    document = alone.to_json()
    assert document["drop_interval"] == [0, 0]
    low, high = document["metrics"][0]["interval"]
    assert low <= alone.main.value <= high
    assert document["metrics"][1]["interval"] is None
    other = replace(job.plan, options=replace(job.plan.options, speed=2.0))
    assert (
        evaluation.evaluate_plan(job.plan, dataset, options=worse, floating=other, workers=1).drop
        is None
    )


def test_a_stopped_run_goes_on(model: str, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(model, data, options=ALL, workers=1)
    real = evaluation.run_inline

    def stopped(*args: object) -> Iterator:
        for number, answer in enumerate(real(*args)):
            if number == 2:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(evaluation, "run_inline", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, data, options=ALL, workers=1, fresh=True)
    monkeypatch.setattr(evaluation, "run_inline", real)
    again = evaluate(model, data, options=ALL, workers=1)
    assert again.reused == 16
    assert figures(again) == figures(whole)


def test_it_says_what_is_kept_before_it_starts(
    model: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", model, "--data", data, "--limit", "16", "--json"]
    assert main(command) == 0
    assert "kept from before" not in capsys.readouterr().err
    assert main([*command, "--limit", "40"]) == 0
    said = capsys.readouterr().err
    assert "16 of 40 pictures are kept from before; --fresh" in said
    assert said.index("kept from before") < said.index("[onnx] …")
    assert main([*command, "--fresh"]) == 0
    assert "kept from before" not in capsys.readouterr().err


def test_a_picture_that_was_replaced_is_answered_anew(
    model: str, data: str, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(Path(data).parent, folder)
    truth = str(folder / Path(data).name)
    first = evaluate(model, truth, options=ALL, workers=1)
    shutil.copy(folder / "000.png", folder / "001.png")
    again = evaluate(model, truth, options=ALL, workers=1)
    assert again.reused == PICTURES - 8
    assert figures(again) == figures(evaluate(model, truth, options=ALL, workers=1, fresh=True))
    assert figures(again) != figures(first)


@pytest.mark.parametrize("damage", ["bytes", "cut", "empty", "folder", "foreign", "fewer"])
def test_damaged_records_are_measured_again(
    model: str, data: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", model, "--data", data, "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    one, other, *_ = sorted((tmp_path / "cache" / "evals").rglob("*.npz"))
    whole = one.read_bytes()
    if damage == "folder":
        one.unlink()
        one.mkdir()
    elif damage == "foreign":
        np.savez(one, count=np.array(3))
    elif damage == "fewer":
        answers.save(one, (answers.load(one) or [])[:3])
    else:
        at = len(whole) // 2
        changed = {"bytes": whole[:at] + b"!" * 14 + whole[at + 14 :], "cut": whole[:at]}
        one.write_bytes(changed.get(damage, b""))
    assert main(command) == 0
    captured = capsys.readouterr()
    again = json.loads(captured.out)
    assert again["metrics"] == first["metrics"]
    assert again["reused"] == PICTURES - 8
    assert f"1 of the 5 records kept in {one.parent} were damaged" in captured.err
    assert main(command) == 0
    assert "damaged" not in capsys.readouterr().err
    assert other.is_file()


def test_another_threshold_is_another_run(model: str, data: str) -> None:
    evaluate(model, data, options=ALL, workers=1)
    other = evaluate(model, data, options=replace(ALL, confidence=0.2), workers=1)
    assert other.reused == 0
    assert any("confidence 0.2, not 0.001" in text for text in other.departures)


def test_a_killed_worker_loses_nothing(model: str, data: str) -> None:
    job, pieces = work(model, data)
    expected = dict(run_inline(job, pieces))
    found = {}
    for index, records in run_in_processes(job, pieces, 2):
        if not found:
            children = multiprocessing.active_children()
            assert len(children) == 2
            children[0].kill()
        found[index] = records
    assert same(found, expected)
    assert not multiprocessing.active_children()


def test_a_broken_picture_is_named_from_within_a_worker(
    model: str, data: str, tmp_path: Path
) -> None:
    job, pieces = work(model, data)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nrest")
    answers = dict(run_in_processes(job, [*pieces, (99, [broken])], 2))
    (failure,) = answers[99]
    assert isinstance(failure, Failure)
    assert "broken.png" in failure.why
    assert len(answers) == len(pieces) + 1
    assert not multiprocessing.active_children()


def test_a_source_is_not_run_on_an_npu(model: str, data: str) -> None:
    with pytest.raises(RkzooError, match=r"An NPU runs \.rknn files only"):
        evaluate(model, data, request=Request(runtime="board"))


def test_the_command_line(model: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["eval", model, "--data", data, "--limit", "8", "--workers", "1", "--json"])
    assert code == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == 8
    assert document["runtime"] == "onnx"
    assert "the first 8 of 40 pictures" in document["departures"]
    assert {m["name"] for m in document["metrics"]} >= {"mAP50-95", "mAP50"}
    assert main(["eval", model, "--data", data, "--limit", "0"]) == 2


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A real scheduler and two workers, each a process of its own."""
    address = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    started = [
        subprocess.Popen(
            [
                *(*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
                *("--scheduler-file", str(address)),
            ],
            cwd=folder,
            **quiet,
        )
    ]
    try:
        for number in range(2):
            worker = [*dask, "worker", "--scheduler-file", str(address), "--nthreads", "1"]
            worker += ["--no-nanny", "--no-dashboard", "--name", str(number)]
            worker += ["--local-directory", str(folder / f"w{number}")]
            started.append(subprocess.Popen(worker, cwd=folder, **quiet))
        end = time.monotonic() + 60
        while not address.exists() and time.monotonic() < end:
            time.sleep(0.05)
        where = json.loads(address.read_text())["address"]
        from distributed import Client

        with Client(where, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield where, started[1:]
    finally:
        for process in started:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()


def test_on_a_dask_cluster_with_a_worker_killed(model: str, data: str, tmp_path: Path) -> None:
    from rkzoo.workflow.evaluation.dask_cluster import run_on_dask

    job, pieces = work(model, data)
    expected = dict(run_inline(job, pieces))
    found = {}
    with cluster(tmp_path) as (address, workers):
        for index, records in run_on_dask(job, pieces, address):
            if not found:
                workers[0].kill()
            found[index] = records
        assert workers[0].wait(10) == -signal.SIGKILL
    assert same(found, expected)


def test_no_scheduler_there(model: str, data: str) -> None:
    from rkzoo.workflow.evaluation.dask_cluster import run_on_dask

    with pytest.raises(RkzooError, match="not the address of a Dask scheduler"):
        list(run_on_dask(None, [], "nonsense"))  # type: ignore[arg-type]
    with pytest.raises(RkzooError, match="no Dask scheduler") as caught:
        evaluate(model, data, scheduler="tcp://127.0.0.1:9")
    assert "dask scheduler" in caught.value.fix


def test_a_model_for_the_simulator_is_found_once_and_calibrated_on_the_data(
    model: str, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    float_plan = plan(model, Request())
    found, asked_for = [], []
    inner = resolving.recognise_arranged
    monkeypatch.setattr(resolving, "recognise_arranged", lambda *a: found.append(a) or inner(*a))

    def planned(models: object, label: str, request: Request, report: object) -> object:
        asked_for.append((label, request.pictures))
        return float_plan

    monkeypatch.setattr(evaluation, "plan_of", planned)
    got = evaluate(
        model, data, request=Request(runtime="simulator"), limit=4, options=ALL, workers=1
    )
    assert len(found) == 1
    ((label, pictures),) = asked_for
    assert label == "simulator"
    assert len(pictures) == 20
    assert any("calibrated on 20 pictures" in text for text in got.departures)
    assert any("not scored" in text for text in got.departures)


def test_a_script_without_a_main_guard_is_not_run_again_by_its_workers(
    assets: Path, tmp_path: Path
) -> None:
    """README's block, pasted into a file."""
    script = tmp_path / "mine.py"
    model, data = assets / "models/yolov8n.onnx", assets / "data/coco128_val/instances_bbox.json"
    script.write_text(
        "import rkzoo\nprint('begun')\n"
        f"print(rkzoo.evaluate({str(model)!r}, {str(data)!r}, limit=4, workers=2, fresh=True)"
        ".images)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["begun", "4"], done.stderr
