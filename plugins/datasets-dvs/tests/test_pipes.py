"""A pipe in place of a file that came from somebody else: an error of ours at once; opened plainly it would wait for
ever.
"""

import os
import shutil

import numpy as np
import pytest

from spikecore.errors import DatasetError
from spikecore_datasets_dvs import audio, named, packed, pickled
from spikecore_datasets_dvs.cache import FrameCache, build
from spikecore_datasets_dvs.events import make_events
from spikecore_datasets_dvs.formats.mat import read_mat


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_mat(path, ("ts",)),
        pickled.read,
        audio.read_wav,
        lambda path: named.text(path, "list"),
        lambda path: named.table(path, 3),
    ],
    ids=["mat", "pickled", "wav", "text", "table"],
)
@pytest.mark.parametrize("place", ["pipe", "link to a pipe", "device"])
def test_a_pipe_is_read_by_nobody(read, place, tmp_path):
    path = tmp_path / "a"
    os.mkfifo(tmp_path / "pipe")
    path.symlink_to({"device": "/dev/zero"}.get(place, tmp_path / "pipe"))
    with pytest.raises(DatasetError, match="pipe or a device|not a regular file"):
        read(tmp_path / "pipe" if place == "pipe" else path)


@pytest.mark.parametrize("name", ["events.npy", "index.npy"])
@pytest.mark.parametrize("is_link", [False, True])
def test_generated_recordings(name, is_link, tmp_path):
    one = make_events(np.array([1, 5]), np.array([2, 3]), np.array([0, 1]), np.array([1, 0]))
    packed.write(tmp_path, [(one, 2), (one, 0)])
    assert packed.Packed(tmp_path).labels == [2, 0]
    moved = shutil.move(tmp_path / name, tmp_path / "elsewhere")
    if is_link:
        (tmp_path / name).symlink_to(moved)
    else:
        os.mkfifo(tmp_path / name)
    with pytest.raises(DatasetError, match="not a regular file|symbolic link"):
        packed.Packed(tmp_path)


@pytest.mark.parametrize("name", ["00000.bin", "00000.npy", "cache.json"])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_cache(name, is_link, tmp_path):
    build(tmp_path / "train-1", 3, lambda i: np.full((2, 4), i, np.uint8), (4,))
    assert FrameCache(tmp_path / "train-1")[2].tolist() == [[2] * 4] * 2
    path = tmp_path / "train-1" / name
    moved = shutil.move(path, tmp_path / "elsewhere")
    if is_link:
        path.symlink_to(moved)
    else:
        os.mkfifo(path)
    with pytest.raises(DatasetError, match="the cache is damaged: .*(not a regular file|symbolic link)"):
        FrameCache(tmp_path / "train-1")


def test_an_index_of_a_cache_that_is_too_long(tmp_path):
    build(tmp_path / "train-1", 3, lambda i: np.full((2, 4), i, np.uint8), (4,))
    with (tmp_path / "train-1" / "00000.npy").open("ab") as file:
        file.truncate(1 << 40)  # with a hole: read as a whole it would fill the memory
    with pytest.raises(DatasetError, match="the cache is damaged: .*larger than"):
        FrameCache(tmp_path / "train-1")
