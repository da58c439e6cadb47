"""The protocol between rkzoo and the worker."""

from __future__ import annotations

import io

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.toolkit.worker import receive, send, unpack_calibration

ARRAYS = hnp.arrays(
    st.sampled_from([np.uint8, np.int8, np.float32, np.float16, np.int64]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
)


def reader(stream: io.BytesIO):
    def read(count: int) -> bytes:
        found = stream.read(count)
        if len(found) < count:
            raise EOFError
        return found

    return read


@given(
    st.dictionaries(st.text().filter(lambda key: key != "arrays"), st.text() | st.integers()),
    st.lists(ARRAYS, max_size=3),
)
def test_what_is_sent_is_received(header, arrays):
    stream = io.BytesIO()
    send(stream.write, header, arrays)
    stream.seek(0)
    got, found = receive(reader(stream))
    assert got == header
    assert len(found) == len(arrays)
    for sent, back in zip(arrays, found, strict=True):
        assert back.dtype == sent.dtype
        assert back.shape == sent.shape
        assert back.tobytes() == sent.tobytes()
    assert stream.read() == b""


def test_a_view_that_is_not_contiguous_arrives_as_it_looks():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1)[:, ::-1]
    stream = io.BytesIO()
    send(stream.write, {}, [picture])
    stream.seek(0)
    assert np.array_equal(receive(reader(stream))[1][0], picture)


def test_a_cut_message_ends_in_eof():
    stream = io.BytesIO()
    send(stream.write, {"do": "infer"}, [np.zeros(10, np.float32)])
    for length in (0, 2, 4, 20, len(stream.getvalue()) - 1):
        with pytest.raises(EOFError):
            receive(reader(io.BytesIO(stream.getvalue()[:length])))


def test_calibration_becomes_nchw_files_with_safe_names(tmp_path, monkeypatch):
    source = tmp_path / "with space"
    source.mkdir()
    pictures = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    numbers = np.arange(2 * 6, dtype=np.float32).reshape(2, 6)
    np.save(source / "calibration-0.npy", pictures)
    np.save(source / "calibration-1.npy", numbers)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    name = unpack_calibration(
        source, [{"mean": [0.0] * 3, "shape": [1, 3, 4, 5]}, {"mean": [], "shape": [1, 6]}]
    )
    lines = (tmp_path / "work" / name).read_text().splitlines()
    assert [len(line.split(" ")) for line in lines] == [2, 2]
    first, second = lines[1].split(" ")
    assert np.array_equal(np.load(first), pictures[1].transpose(2, 0, 1)[None])
    assert np.load(first).dtype == np.uint8
    assert np.array_equal(np.load(second), numbers[1:2])
