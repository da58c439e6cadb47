"""Downloads over a network that breaks, lies and runs out of disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_server import Page, Server
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.errors import RkzooError
from rkzoo.zoo import transfer
from rkzoo.zoo.store import base_name
from rkzoo.zoo.transfer import DownloadRequest, Unavailable, download, read_page, without_login

DATA = os.urandom(300_000)
SHA = hashlib.sha256(DATA).hexdigest()


def wanted(server: Server, path: str = "/model.onnx", sha256: str | None = SHA) -> DownloadRequest:
    return DownloadRequest(server.url + path, sha256, len(DATA))


class Seen:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.done: list[float] = []
        self.notes: list[str] = []
        self.labels: list[tuple[str, float | None, bool]] = []

    def task(self, label: str, total: float | None = None, *, bytes: bool = False) -> Seen:
        self.labels.append((label, total, bytes))
        return self

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, done: float, total: float | None = None) -> None:
        self.done.append(done)

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_file_arrives_whole_and_tells_its_progress(http: Server, tmp_path: Path) -> None:
    http.pages["/model.onnx"] = Page(DATA)
    seen = Seen()
    assert download(wanted(http), tmp_path / "x.part", seen) == SHA
    assert (tmp_path / "x.part").read_bytes() == DATA
    assert seen.labels == [("download model.onnx", len(DATA), True)]
    assert seen.done[-1] == len(DATA)
    assert seen.done == sorted(seen.done)


def test_a_broken_connection_is_taken_up_where_it_broke(http: Server, tmp_path: Path) -> None:
    http.pages["/model.onnx"] = Page(DATA, breaks=[100_000, 250_000])
    assert download(wanted(http), tmp_path / "x.part") == SHA
    ranges = [headers.get("range") for _, headers in http.asked]
    assert ranges == [None, "bytes=100000-", "bytes=250000-"]


def test_an_earlier_run_is_gone_on_from(http: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(DATA[:200_000])
    http.pages["/model.onnx"] = Page(DATA)
    assert download(wanted(http), tmp_path / "x.part") == SHA
    assert http.asked[0][1]["range"] == "bytes=200000-"


def test_without_a_hash_nothing_is_gone_on_from(http: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"another file's beginning")
    http.pages["/model.onnx"] = Page(DATA)
    assert download(wanted(http, sha256=None), tmp_path / "x.part") == SHA
    assert "range" not in http.asked[0][1]


def test_a_beginning_of_another_file_is_thrown_away(http: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"\0" * 200_000)
    http.pages["/model.onnx"] = Page(DATA)
    assert download(wanted(http), tmp_path / "x.part") == SHA
    assert len(http.asked) == 2


@pytest.mark.parametrize("have", [len(DATA), len(DATA) + 5])
def test_a_part_of_full_length_needs_no_more_than_its_check(
    http: Server, tmp_path: Path, have: int
) -> None:
    http.pages["/model.onnx"] = Page(DATA)
    (tmp_path / "x.part").write_bytes((DATA + b"extra")[:have])
    assert download(wanted(http), tmp_path / "x.part") == SHA
    assert len(http.asked) == (0 if have == len(DATA) else 1)


def test_a_server_without_ranges_starts_anew(http: Server, tmp_path: Path) -> None:
    http.pages["/model.onnx"] = Page(DATA, ranges=False, breaks=[100_000])
    assert download(wanted(http), tmp_path / "x.part") == SHA
    assert (tmp_path / "x.part").read_bytes() == DATA


def test_nothing_after_the_part_starts_anew(http: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(DATA + b"more")
    http.pages["/model.onnx"] = Page(DATA)
    free_size = DownloadRequest(f"{http.url}/model.onnx", SHA)
    assert download(free_size, tmp_path / "x.part") == SHA


def test_it_gives_up_and_keeps_what_it_has(http: Server, tmp_path: Path) -> None:
    http.pages["/model.onnx"] = Page(DATA, breaks=[50_000] * 50)
    with pytest.raises(Unavailable, match="resumes where it stopped"):
        download(wanted(http), tmp_path / "x.part")
    assert (tmp_path / "x.part").read_bytes() == DATA[:50_000]
    assert len(http.asked) <= transfer.ATTEMPTS + 1


def test_wrong_content_goes_and_both_hashes_are_named(http: Server, tmp_path: Path) -> None:
    other = os.urandom(len(DATA))
    http.pages["/model.onnx"] = Page(other)
    with pytest.raises(Unavailable) as caught:
        download(wanted(http), tmp_path / "x.part")
    assert SHA in caught.value.why
    assert hashlib.sha256(other).hexdigest() in caught.value.why
    assert not (tmp_path / "x.part").exists()


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("content", [DATA[:1000], DATA + b"!"])
def test_wrong_size_is_seen(http: Server, tmp_path: Path, content: bytes, length: bool) -> None:
    http.pages["/model.onnx"] = Page(content, length=length)
    with pytest.raises(Unavailable, match="not the expected file"):
        download(wanted(http), tmp_path / "x.part")
    assert not (tmp_path / "x.part").exists()


@pytest.mark.parametrize(
    ("status", "asked"), [(404, 1), (403, 1), (401, 1), (503, transfer.ATTEMPTS)]
)
def test_what_the_server_refuses_is_said(
    http: Server, tmp_path: Path, status: int, asked: int
) -> None:
    http.pages["/model.onnx"] = Page(b"an error page", status=status)
    with pytest.raises(Unavailable, match=str(status)):
        download(wanted(http), tmp_path / "x.part")
    assert len(http.asked) == asked
    assert not (tmp_path / "x.part").exists()


def test_silence_is_not_waited_for(
    http: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT", 0.05)
    http.pages["/model.onnx"] = Page(DATA, silence=0.5)
    with pytest.raises(Unavailable, match=r"sent nothing for 0\.05 s"):
        download(wanted(http), tmp_path / "x.part")


def test_no_server_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no network"):
        download(DownloadRequest("http://127.0.0.1:9/x.onnx", SHA), tmp_path / "x.part")


def test_an_unknown_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"nowhere\.invalid is not known"):
        download(DownloadRequest("https://nowhere.invalid/x.onnx", SHA), tmp_path / "x.part")


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "data:,x", "https:///x"])
def test_other_schemes_are_not_served(url: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not a URL"):
        download(DownloadRequest(url, SHA), tmp_path / "x.part")


def test_a_trusted_certificate_serves(https: Server, tmp_path: Path) -> None:
    https.pages["/model.onnx"] = Page(DATA)
    assert download(wanted(https), tmp_path / "x.part") == SHA


def test_an_unknown_certificate_is_said(
    untrusted: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    untrusted.pages["/model.onnx"] = Page(DATA)
    with pytest.raises(Unavailable, match=r"certificate of 127\.0\.0\.1 is not trusted"):
        download(wanted(untrusted), tmp_path / "x.part")


def test_certificates_that_cannot_be_read_are_said(
    untrusted: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for path in (tmp_path / "empty.pem", tmp_path / "missing.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        with pytest.raises(RkzooError, match="certificates in"):
            download(wanted(untrusted), tmp_path / "x.part")


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/x", "file:///etc/passwd", "ftp://h/x"])
def test_no_redirect_leads_to_a_weaker_place(https: Server, tmp_path: Path, target: str) -> None:
    https.pages["/model.onnx"] = Page(redirect=target)
    with pytest.raises(Unavailable, match=r"insecure address|not allowed"):
        download(wanted(https), tmp_path / "x.part")


def test_a_redirect_within_https_is_followed(https: Server, tmp_path: Path) -> None:
    https.pages["/model.onnx"] = Page(redirect="/elsewhere")
    https.pages["/elsewhere"] = Page(DATA, breaks=[100_000])
    assert download(wanted(https), tmp_path / "x.part") == SHA


def test_a_login_is_sent_and_not_shown(http: Server, tmp_path: Path) -> None:
    url = http.url.replace("//", "//me:s%40cret@") + "/model.onnx"
    http.pages["/model.onnx"] = Page(b"", status=404)
    with pytest.raises(Unavailable) as caught:
        download(DownloadRequest(url, SHA), tmp_path / "x.part")
    assert http.asked[0][1]["authorization"] == "Basic bWU6c0BjcmV0"  # me:s@cret
    assert "cret" not in str(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("length", [True, False])
def test_a_full_disk_is_said_and_left_clean(http: Server, small_disk: Path, length: bool) -> None:
    # Without a length the lack of room shows only while writing.
    http.pages["/model.onnx"] = Page(DATA, length=length)
    size = len(DATA) if length else None
    with pytest.raises(RkzooError) as caught:
        download(DownloadRequest(f"{http.url}/model.onnx", SHA, size), small_disk / "x.part")
    assert "Free some space" in caught.value.fix
    assert not isinstance(caught.value, Unavailable)
    assert list(small_disk.iterdir()) == []


def test_a_page_is_read_and_a_long_one_refused(http: Server) -> None:
    http.pages["/simple/x/"] = Page(b"<a href=1>", kind="text/html")
    assert read_page(f"{http.url}/simple/x/", "text/html")[:2] == (b"<a href=1>", "text/html")
    with pytest.raises(Unavailable, match="longer"):
        read_page(f"{http.url}/simple/x/", "text/html", limit=4)


@given(st.text())
def test_a_name_is_always_a_plain_file_name(text: str) -> None:
    name = base_name(text)
    assert name
    assert not set(name) & set("/\\\0")
    assert not name.startswith(".")


def test_the_password_is_taken_out_of_an_address() -> None:
    assert without_login("https://a:b@host:8/x?y#z") == "https://host:8/x?y#z"
