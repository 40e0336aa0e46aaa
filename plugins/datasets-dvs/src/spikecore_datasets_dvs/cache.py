"""A disk cache of integrated samples: compact, memory-mapped, whole or absent.

<key>/cache.json       what it is: shape of a step, number of samples; of every shard its bytes, its time and the
                       checksum of its index; written last
<key>/00000.bin        samples one behind the other, each in the smallest dtype that holds its counts
<key>/00000.npy        for each sample: offset, number of steps, dtype, checksum

While it is built it has another name (see `make_directory`). Complete shards stay when the build is interrupted, and
the next build continues after them. One process builds, others wait for its lock.

More than `MOST_CACHED_BYTES` of caches of one dataset evict those used longest ago. One that is open in any process is
locked and stays.

An index is held against its checksum whenever the cache is opened. Samples are where their file has been written to
since it was made (or copied), when it is first used; and all of them by `verify`.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

if sys.platform != "win32":
    import fcntl

from spikecore.datasets import make_directory, write_aside
from spikecore.documents import parse_json
from spikecore.errors import DatasetError, SpikeError
from spikecore.files import discard, read_file, refuse_special, remove_directory
from spikecore.workers import begin_worker, starting_workers

INDEX = np.dtype([("offset", "<u8"), ("steps", "<u4"), ("dtype", "S4"), ("crc", "<u4")])
SMALLEST_SHARD, LARGEST_SHARD = 16, 256
VERSION = 2
MOST_BYTES = 1 << 26
"""Of cache.json."""
MOST_HEAD_BYTES = 1 << 12
"""Of an index, before its entries."""
MOST_CACHED_BYTES = 1 << 37
"""Of all caches of a dataset: 128 GiB."""
KIND = re.compile(rb"[|<>]([ui][1248]|f[248])")
"""Dtypes that are kept, as numpy writes them."""
KEYED = re.compile(r"[a-z]+-[0-9a-f]+")
"""Names of caches: the split, and a hash."""
Job = tuple[int, dict[str, int], Exception | None]


class FrameCache:
    """The samples of one split, ready to be indexed: `cache[i]` is `[T, *step_shape]`, read-only, mapped from the disk.

    Raises:
        DatasetError: a file is missing or is not the one that the cache was made with.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = _Use(directory)
        try:
            about = parse_json(read_file(directory / "cache.json", MOST_BYTES), most_bytes=MOST_BYTES)
            if about["version"] != VERSION:
                raise ValueError(f"it is of version {about['version']}, {VERSION} was expected")
            self.step_shape = tuple(about["step_shape"])
            self.shard_size, self.shards = about["shard_size"], about["shards"]
            sizes = _sizes(about["count"], self.shard_size)
            if len(self.shards) != len(sizes) or not all(type(n) is int and n >= 0 for n in self.step_shape):
                raise ValueError("cache.json contradicts itself")
            self.indices = [self._index(i, length) for i, length in enumerate(sizes)]
            for i in range(len(sizes)):
                self._size(i)
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise self._damaged(error) from error
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return sum(map(len, self.indices))

    def __getitem__(self, index: int) -> np.ndarray:
        shard, place = divmod(index, self.shard_size)
        if shard not in self._maps:
            self._maps[shard] = self._map(shard)
        return self._sample(self._maps[shard], self.indices[shard][place])

    def num_steps(self, index: int) -> int:
        """T of a sample, without reading it."""
        shard, place = divmod(index, self.shard_size)
        return int(self.indices[shard]["steps"][place])

    def verify(self) -> None:
        """Read every sample and hold it against its checksum.

        Raises:
            DatasetError: a sample is not the one that was written.
        """
        for shard in range(len(self.indices)):
            self._map(shard, is_sure=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_maps": {}, "_lock": None}  # a worker maps the files itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = _Use(self.directory)

    def _damaged(self, what: object) -> DatasetError:
        return DatasetError(f"{self.directory}: the cache is damaged: {what}; delete this directory")

    def _size(self, shard: int) -> int:
        path, wanted = self.directory / f"{shard:05}.bin", self.shards[shard]["bytes"]
        refuse_special(path)
        size = path.stat().st_size
        if size != wanted:
            raise ValueError(f"{shard:05}.bin has {size} bytes, {wanted} were expected")
        return size

    def _index(self, shard: int, length: int) -> np.ndarray:
        raw = read_file(self.directory / f"{shard:05}.npy", MOST_HEAD_BYTES + length * INDEX.itemsize)
        if zlib.crc32(raw) != self.shards[shard]["index_crc"]:
            raise ValueError(f"{shard:05}.npy is not the one that was written")
        index: np.ndarray = np.load(io.BytesIO(raw), allow_pickle=False)
        if index.dtype != INDEX or index.shape != (length,):
            raise ValueError(f"{shard:05}.npy is {index.dtype} {index.shape}; {length} entries were expected")
        size = self.shards[shard]["bytes"]
        for kind in np.unique(index["dtype"]).tolist():
            some = index[index["dtype"] == kind]
            if not KIND.fullmatch(kind):
                raise ValueError(f"{shard:05}.npy names the dtype {kind!r}; numbers were expected")
            step = math.prod(self.step_shape) * np.dtype(kind.decode()).itemsize
            is_inside = some["steps"] <= (size // step if step else 1 << 32)
            if not is_inside.all() or (some["offset"] > size - some["steps"].astype(np.int64) * step).any():
                raise ValueError(f"{shard:05}.npy leads out of {shard:05}.bin")
        return index

    def _map(self, shard: int, is_sure: bool = True) -> np.ndarray:
        """The bytes of a shard.

        Args:
            shard: its number.
            is_sure: take them as they are where nobody has written to the file since it was made.
        """
        path = self.directory / f"{shard:05}.bin"
        try:
            is_empty = self._size(shard) == 0  # nothing cannot be mapped
            content = np.empty(0, np.uint8) if is_empty else np.memmap(path, np.uint8, mode="r")
            is_old = path.stat().st_mtime_ns == self.shards[shard]["mtime_ns"]
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        if not (is_sure and is_old):
            for place, entry in enumerate(self.indices[shard]):
                if zlib.crc32(self._sample(content, entry)) != entry["crc"]:
                    number = shard * self.shard_size + place
                    raise self._damaged(f"{path.name} holds another sample {number} than was written")
        return content

    def _sample(self, content: np.ndarray, entry: Any) -> np.ndarray:
        offset, steps, kind, _ = entry
        return np.ndarray((int(steps), *self.step_shape), np.dtype(kind.decode()), content, int(offset))


def _sizes(count: int, shard_size: int) -> list[int]:
    """Samples per shard."""
    return [min(shard_size, count - start) for start in range(0, count, shard_size)]


def build(
    directory: Path,
    count: int,
    make: Callable[[int], np.ndarray],
    step_shape: Sequence[int],
    *,
    num_workers: int = 0,
    label: str = "integrating",
) -> FrameCache:
    """The cache in `directory`; made there unless it exists.

    Args:
        directory: its name has to hold everything that decides the content.
        count: number of samples.
        make: sample `i`, `[T, *step_shape]`; pickles where there are workers.
        step_shape: of one step.
        num_workers: processes beside this one; 0 builds in this process.
        label: of the progress bar.

    Raises:
        DatasetError: a recording cannot be read, or the cache cannot be written.
    """
    shard_size = min(max(SMALLEST_SHARD, -(-count // 64)), LARGEST_SHARD)

    def fill(aside: Path) -> None:
        for left in aside.glob(".*.partial"):  # of a build that was killed
            discard(left)
        jobs = _Shards(aside, tuple(step_shape), shard_size, count, make)
        stamps = {}
        for shard, stamp, problem in _progress(_run(jobs, num_workers), label, len(jobs)):
            if problem is not None:
                raise problem
            stamps[shard] = stamp
        about = {
            "version": VERSION,
            "count": count,
            "step_shape": list(step_shape),
            "shard_size": shard_size,
            "shards": [stamps[shard] for shard in range(len(jobs))],
        }
        write_aside(aside / "cache.json", lambda path: path.write_text(json.dumps(about), encoding="utf-8"))

    frames = FrameCache(make_directory(directory, fill, resumable=True))
    evict(directory.parent)
    return frames


class _Use:
    """A shared lock on a cache, held as long as this object lives and marked as the latest use."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = -1
        if sys.platform == "win32":
            return
        with suppress(OSError):  # what cannot be opened is told by the reader
            self._descriptor = os.open(directory / "cache.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.utime(directory / "cache.json")  # a read-only disk keeps its order

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def evict(folder: Path) -> None:
    """Delete the caches in a folder that were used longest ago, until the rest is within `MOST_CACHED_BYTES`.

    One that a process has open stays, and so does everything that is no cache.
    """
    if sys.platform == "win32":
        return  # without locks one that is in use could go
    caches = []
    for directory in folder.iterdir():
        with suppress(OSError):
            if not directory.is_symlink() and KEYED.fullmatch(directory.name):
                used = (directory / "cache.json").lstat().st_mtime_ns
                caches.append((used, sum(path.lstat().st_size for path in directory.iterdir()), directory))
    num_bytes = sum(size for _, size, _ in caches)
    for _, size, directory in sorted(caches):
        if num_bytes > MOST_CACHED_BYTES and _remove(directory):
            num_bytes -= size


def _remove(directory: Path) -> bool:
    """Delete a cache that nobody has open; whether it is gone."""
    with suppress(OSError):
        descriptor = os.open(directory / "cache.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_directory(directory)
            return True
        finally:
            os.close(descriptor)
    return False


class _Shards:
    """Job `i` makes shard `i`, unless it is there: `(i, what `cache.json` says of it, what went wrong)`."""

    def __init__(
        self, directory: Path, step_shape: tuple[int, ...], size: int, count: int, make: Callable[[int], np.ndarray]
    ) -> None:
        self.directory, self.step_shape, self.size, self.count, self.make = directory, step_shape, size, count, make

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __getitem__(self, shard: int) -> Job:
        if not 0 <= shard < len(self):
            raise IndexError(shard)
        index_path, data_path = (self.directory / f"{shard:05}.{suffix}" for suffix in ("npy", "bin"))
        try:
            if not index_path.is_file():  # written after the data
                self._write(shard, index_path, data_path)
            status = data_path.stat()
            index_crc = zlib.crc32(index_path.read_bytes())
        except (SpikeError, OSError) as error:  # an error has to travel from a worker as it is
            return shard, {}, error
        return shard, {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "index_crc": index_crc}, None

    def _write(self, shard: int, index_path: Path, data_path: Path) -> None:
        numbers = range(shard * self.size, min((shard + 1) * self.size, self.count))
        index = np.zeros(len(numbers), INDEX)

        def write(path: Path) -> None:
            with path.open("wb") as file:
                for place, number in enumerate(numbers):
                    sample = np.ascontiguousarray(self.make(number))
                    if sample.shape[1:] != self.step_shape or not KIND.fullmatch(sample.dtype.str.encode()):
                        wanted = f"[T, {self.step_shape}] of numbers"
                        raise DatasetError(f"sample {number} is {sample.shape} of {sample.dtype}, not {wanted}")
                    file.write(b"\0" * (-file.tell() % sample.itemsize))
                    index[place] = (file.tell(), len(sample), sample.dtype.str.encode(), zlib.crc32(sample))
                    file.write(sample.data)

        write_aside(data_path, write)
        write_aside(index_path, lambda path: _save(path, index))


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def _run(jobs: _Shards, num_workers: int) -> Iterable[Job]:
    if not num_workers:
        return (jobs[shard] for shard in range(len(jobs)))
    from torch.utils.data import DataLoader

    loader: DataLoader[Job] = DataLoader(  # type: ignore[arg-type]
        jobs,
        batch_size=None,
        num_workers=min(num_workers, len(jobs)),
        collate_fn=None,
        worker_init_fn=begin_worker,
    )
    with starting_workers():
        return iter(loader)


def _progress(items: Iterable[Any], label: str, total: int) -> Iterable[Any]:
    """With a bar on a terminal."""
    if not sys.stderr.isatty() or total < 2:
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, label, total=total, console=Console(stderr=True))
