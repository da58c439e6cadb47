"""Lines of the log, as text and as JSON, and the identifier that a request has in both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from rkzoo.cli.parser import build_parser
from rkzoo.cli.serve import _log
from rkzoo.serving.engine import Event
from rkzoo.serving.log import Log, as_text, line_of
from serving import tiny_models
from serving.server import Server, serving

TOKEN = "only-for-this-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
TIME = "2026-11-30T10:00:00.000Z"
INPUT = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1234567, 2, 3, 4]}
BODY = json.dumps({"inputs": [INPUT]}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("logs")
    model = tiny_models.scaled(folder / "twice.onnx")
    (folder / "token").write_text(TOKEN)
    words = (str(model), "--workers", "1", "--log-format", "json")
    with serving(*words, "--token-file", str(folder / "token")) as server:
        yield server


def line(server: Server, request: str) -> dict[str, Any]:
    """The line of a request, which comes after its answer."""
    end = monotonic() + 5
    while monotonic() < end:
        lines = [json.loads(text) for text in server.lines]
        if found := [one for one in lines if one.get("request") == request]:
            (only,) = found
            return only
        sleep(0.01)
    raise AssertionError(server.lines)


def test_each_request_is_one_line_of_json(server: Server) -> None:
    url = "/v2/models/twice/infer"
    assert server.ask(url, BODY, BEARER | {"X-Request-ID": "mine-1"})[0] == 200
    told = line(server, "mine-1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert 0 <= told.pop("waited_ms") < 10_000
    assert 0 < told.pop("worked_ms") < 10_000
    assert told == {
        "model": "twice",
        "call": "infer",
        "outcome": "ok",
        "status": 200,
        "bytes": len(BODY),
        "client": "127.0.0.1",
        "request": "mine-1",
    }


def test_what_happens_to_a_model_is_in_the_same_form(server: Server) -> None:
    lines = [json.loads(text) for text in server.lines]
    messages = [(one.get("model"), one["message"]) for one in lines if "call" not in one]
    assert ("twice", "loaded, version 1") in messages
    assert (None, f"Listening at {server.url} (Ctrl-C ends it)") in messages


@pytest.mark.parametrize(
    ("path", "body", "headers", "told"),
    [
        ("/v2", None, {}, {"status": 401, "message": "GET /v2"}),
        ("/nothing", None, BEARER, {"status": 404, "message": "GET /nothing"}),
        ("/v1/models/no:predict?x=secret", b"secret", BEARER,
         {"status": 400, "message": "POST /v1/models/no:predict"}),
        ("/v2/models/twice/infer", BODY.replace(b"FP32", b"FP64"), BEARER,
         {"status": 400, "model": "twice", "call": "infer"}),
    ],
)  # fmt: skip
def test_refused_ones_are_there_without_what_was_sent(
    server: Server, path: str, body: bytes | None, headers: dict[str, str], told: dict[str, Any]
) -> None:
    status, answered, _ = server.ask(path, body, headers)
    assert status == told["status"]
    found = line(server, answered["x-request-id"])
    assert {name: found.get(name) for name in told} == told
    assert found["outcome"] == "wrong"
    everything = "\n".join(server.lines)
    assert TOKEN not in everything
    assert "secret" not in everything
    assert "1234567" not in everything


def test_an_identifier_is_repeated_or_made(server: Server) -> None:
    def id_of(**headers: str) -> str:
        return server.ask("/v2/health/live", None, headers)[1]["x-request-id"]

    assert id_of(**{"X-Request-ID": "a/b+c=:_.-9"}) == "a/b+c=:_.-9"
    made = [id_of(), id_of(), id_of(**{"X-Request-ID": "has spaces"})]
    made.append(id_of(**{"X-Request-ID": "x" * 129}))
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in made)
    assert len(set(made)) == 4


def test_probes_and_scrapes_leave_no_line(server: Server) -> None:
    made = [
        server.ask(path, None, BEARER)[1]["x-request-id"]
        for path in ("/v2/health/ready", "/metrics", "/v1/status", "/")
    ]
    server.ask("/nothing", None, BEARER | {"X-Request-ID": "last"})
    line(server, "last")
    assert not any(one in text for one in made for text in server.lines)


def test_text_is_one_line_whatever_a_path_says(tmp_path: Path) -> None:
    model = str(tiny_models.scaled(tmp_path / "twice.onnx"))
    with serving(model, "--workers", "1") as loud:
        given = {"X-Request-ID": "seen"}
        assert loud.ask("/v2/models/twice/infer", BODY, given)[0] == 200
        loud.ask("/no%0athing%1b[2J%E2%80%AE", None, {"X-Request-ID": "steers"})
        assert loud.ask("/v2/models/twice/infer", BODY)[0] == 200
        loud.stop()
    text = "\n".join(loud.lines)
    figures = rf"waited \d+\.\d ms, worked \d+\.\d ms, {len(BODY)} bytes"
    assert re.search(rf"Z twice infer ok 200 {figures} 127\.0\.0\.1 seen$", text, re.MULTILINE)
    assert re.search(r"Z twice: loaded, version 1$", text, re.MULTILINE)
    (steers,) = (one for one in loud.lines if "steers" in one)
    assert steers.endswith(r"- http wrong 404 127.0.0.1 steers GET /no\x0athing\x1b[2J\u202e")


@pytest.mark.parametrize(
    ("words", "lines"),
    [([], 2), (["--no-access-log"], 1), (["--until-stdin-closes"], 1)],
    ids=["usual", "no-access-log", "over-a-cable"],
)
def test_silence_is_of_requests_alone(
    words: list[str], lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    log = _log(build_parser(["serve"]).parse_args(["serve", "a.onnx", *words]))
    log.say("a", "loaded, version 1")
    log.request(Event("a", "predict"))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert said[0].endswith("Z a: loaded, version 1")


def test_faults_say_what_happened_and_wrong_requests_do_not() -> None:
    died = Event("a", "predict", 502, 0.001, 0.0025, 10, "The process that ran a ended.")
    assert as_text(line_of(died, TIME)) == (
        f"{TIME} a predict failed 502 waited 1.0 ms, worked 2.5 ms, 10 bytes"
        " The process that ran a ended."
    )
    wrong = Event("a", "predict", 400, 0, 0, 10, "The word 'secret' cannot be said.")
    assert "secret" not in as_text(line_of(wrong, TIME))
    lines: list[str] = []
    Log("json", lines.append).say("a", 'quotes "and"\nlines')
    assert json.loads(lines[0])["message"] == 'quotes "and"\nlines'
    assert "\n" not in lines[0]
