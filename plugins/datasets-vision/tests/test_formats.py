"""idx and CIFAR records, written byte by byte and read back value by value; and with every kind of damage."""

import os
import pickle
import struct

import numpy as np
import pytest
import tiny
import writers
from hypothesis import given
from hypothesis import strategies as st

from spikecore.errors import DatasetError
from spikecore_datasets_vision.cifar import RecordImages, read_records
from spikecore_datasets_vision.decoding import decode
from spikecore_datasets_vision.idx import IdxImages, read_idx

VALUES = {"B": [0, 7, 255], "b": [-128, 0, 127], "h": [-32768, 1, 32767], "i": [-(2**31), 2, 2**31 - 1]}


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("code", [*VALUES, "f", "d"])
def test_every_type_of_idx(tmp_path, code):
    values = VALUES.get(code, [-1.5, 0.25, 3e10])
    array = read_idx(written(tmp_path / "a", writers.idx(values * 4, (2, 3, 2), code)))
    assert array.shape == (2, 3, 2)
    assert array.flatten().tolist() == [struct.unpack(code, struct.pack(code, value))[0] for value in values * 4]


def test_idx_has_the_last_axis_fastest_and_cannot_be_written_to(tmp_path):
    array = read_idx(written(tmp_path / "a", writers.idx(range(24), (2, 3, 4))))
    assert array[1, 2, 3] == 23
    assert array[0, 1].tolist() == [4, 5, 6, 7]
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0, 0] = 1


GOOD = writers.idx(range(12), (3, 2, 2))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\0\0", "is no idx file: it begins with 00 00"),
        (b"<!doctype html><html>sign in</html>", "is no idx file"),
        (b"\1" + GOOD[1:], "is no idx file"),
        (GOOD[:2] + b"\x0a" + GOOD[3:], "is no idx file"),
        (GOOD[:9], "ends within its header of rank 3"),
        (GOOD[:-1], r"is truncated: \(3, 2, 2\) of uint8 make 28 bytes, and it has 27"),
        (GOOD[:16], "is truncated"),
        (GOOD + b"\0", "has bytes behind its end"),
        (bytes([0, 0, 8, 255]), "ends within its header of rank 255"),
        # 2^32 values of 2^32 values: their number wraps to zero in 64 bits, and the file would seem to be whole
        (bytes([0, 0, 8, 2]) + struct.pack(">II", 1 << 31, 1 << 31) + b"x", "is truncated"),
        (bytes([0, 0, 14, 3]) + struct.pack(">III", 1 << 31, 1 << 31, 4), "is truncated"),
    ],
)
def test_damaged_idx(tmp_path, content, says):
    with pytest.raises(DatasetError, match=says):
        read_idx(written(tmp_path / "a", content))


def test_missing_idx(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_idx(tmp_path / "a")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_idx(tmp_path)


@pytest.mark.parametrize("is_link", [False, True])
@pytest.mark.parametrize(
    "read",
    [read_idx, lambda path: read_records(path, 1), lambda path: decode(path, (8, 8), "grey", "crop")],
    ids=["idx", "records", "image"],
)
def test_a_pipe_is_not_waited_for(read, is_link, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: a plain open would wait for ever
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="not a regular file|is empty"):
        read(tmp_path / ("link" if is_link else "pipe"))


def test_idx_without_values(tmp_path):
    assert read_idx(written(tmp_path / "a", writers.idx([], (0, 28, 28)))).shape == (0, 28, 28)


def test_images_of_idx(tmp_path):
    images = IdxImages(written(tmp_path / "a", writers.idx(range(24), (4, 3, 2))))
    assert (len(images), images.size) == (4, (3, 2))
    pixels = images.take(np.array([2, 0, 2]))
    assert pixels[:, 0].reshape(3, -1).tolist() == [[*range(12, 18)], [*range(6)], [*range(12, 18)]]
    again = pickle.dumps(images)
    assert len(again) < 500, "the path, not the values"
    assert (pickle.loads(again).take(np.array([3])) == images.take(np.array([3]))).all()
    for content in (writers.idx(range(4), (4,)), writers.idx([1.0], (1, 1, 1), "f")):
        with pytest.raises(DatasetError, match=r"images are \[N, H, W\] of uint8"):
            IdxImages(written(tmp_path / "b", content))


@given(content=st.one_of(st.binary(max_size=64), st.binary(max_size=40).map(lambda end: b"\0\0\x08\1\0\0\0\5" + end)))
def test_any_bytes_as_idx(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp() / "any-idx", content)
    try:
        array = read_idx(path)
    except DatasetError:
        return
    assert 4 + 4 * content[3] + array.nbytes == len(content)


@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    code=st.sampled_from(list(VALUES)),
    cut=st.integers(-3, 3),
    data=st.data(),
)
def test_whole_idx_is_read_back_and_no_other_length_is(tmp_path_factory, sizes, code, cut, data):
    count = int(np.prod(sizes))
    values = data.draw(st.lists(st.sampled_from(VALUES[code]), min_size=count, max_size=count))
    content = writers.idx(values, sizes, code)
    content = content[:cut] if cut < 0 else content + b"\0" * cut
    path = written(tmp_path_factory.getbasetemp() / "cut-idx", content)
    if cut:
        with pytest.raises(DatasetError):
            read_idx(path)
    else:
        assert read_idx(path).flatten().tolist() == values


@pytest.mark.parametrize("num_labels", [1, 2])
def test_records_of_several_files(tmp_path, num_labels):
    parts = [tiny.records(seed, count, num_labels) for seed, count in ((0, 3), (1, 1), (2, 4))]
    paths = [written(tmp_path / str(i), writers.cifar(part)) for i, part in enumerate(parts)]
    images, whole = RecordImages(paths, num_labels), [record for part in parts for record in part]
    assert len(images) == 8
    order = [7, 0, 3, 4, 2, 3]
    pixels = images.take(np.array(order))
    for image, number in zip(pixels, order, strict=True):
        assert image.shape == (3, 32, 32)
        assert image.tobytes() == whole[number][1]
        assert image[1, 2, 5] == whole[number][1][1024 + 2 * 32 + 5]  # green, third row, sixth column
    for place in range(num_labels):
        assert images.labels(place).tolist() == [head[place] for head, _ in whole]
    twin = pickle.loads(pickle.dumps(images))
    assert (twin.take(np.arange(8)) == images.take(np.arange(8))).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\0" * 3072, "ends within a record: 3072 bytes, and a record has 3073"),
        (b"\0" * (2 * 3073 + 1), "ends within a record"),
        (b"<html>" * 100, "ends within a record"),
    ],
)
def test_damaged_records(tmp_path, content, says):
    with pytest.raises(DatasetError, match=says):
        read_records(written(tmp_path / "a", content), 1)


@given(size=st.integers(0, 7000), num_labels=st.sampled_from([1, 2]))
def test_records_of_any_length(tmp_path_factory, size, num_labels):
    path = written(tmp_path_factory.getbasetemp() / "any-records", bytes(size))
    if size and size % (3072 + num_labels) == 0:
        assert read_records(path, num_labels).shape == (size // (3072 + num_labels), 3072 + num_labels)
    else:
        with pytest.raises(DatasetError):
            read_records(path, num_labels)
