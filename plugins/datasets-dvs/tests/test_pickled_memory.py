"""A small pickle asks for much memory, or sets what is not its own: refused before anything is taken."""

import io
import struct
import tracemalloc

import numpy as np
import pytest

from spikecore.errors import DatasetError
from spikecore_datasets_dvs import pickled
from spikecore_datasets_dvs.formats import arrays

SCALAR = b"\x80\x04cnumpy.core.multiarray\nscalar\n"


def written(path, body):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    path.write_bytes(stream.getvalue() + body)
    return path


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 28) + b".",  # BYTEARRAY8
        SCALAR + b"(N}\x8c\x01a\x8c\x01bstb.",  # BUILD with a table
        SCALAR + b"N}\x8c\x01a\x8c\x01bs\x86b.",
        SCALAR + b"]b.",
        b"\x80\x04}.",
        b"b.",
    ],
)
def test_a_foreign_operation_takes_nothing(body, tmp_path):
    before = dict(vars(pickled._scalar))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="is refused"):
            pickled.read(written(tmp_path / "a.npy", body))
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()
    assert vars(pickled._scalar) == before


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"


def within_itself(count):
    """A list that holds itself so many times."""
    return b"\x80\x04]\x94(" + b"h\x00" * count + b"e."


def array_of_shape(shape):
    """An array of objects, empty, whose shape is what this opcode text builds."""
    array = RECONSTRUCT + b"cnumpy\nndarray\n(K\x00tC\x01b\x87R"
    return b"\x80\x04" + array + b"(K\x01" + shape + DTYPE + b"(X\x01\x00\x00\x00OtR\x89]tb."


def doubled(depth):
    """The name of a dtype: lists that name each other twice, so that their text is 2 ** depth long."""
    lists = b"]\x94" + b"".join(b"(h" + bytes([i]) + b"h" + bytes([i]) + b"l\x94" for i in range(depth))
    return b"\x80\x04" + lists + DTYPE + b"h" + bytes([depth]) + b"\x85R."


@pytest.mark.parametrize(
    "body",
    [
        within_itself(6000),
        array_of_shape(b"(]K\x00aJ\x00\x00\x00\x04t"),  # ([0], 2 ** 26): a list times a number
        array_of_shape(b"(X\x01\x00\x00\x00aJ\x00\x00\x00\x04t"),
        array_of_shape(b"(C\x01aJ\x00\x00\x00\x04t"),
        doubled(20),
    ],
)
def test_what_names_itself_or_is_multiplied_takes_little(body, tmp_path):
    path = written(tmp_path / "a.npy", body)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError):
            pickled.read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_lists_that_fill_their_file_are_read(tmp_path):
    """Nothing is written twice, and there are nearly as many items as bytes: no false alarm."""
    rows = [[0, 1, 1, 0] for _ in range(1000)]
    np.save(tmp_path / "a.npy", np.array([rows, None], dtype=object)[:1], allow_pickle=True)
    assert len(pickled.read(tmp_path / "a.npy")) == 1000


def test_lists_and_arrays_are_read_as_before(tmp_path):
    rows = [[[1, 2, 3, 0], [2, 300, 4, 1]], [[70000, 5, 6, 1]]]
    np.save(tmp_path / "lists.npy", np.array([rows, None], dtype=object)[:1], allow_pickle=True)
    array = np.empty(1, object)
    array[0] = np.array(rows[0])
    np.save(tmp_path / "arrays.npy", array, allow_pickle=True)
    assert len(pickled.read(tmp_path / "lists.npy")) == 3
    assert len(pickled.read(tmp_path / "arrays.npy")) == 2


def test_arrays_that_unpack_to_much_together_are_refused(tmp_path, monkeypatch):
    """Each of them may be a thousand times its size, and a file may hold any number of them."""
    events = {"t": np.arange(9), "x": np.zeros(9, int), "y": np.zeros(9, int), "p": np.zeros(9, int), "unit": "us"}
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **events, **{f"more{i}": np.zeros(1 << 18, np.uint8) for i in range(8)})
    assert len(arrays.read(path)) == 9
    monkeypatch.setattr(arrays, "BASE_BYTES", 1 << 20)
    with pytest.raises(DatasetError, match="unpack to more than 1048576 bytes and 100 times the file"):
        arrays.read(path)
    np.savez(path, **events, more=np.zeros(1 << 21, np.uint8))
    assert len(arrays.read(path)) == 9
