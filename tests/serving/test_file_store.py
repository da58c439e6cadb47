"""Files that clients send, kept by their sha256."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from rkzoo import cache
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.protocol.board import Stored
from rkzoo.serving.file_store import FileStore, NoRoom, Piece, WrongContent, WrongPlace, parse_range

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()
TOTAL = len(DATA)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))


def send(store: FileStore, start: int, end: int, data: bytes = DATA, sha: str = SHA) -> Stored:
    return store.append(sha, Piece(start, end, len(data)), data[start:end])


def test_a_file_in_pieces_counts_when_all_of_it_is_there() -> None:
    store = FileStore()
    assert store.state(SHA) == Stored(SHA, 0, False)
    assert send(store, 0, 4000) == Stored(SHA, 4000, False)
    with pytest.raises(RkzooError, match="not on the board"), store.used(SHA):
        pass
    # Another client, another server, after a cut: it goes on where the file ends.
    assert FileStore().state(SHA) == Stored(SHA, 4000, False)
    assert send(FileStore(), 4000, TOTAL) == Stored(SHA, TOTAL, True)
    with store.used(SHA) as path:
        assert path.read_bytes() == DATA
    assert send(store, 0, 10) == Stored(SHA, TOTAL, True)  # it is there, and stays


def test_pieces_that_overlap_and_such_as_leave_a_gap() -> None:
    store = FileStore()
    send(store, 0, 4000)
    assert send(store, 1000, 5000).size == 5000
    assert send(store, 0, 3000).size == 5000
    with pytest.raises(WrongPlace, match="5000 bytes are there") as told:
        send(store, 6000, 7000)
    assert told.value.stored == Stored(SHA, 5000, False)
    assert send(store, 5000, TOTAL).complete


def test_another_content_is_dropped() -> None:
    store = FileStore()
    wrong = DATA[:-1] + b"x"
    with pytest.raises(WrongContent, match="another one"):
        send(store, 0, TOTAL, wrong)
    assert store.state(SHA) == Stored(SHA, 0, False)
    assert send(store, 0, TOTAL).complete


def test_what_is_damaged_later_is_dropped_when_it_is_used() -> None:
    store = FileStore()
    send(store, 0, TOTAL)
    place = cache_dir("received") / SHA
    place.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(WrongContent), store.used(SHA):
        pass
    assert not place.exists()


def test_two_clients_send_the_same_file_at_once() -> None:
    errors: list[BaseException] = []

    def client() -> None:
        store, step = FileStore(), 500
        try:
            while not (stored := store.state(SHA)).complete:
                try:
                    send(store, stored.size, min(stored.size + step, TOTAL))
                except WrongPlace:
                    continue
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with FileStore().used(SHA) as path:
        assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", SHA.upper(), SHA[:-1], SHA + "0", "x" * 64, SHA + "\n"]
)
def test_names_are_64_digits_and_nothing_else(name: str, tmp_path: Path) -> None:
    store = FileStore()
    with pytest.raises(RkzooError, match="no such file"):
        store.state(name)
    with pytest.raises(RkzooError, match="no such file"):
        send(store, 0, 10, sha=name)
    with pytest.raises(RkzooError, match="no such file"), store.used(name):
        pass
    assert [path for path in cache_dir("received").iterdir()] == []


def test_all_files_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(most=2500)
    files = [bytes([number]) * 1000 for number in range(4)]
    names = [hashlib.sha256(data).hexdigest() for data in files]
    for data, name in zip(files[:2], names, strict=False):
        assert send(store, 0, 1000, data, name).complete
    with store.used(names[0]):
        # The one in use stays, though the other was used later.
        assert send(store, 0, 1000, files[2], names[2]).complete
        assert [store.state(name).complete for name in names] == [True, False, True, False]
    with pytest.raises(NoRoom, match=r"RKZOO_CACHE_LIMIT there lets files take"):
        send(store, 0, 3000, bytes(3000), hashlib.sha256(bytes(3000)).hexdigest())
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(NoRoom) as told:
        send(store, 0, 1000, files[3], names[3])
    assert str(told.value).count(str(cache_dir("received"))) == 1
    assert "rkzoo cache prune" in told.value.fix
    assert not any(word in str(told.value) for word in (" -o ", "RKZOO_CACHE"))


def test_the_cache_counts_them_and_leaves_what_is_in_use(tmp_path: Path) -> None:
    store = FileStore()
    send(store, 0, TOTAL)
    received = cache.kinds_named(["received"])
    assert [entry.size for entry in cache.entries(received)] == [TOTAL]
    with store.used(SHA):
        assert cache.clear(received).removed == ()
    assert len(cache.clear(received).removed) == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 10),
        ("bytes 0-9/*", 10),
        ("bytes */100", 10),
        ("bytes 0-9/100", 9),
        ("bytes 9-0/100", 10),
        ("bytes 0-9/9", 10),
        ("bytes -1-9/100", 10),
        ("items 0-9/100", 10),
        ("bytes 0-9/100, bytes 10-19/100", 10),
        ("bytes 0-" + "9" * 400 + "/1", 10),
    ],
)
def test_content_ranges_that_are_none(text: str, size: int) -> None:
    with pytest.raises(RkzooError, match="cannot be placed"):
        parse_range(text, size)


def test_a_content_range() -> None:
    assert parse_range("bytes 100-109/200", 10) == Piece(100, 110, 200)
