"""Events per second of integration and of readers, and a cached sample against a plain memory map.

    python plugins/datasets-dvs/benchmarks/events.py [--out docs/benchmarks/events.csv] [--millions 10]

CPU time of one thread, median of seven; correctness is asserted first. Peers are measured in the same run where they
are installed. Memory is the peak that numpy takes for reading and integrating one file, in sizes of that file.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import platform
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spikecore_datasets_dvs.cache import build
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats import read_events
from spikecore_datasets_dvs.representations import Frames, VoxelGrid

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import peer

SENSOR, STEPS, REPEATS = (128, 128), 10, 7


def median_s(call: Callable[[], object]) -> float:
    """CPU seconds."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def recording(count: int) -> Events:
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 2_000_000, count))
    x, y = rng.integers(0, 128, count).astype(np.uint16), rng.integers(0, 128, count).astype(np.uint16)
    return Events(t, x, y, rng.integers(0, 2, count).astype(np.uint8))


def bincount_pipeline(events: Events) -> np.ndarray:
    """What one would write: the address of every event, and one bincount."""
    step = np.minimum((events.t - events.t[0]) // ((events.t[-1] - events.t[0]) // STEPS), STEPS - 1)
    place = ((step * 2 + (events.p != 0)) * 128 + events.y) * 128 + events.x
    return np.bincount(place, minlength=STEPS * 2 * 128 * 128).reshape(STEPS, 2, 128, 128)


def atis_file(path: Path, events: Events) -> None:
    raw = np.zeros((len(events), 5), np.uint8)
    t = events.t % (1 << 23)
    raw[:, 0], raw[:, 1] = events.x, events.y
    raw[:, 2], raw[:, 3], raw[:, 4] = events.p << 7 | (t >> 16).astype(np.uint8), t >> 8 & 255, t & 255
    path.write_bytes(raw.tobytes())


def aedat3_file(path: Path, events: Events, per_packet: int = 4096) -> None:
    data = np.stack([events.x.astype("<u4") << 17 | events.y.astype("<u4") << 2 | events.p.astype("<u4") << 1 | 1], 1)
    both = np.hstack([data, events.t.astype("<u4")[:, None]]).astype("<u4")
    with path.open("wb") as file:
        file.write(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n")
        for start in range(0, len(events), per_packet):
            part = both[start : start + per_packet]
            file.write(np.array([1, 1], "<i2").tobytes())
            file.write(np.array([8, 4, 0, len(part), len(part), len(part)], "<i4").tobytes())
            file.write(part.tobytes())


def integration(count: int) -> list[tuple[str, str, float, str]]:
    events = recording(count)
    ours = Frames(num_steps=STEPS)
    np.testing.assert_array_equal(ours(events, SENSOR).sum(0), bincount_pipeline(events).sum(0))
    rows = []
    for name, call in {
        "frames by time": lambda: ours(events, SENSOR),
        "frames by number": lambda: Frames(num_steps=STEPS, by="number")(events, SENSOR),
        "voxel grid": lambda: VoxelGrid(num_steps=STEPS)(events, SENSOR),
        "numpy bincount pipeline": lambda: bincount_pipeline(events),
    }.items():
        rows.append((name, "M events/s", count / median_s(call) / 1e6, f"{count} events, T = {STEPS}, 128 × 128"))
    few = recording(1_000_000)
    fewer = f"{len(few)} events, T = {STEPS}, 128 × 128"
    rows.append(
        ("frames by time, fewer events", "M events/s", len(few) / median_s(lambda: ours(few, SENSOR)) / 1e6, fewer)
    )
    try:
        theirs = peer.spikingjelly_utils().integrate_events_by_fixed_frames_number
        columns = {name: getattr(few, name).astype(np.int64) for name in "txyp"}
        np.testing.assert_array_equal(theirs(columns, "time", STEPS, *SENSOR), ours(few, SENSOR))
        call = lambda: theirs(columns, "time", STEPS, *SENSOR)  # noqa: E731
        version = importlib.metadata.version("spikingjelly")
        rows.append((f"spikingjelly {version}", "M events/s", len(few) / median_s(call) / 1e6, fewer))
    except BaseException as error:  # pytest's skip is one
        print(f"spikingjelly is left out: {error}")
    try:
        from tonic.functional import to_frame_numpy

        array = np.zeros(len(few), [("t", int), ("x", int), ("y", int), ("p", int)])
        for name in "txyp":
            array[name] = getattr(few, name)
        call = lambda: to_frame_numpy(array, (128, 128, 2), n_time_bins=STEPS)  # noqa: E731
        version = importlib.metadata.version("tonic")
        rows.append((f"tonic {version}", "M events/s", len(few) / median_s(call) / 1e6, fewer))
    except ImportError as error:
        print(f"tonic is left out: {error}")
    return rows


def readers(count: int, directory: Path) -> list[tuple[str, str, float, str]]:
    rows = []
    events = recording(count)
    for name, write in {"a.bin": atis_file, "a.aedat3": aedat3_file}.items():
        path = directory / name
        write(path, events)
        assert read_events(path) == events
        rows.append(
            (
                f"read {path.suffix}",
                "M events/s",
                count / median_s(lambda p=path: read_events(p)) / 1e6,
                f"{count} events",
            )
        )
        times = memory_of(path) / path.stat().st_size
        rows.append((f"memory of read {path.suffix}, integrate", "× file", times, f"{path.stat().st_size} bytes"))
    return rows


def cached(directory: Path) -> list[tuple[str, str, float, str]]:
    samples = [Frames(num_steps=16)(recording(200_000)[i * 100 :], SENSOR) for i in range(64)]
    cache = build(directory / "cache", 64, lambda i: samples[i], (2, 128, 128))
    size = samples[0].nbytes
    plain = [np.memmap(directory / "cache" / f"{i // 16:05}.bin", np.uint8, "r") for i in range(64)]

    def ours() -> None:
        for i in range(64):
            np.array(cache[i])

    def theirs() -> None:
        for i in range(64):
            offset = int(cache.indices[i // 16]["offset"][i % 16])
            np.array(plain[i][offset : offset + size])

    return [("cached sample / plain memory map", "ratio", median_s(theirs) / median_s(ours), f"{size} bytes a sample")]


def memory_of(path: Path) -> int:
    """Bytes that reading and integrating one file take at most."""
    tracemalloc.start()
    Frames(num_steps=STEPS)(read_events(path), SENSOR)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="docs/benchmarks/events.csv")
    parser.add_argument("--millions", type=int, default=10)
    options = parser.parse_args()
    count = options.millions * 1_000_000
    with tempfile.TemporaryDirectory() as directory:
        rows = integration(count) + readers(count, Path(directory)) + cached(Path(directory))
    where = (platform.processor() or platform.machine(), f"Python {platform.python_version()}, numpy {np.__version__}")
    with Path(options.out).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["what", "unit", "value", "size", "machine", "versions"])
        for what, unit, value, size in rows:
            print(f"{what:40} {value:10.2f} {unit:12} {size}")
            table.writerow([what, unit, f"{value:.4g}", size, *where])


if __name__ == "__main__":
    main()
