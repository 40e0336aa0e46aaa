"""The cache: what comes out is what went in; interrupted, killed, full, damaged, two at once, in workers."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from samples import check, sample

from spikecore.errors import DatasetError
from spikecore_datasets_dvs import cache as module
from spikecore_datasets_dvs.cache import FrameCache, build


@pytest.mark.parametrize("count", [0, 1, 63, 200])
@pytest.mark.parametrize("workers", [0, 2])
def test_out_comes_what_went_in(tmp_path, count, workers):
    cache = build(tmp_path / "c", count, sample, (2, 3), num_workers=workers)
    check(cache, count)
    check(pickle.loads(pickle.dumps(cache)), count)
    check(build(tmp_path / "c", count, None, (2, 3)), count)  # there already


def test_it_is_mapped_not_read(tmp_path):
    cache = build(tmp_path / "c", 20, lambda i: np.zeros((4, 500, 500), np.uint8) + i, (500, 500))
    tracemalloc.start()
    views = [cache[i] for i in range(20)]
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert [int(view[3, 499, 499]) for view in views] == list(range(20))
    with pytest.raises(ValueError, match="read-only"):
        views[0][0, 0, 0] = 1


def test_an_interrupted_build_goes_on(tmp_path):
    made = []

    def fails(i):
        made.append(i)
        if i == 40:
            raise DatasetError("a.bin: is missing")
        return sample(i)

    with pytest.raises(DatasetError, match=r"a\.bin: is missing"):
        build(tmp_path / "c", 128, fails, (2, 3))
    assert not (tmp_path / "c").exists()
    assert made == list(range(41))
    again = []
    check(build(tmp_path / "c", 128, lambda i: again.append(i) or sample(i), (2, 3)), 128)
    assert again == list(range(32, 128))  # sixteen samples to a shard here


def test_an_error_in_a_worker_arrives_as_it_is(tmp_path):
    with pytest.raises(DatasetError, match=r"^no sample 7$"):
        build(tmp_path / "c", 64, broken, (2, 3), num_workers=2)


def broken(i):
    if i == 7:
        raise DatasetError("no sample 7")
    return sample(i)


KILLED = """
import sys, time, pathlib, os
sys.path.insert(0, os.environ["TESTS"])
from samples import sample
from spikecore_datasets_dvs.cache import build
def slow(i):
    if i == 100:
        print("in", flush=True)
        time.sleep(60)
    return sample(i)
build(pathlib.Path(sys.argv[1]), 128, slow, (2, 3))
"""


def test_kill_9_leaves_a_build_that_goes_on_and_nothing_that_looks_whole(tmp_path):
    env = {**os.environ, "TESTS": os.path.dirname(__file__)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "c")], stdout=subprocess.PIPE, env=env)
    assert process.stdout.readline() == b"in\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "c").exists()
    again = []
    check(build(tmp_path / "c", 128, lambda i: again.append(i) or sample(i), (2, 3)), 128)
    assert again == list(range(96, 128))


TWO = """
import sys, pathlib, os, time
sys.path.insert(0, os.environ["TESTS"])
from samples import sample, check
from spikecore_datasets_dvs.cache import build
def counted(i):
    with open(sys.argv[2], "a") as file:
        file.write(f"{i}\\n")
    return sample(i)
check(build(pathlib.Path(sys.argv[1]), 100, counted, (2, 3)), 100)
"""


def test_two_builders_at_once_make_it_once(tmp_path):
    env = {**os.environ, "TESTS": os.path.dirname(__file__)}
    command = [sys.executable, "-c", TWO, str(tmp_path / "c"), str(tmp_path / "log")]
    processes = [subprocess.Popen(command, env=env) for _ in range(2)]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(100))


def test_a_full_disk(tmp_path, monkeypatch):
    real = module.write_aside
    calls = []

    def full(path, write):
        calls.append(path)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, write)

    monkeypatch.setattr(module, "write_aside", full)
    with pytest.raises(DatasetError, match="free some space"):
        build(tmp_path / "c", 100, sample, (2, 3))
    monkeypatch.undo()
    assert len(calls) == 6
    assert not (tmp_path / "c").exists()
    check(build(tmp_path / "c", 100, sample, (2, 3)), 100)


@pytest.mark.parametrize("damage", ["shorter", "gone", "no index", "no mark", "nonsense"])
def test_a_damaged_cache_is_refused(tmp_path, damage):
    build(tmp_path / "c", 100, sample, (2, 3))
    data = tmp_path / "c" / "00003.bin"
    if damage == "shorter":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "gone":
        data.unlink()
    elif damage == "no index":
        (tmp_path / "c" / "00003.npy").unlink()
    elif damage == "no mark":
        (tmp_path / "c" / "cache.json").unlink()
    else:
        (tmp_path / "c" / "cache.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"the cache is damaged: .* delete this directory"):
        FrameCache(tmp_path / "c")


def damaged_index(directory, **columns):
    """An index that says something else, under the checksum that belongs to it."""
    path, mark = directory / "00003.npy", directory / "cache.json"
    index = np.load(path)
    for name, value in columns.items():
        index[name][5] = value
    np.save(path, index)
    about = json.loads(mark.read_text())
    about["shards"][3]["index_crc"] = zlib.crc32(path.read_bytes())
    mark.write_text(json.dumps(about))


@pytest.mark.parametrize(
    "columns",
    [{"dtype": b"|O8"}, {"dtype": b"\xff\xfe"}, {"dtype": b"<f3"}, {"dtype": b""}]
    + [{"offset": 1 << 63}, {"offset": 10_000}, {"steps": 1 << 31}, {"steps": 500}],
)
def test_an_index_that_leads_astray_is_refused(tmp_path, columns):
    build(tmp_path / "c", 100, sample, (2, 3))
    damaged_index(tmp_path / "c", **columns)
    with pytest.raises(DatasetError, match=r"the cache is damaged: 00003\.npy .* delete this directory"):
        FrameCache(tmp_path / "c")


@pytest.mark.parametrize("change", ["shorter", "bytes", "empty"])
def test_an_index_that_has_changed_is_refused(tmp_path, change):
    build(tmp_path / "c", 100, sample, (2, 3))
    path = tmp_path / "c" / "00003.npy"
    if change == "shorter":
        np.save(path, np.load(path)[:-1])
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\1" if change == "bytes" else b"")
    with pytest.raises(DatasetError, match=r"00003\.npy is not the one .* delete this directory"):
        FrameCache(tmp_path / "c")


@pytest.mark.parametrize(
    "changes",
    [{"shards": []}, {"shards": 3}, {"shard_size": 0}, {"shard_size": 17}, {"shard_size": 1e400}, {"step_shape": [-2]}]
    + [{"step_shape": ["a"]}, {"count": 99}, {"version": 1}, {"version": None}],
)
def test_a_mark_that_says_something_else_is_refused(tmp_path, changes):
    build(tmp_path / "c", 100, sample, (2, 3))
    mark = tmp_path / "c" / "cache.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), **changes}))
    with pytest.raises(DatasetError, match=r"the cache is damaged: .* delete this directory"):
        FrameCache(tmp_path / "c")


def flipped(directory):
    path = directory / "00003.bin"
    raw = bytearray(path.read_bytes())
    raw[100] ^= 4
    path.write_bytes(raw)
    return path


def test_data_that_were_written_to_are_refused(tmp_path):
    cache = build(tmp_path / "c", 100, sample, (2, 3))
    flipped(tmp_path / "c")
    assert cache[47].tolist() == sample(47).tolist(), "of another shard"
    for opened in (cache, FrameCache(tmp_path / "c"), pickle.loads(pickle.dumps(cache))):
        with pytest.raises(DatasetError, match=r"00003\.bin holds another sample \d+ than .* delete this directory"):
            opened[50]


def test_verify_reads_everything(tmp_path):
    cache = build(tmp_path / "c", 100, sample, (2, 3))
    cache.verify()
    before = (tmp_path / "c" / "00003.bin").stat()
    os.utime(flipped(tmp_path / "c"), ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DatasetError, match=r"00003\.bin holds another sample"):
        cache.verify()


def test_a_copied_cache_is_a_cache(tmp_path):
    build(tmp_path / "c", 100, sample, (2, 3))
    shutil.copytree(tmp_path / "c", tmp_path / "d", copy_function=shutil.copyfile)
    check(FrameCache(tmp_path / "d"), 100)


def test_data_that_shrink_while_they_are_read_are_refused(tmp_path):
    cache = build(tmp_path / "c", 100, sample, (2, 3))
    (tmp_path / "c" / "00003.bin").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"00003\.bin has 0 bytes, \d+ were expected; delete this directory"):
        cache[50]


def test_what_a_killed_build_left_goes(tmp_path):
    aside = tmp_path / ".c.partial"
    aside.mkdir()
    (aside / ".00001.bin.123.partial").write_bytes(b"half a shard")
    build(tmp_path / "c", 100, sample, (2, 3))
    assert sorted(path.name for path in (tmp_path / "c").iterdir() if path.name[0] == ".") == []


def test_a_sample_of_another_shape_is_not_kept(tmp_path):
    with pytest.raises(DatasetError, match=r"sample 0 is \(4, 2, 3\) of uint8, not \[T, \(3, 2\)\]"):
        build(tmp_path / "c", 3, lambda i: np.zeros((4, 2, 3), np.uint8), (3, 2))
    with pytest.raises(DatasetError, match="of numbers"):
        build(tmp_path / "d", 3, lambda i: np.zeros((4, 2, 3), object), (2, 3))


def test_workers_of_a_loader_read_it(tmp_path):
    cache = build(tmp_path / "c", 30, lambda i: np.full((2, 3), i, np.uint8), (3,))
    cache[0]  # mapped in the parent as well
    loader = torch.utils.data.DataLoader(_Tensors(cache), batch_size=10, num_workers=2)
    assert torch.cat(list(loader))[:, 0, 0].tolist() == list(range(30))


class _Tensors:
    def __init__(self, cache):
        self.cache = cache

    def __len__(self):
        return len(self.cache)

    def __getitem__(self, i):
        return torch.from_numpy(self.cache[i].copy())


def test_caches_used_longest_ago_are_evicted_and_open_ones_stay(tmp_path, monkeypatch):
    def make(name):
        return module.build(tmp_path / name, 3, lambda i: np.full((2, 5), i, np.uint8), (5,))

    def moment(name, second):
        os.utime(tmp_path / name / "cache.json", (second, second))

    is_open = make("train-0a")
    make("train-0b")
    make("test-0c")
    (tmp_path / "notes").mkdir()
    (tmp_path / "train-0e").symlink_to(tmp_path / "notes")
    one = sum(path.stat().st_size for path in (tmp_path / "train-0b").iterdir())
    for second, name in enumerate(("train-0a", "train-0b", "test-0c")):
        moment(name, second + 1)
    monkeypatch.setattr(module, "MOST_CACHED_BYTES", 3 * one + one // 2)
    make("test-0d")
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == [
        "notes",
        "test-0c",
        "test-0d",
        "train-0a",
        "train-0e",
    ]
    assert is_open[2].tolist() == [[2] * 5] * 2
    del is_open
    monkeypatch.setattr(module, "MOST_CACHED_BYTES", one + one // 2)
    module.evict(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["notes", "test-0d", "train-0e"]
