"""A disk cache of integrated samples: compact, memory-mapped, whole or absent.

<key>/cache.json       what it is: shape of a step, number of samples and bytes of every shard; written last
<key>/00000.bin        samples one behind the other, each in the smallest dtype that holds its counts
<key>/00000.npy        for each sample: offset, number of steps, dtype

While it is built it has another name (`store.made`); shards that are whole stay when the build is interrupted, and the
next build goes on behind them. One process builds, others wait for its lock.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.datasets.store import made, write_aside
from spikecore.errors import DatasetError, SpikeError

INDEX = np.dtype([("offset", "<u8"), ("steps", "<u4"), ("dtype", "S4")])
SMALLEST_SHARD, LARGEST_SHARD = 16, 256
VERSION = 1
KINDS = "uif"


class FrameCache:
    """The samples of one split, ready to be indexed: `cache[i]` is `[T, *step_shape]`, read-only, mapped from the disk.

    Raises:
        DatasetError: a file is missing or has another size than it had when the cache was made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            about = json.loads((directory / "cache.json").read_text(encoding="utf-8"))
            self.step_shape = tuple(about["step_shape"])
            self.shard_size = int(about["shard_size"])
            sizes = about["shards"]
            self.indices = [np.load(directory / f"{i:05}.npy", allow_pickle=False) for i in range(len(sizes))]
            for i, size in enumerate(sizes):
                if (directory / f"{i:05}.bin").stat().st_size != size:
                    raise ValueError(f"{i:05}.bin has not the {size} bytes it was made with")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{directory}: the cache is damaged: {error}; delete this directory") from error
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return sum(map(len, self.indices))

    def __getitem__(self, index: int) -> np.ndarray:
        shard, place = divmod(index, self.shard_size)
        if shard not in self._maps:
            path = self.directory / f"{shard:05}.bin"
            has_bytes = path.stat().st_size > 0  # nothing cannot be mapped
            self._maps[shard] = np.memmap(path, np.uint8, mode="r") if has_bytes else np.empty(0, np.uint8)
        offset, steps, kind = self.indices[shard][place]
        return np.ndarray((int(steps), *self.step_shape), np.dtype(kind.decode()), self._maps[shard], int(offset))

    def num_steps(self, index: int) -> int:
        """T of a sample, without reading it."""
        shard, place = divmod(index, self.shard_size)
        return int(self.indices[shard]["steps"][place])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_maps": {}}  # a worker maps the files itself


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
    starts = range(0, count, shard_size)

    def fill(aside: Path) -> None:
        jobs = _Shards(aside, tuple(step_shape), shard_size, count, make)
        sizes = {}
        for shard, size, problem in _progress(_run(jobs, num_workers), label, len(jobs)):
            if problem is not None:
                raise problem
            sizes[shard] = size
        about = {
            "version": VERSION,
            "count": count,
            "step_shape": list(step_shape),
            "shard_size": shard_size,
            "shards": [sizes[shard] for shard in range(len(starts))],
        }
        write_aside(aside / "cache.json", lambda path: path.write_text(json.dumps(about), encoding="utf-8"))

    return FrameCache(made(directory, fill, resumable=True))


class _Shards:
    """Job `i` makes shard `i`, unless it is there: `(i, bytes, what went wrong)`."""

    def __init__(
        self, directory: Path, step_shape: tuple[int, ...], size: int, count: int, make: Callable[[int], np.ndarray]
    ) -> None:
        self.directory, self.step_shape, self.size, self.count, self.make = directory, step_shape, size, count, make

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __getitem__(self, shard: int) -> tuple[int, int, Exception | None]:
        if not 0 <= shard < len(self):
            raise IndexError(shard)
        index_path, data_path = (self.directory / f"{shard:05}.{suffix}" for suffix in ("npy", "bin"))
        if index_path.is_file():  # written after the data
            return shard, data_path.stat().st_size, None
        try:
            size = self._write(shard, index_path, data_path)
        except (SpikeError, OSError) as error:  # an error has to travel from a worker as it is
            return shard, 0, error
        return shard, size, None

    def _write(self, shard: int, index_path: Path, data_path: Path) -> int:
        numbers = range(shard * self.size, min((shard + 1) * self.size, self.count))
        index = np.zeros(len(numbers), INDEX)

        def write(path: Path) -> None:
            with path.open("wb") as file:
                for place, number in enumerate(numbers):
                    sample = np.ascontiguousarray(self.make(number))
                    if sample.shape[1:] != self.step_shape or sample.dtype.kind not in KINDS:
                        wanted = f"[T, {self.step_shape}] of numbers"
                        raise DatasetError(f"sample {number} is {sample.shape} of {sample.dtype}, not {wanted}")
                    file.write(b"\0" * (-file.tell() % sample.itemsize))
                    index[place] = (file.tell(), len(sample), sample.dtype.str.encode())
                    file.write(sample.data)

        write_aside(data_path, write)
        write_aside(index_path, lambda path: _save(path, index))
        return data_path.stat().st_size


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def _run(jobs: _Shards, num_workers: int) -> Iterable[tuple[int, int, Exception | None]]:
    if not num_workers:
        return (jobs[shard] for shard in range(len(jobs)))
    from torch.utils.data import DataLoader

    return DataLoader(jobs, batch_size=None, num_workers=min(num_workers, len(jobs)), collate_fn=None)  # type: ignore[arg-type]


def _progress(items: Iterable[Any], label: str, total: int) -> Iterable[Any]:
    """With a bar on a terminal."""
    if not sys.stderr.isatty() or total < 2:
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, label, total=total, console=Console(stderr=True))
