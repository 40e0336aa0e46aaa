"""The process in which HDF5 files of strangers are read first: `spikecore.hdf5` starts it and asks it.

It reads one question a line, `{"path": …, "limit_s": …}`, forks, and the fork reads the whole file under a limit of
memory. Its answer is one line: `""` for a sound file, else what is wrong with it. libhdf5 may crash, hang or ask for
any amount of memory on a damaged file; here that ends a fork and nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["main", "walk"]

MEMORY_BYTES, MEMORY_PER_BYTE = 256 << 20, 16
"""What a file may make libhdf5 take: the first, and so many times its own size."""
BLOCK_BYTES = 16 << 20
"""Of a dataset that is not kept in chunks, read at a time."""
MOST_TIMES_STORED = 1100
"""Zeros, packed, take 1032 times less room; a dataset that names more than this lacks its data."""
TEXT = 300
"""Letters of an answer."""


def main() -> None:
    """Answer questions until the asker is gone."""
    # A batch system sends it to all processes of a run, which goes on to its next safe point. The asker ends this one.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    importlib.import_module("h5py")  # once, before the forks

    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(_answer(Path(question["path"]), float(question["limit_s"]))), flush=True)


def _answer(path: Path, limit_s: float) -> str:
    """What a fork says about a file; what became of it where it says nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _examine(path, writing)
    os.close(writing)
    said, is_late = b"", False
    with os.fdopen(reading, "rb") as pipe:
        if select.select([pipe], [], [], limit_s)[0]:
            said = pipe.read()
        else:
            is_late = True
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if is_late:
        return f"libhdf5 was not done with it after {limit_s:.0f} s"
    if os.WIFSIGNALED(status):
        return f"libhdf5 ended with signal {os.WTERMSIG(status)}"
    if os.WEXITSTATUS(status):
        return said.decode(errors="replace") or "libhdf5 ended the process"
    return ""


def _examine(path: Path, writing: int) -> None:
    """In the fork: read it all, say what is wrong, and end."""
    status = 1
    try:
        _limit_memory(path.stat().st_size)
        walk(path)
        status = 0
    except MemoryError:
        os.write(writing, b"it makes libhdf5 take more memory than a file of its size needs")
    except Exception as error:
        os.write(writing, f"{type(error).__name__}: {error}".encode(errors="replace")[:TEXT])
    finally:
        os._exit(status)


def _limit_memory(size: int) -> None:
    import resource

    own = 512 << 20  # a guess, on other systems than Linux
    with suppress(OSError):
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = own + MEMORY_BYTES + MEMORY_PER_BYTE * size
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if most < 0 else min(limit, most), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def walk(path: Path) -> None:
    """Read every attribute and every stored value of a file, piece by piece.

    Links to other files are not followed, and datasets that keep their values there are left out: readers refuse them.

    Raises:
        Exception: anything that h5py raises, or `ValueError` where values name more than the file can hold.
    """
    h5py: Any = importlib.import_module("h5py")  # core itself does not need it
    with h5py.File(path, "r") as file:
        budget = MEMORY_BYTES + MEMORY_PER_BYTE * path.stat().st_size
        seen: set[int] = set()  # a group may hold itself
        groups = [file["/"]]
        while groups:
            group = groups.pop()
            _read_attributes(group)
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    continue
                member = group[name]
                address = h5py.h5o.get_info(member.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(member, h5py.Group):
                    groups.append(member)
                elif isinstance(member, h5py.Dataset):
                    _read_attributes(member)
                    _read_dataset(member, budget)


def _read_attributes(holder: Any) -> None:
    for name in holder.attrs:
        try:
            holder.attrs[name]
        except TypeError:  # of a type that numpy lacks; whoever asks for it is told
            continue


def _read_dataset(dataset: Any, budget: int) -> None:
    try:
        dtype = dataset.dtype
    except TypeError:
        return
    if dataset.external or dataset.is_virtual or dataset.shape is None or not _has_filters(dataset):
        return
    stored = dataset.id.get_storage_size()
    if not stored or dataset.nbytes > MOST_TIMES_STORED * stored:
        return  # readers refuse it, or count what it names
    total = 0
    for place in _pieces(dataset):
        values = dataset[place]
        if dtype.hasobject:
            total += _varying_bytes(values)
            if total > budget:  # many rows may name one piece of the heap
                raise ValueError(f"the rows of {dataset.name} name more than {total} bytes, the file is too small for")


def _has_filters(dataset: Any) -> bool:
    """Whether every filter that packed it is at hand; readers name one that is not."""
    h5z: Any = importlib.import_module("h5py.h5z")
    plist = dataset.id.get_create_plist()
    return all(h5z.filter_avail(plist.get_filter(index)[0]) for index in range(plist.get_nfilters()))


def _pieces(dataset: Any) -> Iterator[Any]:
    """Places that together hold all that is stored: the chunks, or blocks of rows."""
    shape = dataset.shape
    if not shape:
        yield ()
        return
    if dataset.chunks is None:
        rows = max(1, BLOCK_BYTES * shape[0] // max(dataset.nbytes, 1))
        rows = 1 if dataset.dtype.hasobject else rows
        for start in range(0, shape[0], rows):
            yield slice(start, start + rows)
        return
    offsets: list[tuple[int, ...]] = []
    if hasattr(dataset.id, "chunk_iter"):
        dataset.id.chunk_iter(lambda chunk: offsets.append(chunk.chunk_offset))
    else:  # built with an older libhdf5
        offsets += [dataset.id.get_chunk_info(index).chunk_offset for index in range(dataset.id.get_num_chunks())]
    for offset in offsets:
        if all(start < length for start, length in zip(offset, shape, strict=True)):
            spans = zip(offset, dataset.chunks, strict=True)
            yield tuple(slice(start, start + length) for start, length in spans)


def _varying_bytes(values: Any) -> int:
    """The memory of values of varying length: texts, rows, and compounds with such."""
    import numpy as np

    if isinstance(values, bytes | str):
        return len(values)
    if not isinstance(values, np.ndarray | np.void):
        return 0
    if values.dtype.names:
        return sum(_varying_bytes(values[name]) for name in values.dtype.names)
    if values.dtype.hasobject:
        return sum(_varying_bytes(value) for value in np.asarray(values).reshape(-1))
    return int(values.nbytes)
