"""A small pickle asks for much memory, or sets what is not its own: refused before anything is taken."""

import io
import struct
import tracemalloc

import numpy as np
import pytest

from spikecore.errors import DatasetError
from spikecore_datasets_dvs import pickled

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


def test_lists_and_arrays_are_read_as_before(tmp_path):
    rows = [[[1, 2, 3, 0], [2, 300, 4, 1]], [[70000, 5, 6, 1]]]
    np.save(tmp_path / "lists.npy", np.array([rows, None], dtype=object)[:1], allow_pickle=True)
    array = np.empty(1, object)
    array[0] = np.array(rows[0])
    np.save(tmp_path / "arrays.npy", array, allow_pickle=True)
    assert len(pickled.read(tmp_path / "lists.npy")) == 3
    assert len(pickled.read(tmp_path / "arrays.npy")) == 2
