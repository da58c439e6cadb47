"""Package indexes, and which of them is asked."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from bad_server import Page, Server
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.zoo.index import PYPI, Offer, find, index_url, is_wheel_of, normalised, parse
from rkzoo.zoo.schema import Wheel
from rkzoo.zoo.transfer import Unavailable

WHEEL = Wheel(package="some_models", version="1.0", member="some_models/a.onnx")
NAME = "some_models-1.0-py3-none-any.whl"
SHA = "ab" * 32
JSON = "application/vnd.pypi.simple.v1+json"


def as_json(*files: dict[str, object]) -> bytes:
    return json.dumps({"meta": {"api-version": "1.1"}, "files": list(files)}).encode()


def test_a_json_index_is_understood(http: Server) -> None:
    body = as_json(
        {"filename": "some_models-0.9-py3-none-any.whl", "url": "/old.whl", "hashes": {}},
        {"filename": "some_models-1.0.tar.gz", "url": "/sdist", "hashes": {}},
        {
            "filename": NAME,
            "url": "../../files/right.whl",
            "hashes": {"sha256": SHA},
            "requires-python": "<3",
        },
    )
    http.pages["/simple/some-models/"] = Page(body, kind=JSON)
    assert find(WHEEL, f"{http.url}/simple") == Offer(f"{http.url}/files/right.whl", NAME, SHA)
    assert JSON in http.asked[0][1]["accept"]


@pytest.mark.parametrize("hashed", [f"#sha256={SHA}", "", "#md5=00"])
def test_an_html_index_is_understood(http: Server, hashed: str) -> None:
    body = f"""<!DOCTYPE html><body><a href="x.whl">some_models-2.0-py3-none-any.whl</a>
    <a href="../../files/{NAME}{hashed}" data-requires-python="&lt;3">{NAME}</a></body>"""
    http.pages["/simple/some-models/"] = Page(body.encode(), kind="text/html")
    expected = SHA if "sha256" in hashed else None
    assert find(WHEEL, f"{http.url}/simple") == Offer(f"{http.url}/files/{NAME}", NAME, expected)


def test_a_base_in_html_counts(http: Server) -> None:
    body = f'<base href="https://files.example/deep/"><a href="{NAME}">x</a>'
    http.pages["/simple/some-models/"] = Page(body.encode(), kind="text/html")
    assert find(WHEEL, f"{http.url}/simple").url == f"https://files.example/deep/{NAME}"


def test_a_wheel_for_any_platform_is_preferred(http: Server) -> None:
    files = [
        {"filename": f"some_models-1.0-{tag}.whl", "url": f"/{tag}", "hashes": {}}
        for tag in ("cp39-cp39-linux_x86_64", "py3-none-any", "py3-none-macosx_11_0_arm64")
    ]
    http.pages["/simple/some-models/"] = Page(as_json(*files), kind=JSON)
    assert find(WHEEL, f"{http.url}/simple").url == f"{http.url}/py3-none-any"


def test_a_missing_version_is_said(http: Server) -> None:
    http.pages["/simple/some-models/"] = Page(as_json(), kind=JSON)
    with pytest.raises(Unavailable, match=r"no wheel some_models 1\.0"):
        find(WHEEL, f"{http.url}/simple")


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"files": [1]}', b'{"files": [{}]}', b"{", b"\xff"]
)
def test_another_json_is_said(http: Server, body: bytes) -> None:
    http.pages["/simple/some-models/"] = Page(body, kind=JSON)
    with pytest.raises(Unavailable, match="not a page of a package index"):
        find(WHEEL, f"{http.url}/simple")


@given(st.binary(max_size=300), st.sampled_from([JSON, "text/html"]))
def test_any_bytes_are_offers_or_one_error(body: bytes, kind: str) -> None:
    with contextlib.suppress(Unavailable):
        assert isinstance(parse(body, kind, "https://host/simple/x/"), list)


def test_the_login_goes_to_the_same_host_only() -> None:
    page = "https://me:secret@host/simple/x/"
    body = as_json(
        {"filename": "a.whl", "url": "/a.whl"},
        {"filename": "b.whl", "url": "https://other/b.whl"},
    )
    first, second = parse(body, JSON, "https://host/simple/x/", login_from=page)
    assert first.url == "https://me:secret@host/a.whl"
    assert second.url == "https://other/b.whl"


@pytest.mark.parametrize(
    ("filename", "fits"),
    [
        (NAME, True),
        ("Some.Models-1.0-1-py3-none-any.whl", True),
        ("some_models-1.0.1-py3-none-any.whl", False),
        ("some_models_more-1.0-py3-none-any.whl", False),
        ("some_models-1.0.tar.gz", False),
        ("some_models-1.0.whl", False),
    ],
)
def test_only_the_wheel_of_that_version_fits(filename: str, fits: bool) -> None:
    assert is_wheel_of(filename, WHEEL) is fits


def test_names_are_normalised() -> None:
    assert normalised("Rapid_OCR..onnx-Runtime") == "rapid-ocr-onnx-runtime"


def test_the_users_index_counts(tmp_path: Path) -> None:
    conf = tmp_path / "pip.conf"
    conf.write_text("[global]\nindex-url = https://conf/simple/\n")
    environ = {"PIP_CONFIG_FILE": str(conf), "HOME": str(tmp_path), "XDG_CONFIG_DIRS": "/nowhere"}
    assert index_url(environ) == "https://conf/simple"
    assert index_url(environ | {"UV_DEFAULT_INDEX": "https://uv/simple"}) == "https://uv/simple"
    environ |= {"UV_DEFAULT_INDEX": "https://uv", "PIP_INDEX_URL": "https://pip/simple/"}
    assert index_url(environ) == "https://pip/simple"
    assert index_url(environ | {"RKZOO_PYPI": "https://mine"}) == "https://mine"
    conf.write_text("no section\n")
    assert index_url({"PIP_CONFIG_FILE": str(conf), "HOME": str(tmp_path)}) == PYPI
    assert index_url({"PIP_CONFIG_FILE": "/dev/null"}) == PYPI
