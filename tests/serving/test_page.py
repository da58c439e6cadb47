"""The page in a real browser, against a real server."""

from __future__ import annotations

import json
import re
import shutil
import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import onnx
import pytest

from rkzoo.serving.page import PAGE
from serving.server import Server, serving

TOKEN = "only-for-this-test"
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
VOICE = {
    "rkzoo": "0",
    "models": [
        {
            **{"name": "joe", "state": "ready", "reason": "", "version": "1", "kind": "text"},
            **{"task": "voice", "runtime": "onnx", "slots": 1, "written": [".wav"], "parts": []},
            **{"waiting": 0, "working": 0, "restarts": 0, "requests": 1, "failed": 0},
            "p50_ms": None,
        }
    ],
}
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


@pytest.fixture(scope="module")
def server(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """yolov8n, one of whose labels is HTML, behind a token."""
    folder = tmp_path_factory.mktemp("page")
    model = onnx.load(assets / "models/yolov8n.onnx")
    names = {n: f"thing {n}" for n in range(80)} | {0: HOSTILE, 5: "bus"}
    onnx.helper.set_model_props(model, {"names": repr(names)})
    onnx.save(model, folder / "streets.onnx")
    (folder / "token.txt").write_text(TOKEN)
    words = (str(folder / "streets.onnx"), "--workers", "1")
    with serving(*words, "--token-file", str(folder / "token.txt")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium; on Debian: apt install chromium-headless-shell")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty page; what its scripts fail with fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(30_000)
    yield page
    context.close()
    assert not errors


def sign_in(page: Any, server: Server, token: str = TOKEN) -> None:
    page.goto(server.url)
    page.fill("#token", token)
    page.click("#ask button")


def test_a_picture_is_tried_and_a_label_is_text(page: Any, server: Server, assets: Path) -> None:
    sign_in(page, server)
    page.wait_for_selector(".model .ready")
    assert "1 of 1 models ready" in page.inner_text("#about")
    page.set_input_files("#file", assets / "data/images/bus_640.jpg")
    page.wait_for_selector("#picture[alt*=drawn]")
    labels = page.locator("#results td:first-child").all_inner_texts()
    assert labels.count(HOSTILE) >= 3
    assert "bus" in labels
    assert page.title() == "rkzoo"
    assert page.locator("#results img").count() == 0
    answer = json.loads(page.text_content("#json"))
    assert len(answer["results"]) == len(labels) >= 4
    size = "e => e.decode().then(() => [e.naturalWidth, e.naturalHeight])"
    assert page.locator("#picture").evaluate(size) == [640, 640]
    assert re.fullmatch(
        r"\d results · .* ms? in the model, .* m?s in all", page.inner_text("#told")
    )
    assert "@bus_640.jpg" in page.inner_text("#command")
    assert "Bearer $TOKEN" in page.inner_text("#command")


def test_a_token_is_asked_for_again_and_forgotten_with_the_tab(page: Any, server: Server) -> None:
    sign_in(page, server, "not-this-one")
    page.wait_for_selector("#ask[open] >> text=does not take this token")
    assert page.locator(".model").count() == 0
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector(".model .ready")
    assert page.evaluate("[Object.values(sessionStorage), localStorage.length]") == [[TOKEN], 0]
    assert TOKEN not in page.content()


def test_what_went_wrong_is_a_sentence(page: Any, server: Server, tmp_path: Path) -> None:
    sign_in(page, server)
    page.wait_for_selector(".model .ready")
    (tmp_path / "no_picture.jpg").write_text("words")
    page.set_input_files("#file", tmp_path / "no_picture.jpg")
    page.wait_for_selector("#trouble:not(:empty)")
    assert page.inner_text("#trouble").startswith("no_picture.jpg is not a picture")
    assert page.inner_text("#told") == ""


def test_a_page_of_another_origin_is_refused(page: Any, server: Server) -> None:
    """Another port of this machine, so that no rule of the browser comes first."""
    asked = requests_of(server)
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{other.server_port}/")
        url = f"{server.url}/v1/models/streets:predict"
        post = "url => fetch(url, {method: 'POST', mode: 'no-cors', body: 'x'}).then(() => 0)"
        with page.expect_response(url) as response:
            page.evaluate(post, url)
        assert response.value.status == 403
        other.shutdown()
    assert requests_of(server) == asked


def test_a_voice_is_played(page: Any, server: Server) -> None:
    """The answers are this test's: voices take seconds to load."""
    sound = BytesIO()
    with wave.open(sound, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(8000))
    spoken = {"results": [{"text": HOSTILE, "start": 0, "end": 0.5}], "seconds": 0.25}
    given = []

    def predict(route: Any) -> None:
        given.append((route.request.url.partition("?")[2], route.request.post_data))
        as_wav = "format=.wav" in route.request.url
        route.fulfill(**({"body": sound.getvalue()} if as_wav else {"json": spoken}))

    page.route("**/v1/status", lambda route: route.fulfill(json=VOICE))
    page.route("**/v1/models/joe:predict?*", predict)
    page.goto(server.url)
    page.wait_for_selector("#text")
    page.fill("#text", "It's me")
    assert f"'It'\\''s me' -o answer.wav '{server.url}" in page.inner_text("#command")
    page.click("#send")
    page.wait_for_selector("#sound:not([hidden])")
    assert given == [("format=json", "It's me"), ("format=.wav", "It's me")]
    page.wait_for_timeout(50)  # its length is read behind the scenes
    assert page.locator("#sound").evaluate("e => e.duration") == 0.5
    assert page.inner_text("#results td:first-child") == HOSTILE


def test_it_fits_a_phone(browser: Any, server: Server) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True
    )
    page = context.new_page()
    sign_in(page, server)
    page.wait_for_selector(".model .ready")
    page.click("text=Inputs and outputs")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.is_visible("#camera")
    assert page.get_attribute("#shot", "capture") == "environment"
    context.close()


def test_status_says_what_is_loaded(server: Server) -> None:
    assert server.ask("/v1/status")[0] == 401
    status, _, body = server.ask("/v1/status", headers=BEARER)
    (row,) = json.loads(body)["models"]
    assert status == 200
    assert (row["name"], row["kind"], row["task"], row["state"]) == (
        "streets", "picture", "detect", "ready",
    )  # fmt: skip
    assert row["parts"][0]["inputs"] == [
        {"name": "images", "datatype": "UINT8", "shape": [1, 640, 640, 3]}
    ]


def test_the_page_runs_its_own_script_alone(server: Server) -> None:
    status, headers, body = server.ask("/")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert status == 200
    assert body == PAGE.read_bytes()
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert all(policy[name].startswith("'sha256-") for name in ("script-src", "style-src"))
    text = body.decode()
    assert "innerHTML" not in text
    assert not re.findall(r"(?:src|href)=\"(?!data:,)|https?://|@import|url\(", text)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(theme: int) -> None:
    text = PAGE.read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): #(\w+);", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    )
    colors = light | dark if theme else light
    papers = {"on-blue": ["blue"], "bad": ["card", "bad-soft"]}
    for ink in ("ink", "dim", "blue", "good", "busy", "bad", "on-blue"):
        for paper in papers.get(ink, ["page", "card", "soft"]):
            assert contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper)


def contrast(one: str, other: str) -> float:
    """By https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio."""
    light, dark = sorted(map(luminance, (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    digits = color if len(color) == 6 else "".join(2 * digit for digit in color)
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def requests_of(server: Server) -> int:
    status = server.ask("/v1/status", headers=BEARER)[2]
    return int(json.loads(status)["models"][0]["requests"])


class Blank(BaseHTTPRequestHandler):
    """An empty page of another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass
