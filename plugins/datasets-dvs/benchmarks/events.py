"""Events per second of integration and of readers, and a cached sample against a plain memory map.

    python plugins/datasets-dvs/benchmarks/events.py [--out docs/benchmarks/events.csv] [--millions 10]

CPU time of one thread, medians of calls that take turns; correctness is asserted first. Peers are measured in the same
run where they are installed. `counting alone` is what is left when addresses are free: one count in memory per event.
Memory is the peak that numpy takes for reading and integrating one file, in sizes of that file.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import itertools
import platform
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikecore_datasets_dvs.cache import build
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats import read_events
from spikecore_datasets_dvs.representations import Frames, VoxelGrid

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import peer
import writers

SENSOR, STEPS, REPEATS = (128, 128), 10, 9
Row = tuple[str, str, float, str]


def medians(calls: dict[str, Callable[[], object]], repeats: int = REPEATS, inner: int = 1) -> dict[str, float]:
    """CPU seconds of one call of each; they take turns, so that a machine that slows down slows all of them.

    `inner` calls in a row are one sample, so that a sample lasts milliseconds and caches are warm.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(inner):
                call()
            times[name].append((time.process_time() - start) / inner)
    return {name: statistics.median(own) for name, own in times.items()}


def median_s(call: Callable[[], object]) -> float:
    """CPU seconds of one."""
    return medians({"": call})[""]


def recording(count: int, side: int = 128) -> Events:
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 2_000_000, count))
    x, y = rng.integers(0, side, count).astype(np.uint16), rng.integers(0, side, count).astype(np.uint16)
    return Events(t, x, y, rng.integers(0, 2, count).astype(np.uint8))


def bincount_pipeline(events: Events, by: str, side: int) -> np.ndarray:
    """What one would write: the address of every event, and one bincount."""
    if by == "time":
        step = np.minimum((events.t - events.t[0]) // ((events.t[-1] - events.t[0]) // STEPS), STEPS - 1)
    else:
        step = np.minimum(np.arange(len(events)) // (len(events) // STEPS), STEPS - 1)
    place = ((step * 2 + (events.p != 0)) * side + events.y) * side + events.x
    return np.bincount(place, minlength=STEPS * 2 * side * side).reshape(STEPS, 2, side, side)


def pipelines(events: Events, by: Any, side: int) -> dict[str, Callable[[], Any]]:
    """Ours first; the others as far as they are installed, each with the input it takes."""
    calls: dict[str, Callable[[], Any]] = {
        "spikecore": lambda: Frames(num_steps=STEPS, by=by)(events, (side, side)),
        "numpy bincount": lambda: bincount_pipeline(events, by, side),
    }
    try:
        theirs = peer.spikingjelly_utils().integrate_events_by_fixed_frames_number
        columns = {name: getattr(events, name).astype(np.int64) for name in "txyp"}
        calls["spikingjelly"] = lambda: theirs(columns, by, STEPS, side, side)
    except BaseException as error:  # pytest's skip is one
        print(f"spikingjelly is left out: {error}")
    try:
        from tonic.functional import to_frame_numpy
    except ImportError as error:
        print(f"tonic is left out: {error}")
        return calls
    array = np.zeros(len(events), [("t", int), ("x", int), ("y", int), ("p", int)])
    for name in "txyp":
        array[name] = getattr(events, name)
    bins = {"n_time_bins": STEPS} if by == "time" else {"n_event_bins": STEPS}
    calls["tonic"] = lambda: to_frame_numpy(array, (side, side, 2), **bins)
    return calls


def _places(events: Events, side: int) -> np.ndarray:
    place = ((events.p != 0) * np.int64(side) + events.y) * side + events.x
    return place.astype(np.uint16).view(np.int16)


def integration(largest: int) -> list[Row]:
    """Frames by time and by number, for sensors and recordings of several sizes, beside others."""
    rows = []
    for side, count, by in itertools.product((34, 128), (100_000, 1_000_000, largest), ("time", "number")):
        events = recording(count, side)
        size = f"{count} events, T = {STEPS}, {side} × {side}"
        calls = pipelines(events, by, side)
        wanted = bincount_pipeline(events, by, side)
        for name in ("spikecore", *(name for name in calls if name == "spikingjelly")):
            np.testing.assert_array_equal(calls[name](), wanted)
        places = torch.from_numpy(_places(events, side))
        calls["counting alone"] = lambda places=places, size=2 * side * side: [
            torch.bincount(part, minlength=size) for part in places.chunk(STEPS)
        ]
        found = medians(calls, REPEATS if count < 5_000_000 else 5, max(1, 2_000_000 // count))
        for name, seconds in found.items():
            rows.append((f"frames by {by}, {name}", "M events/s", count / seconds / 1e6, size))
        for name in list(found)[1:]:
            rows.append((f"frames by {by}, spikecore / {name}", "ratio", found[name] / found["spikecore"], size))
    events = recording(largest)
    grid = median_s(lambda: VoxelGrid(num_steps=STEPS)(events, SENSOR))
    return [*rows, ("voxel grid", "M events/s", largest / grid / 1e6, f"{largest} events, T = {STEPS}, 128 × 128")]


def readers(count: int, directory: Path) -> list[Row]:
    rows = []
    events = recording(count)
    for name, write in {"a.bin": writers.large_atis, "a.aedat3": writers.large_aedat3}.items():
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


def cached(directory: Path) -> list[Row]:
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

    found = medians({"ours": ours, "theirs": theirs}, 21)
    return [("cached sample / plain memory map", "ratio", found["theirs"] / found["ours"], f"{size} bytes a sample")]


def memory_of(path: Path) -> int:
    """Bytes that reading and integrating one file take at most."""
    tracemalloc.start()
    Frames(num_steps=STEPS)(read_events(path), SENSOR)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("spikecore-datasets-dvs", "numpy", "torch", "spikingjelly", "tonic"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="docs/benchmarks/events.csv")
    parser.add_argument("--millions", type=int, default=10)
    options = parser.parse_args()
    count = options.millions * 1_000_000
    with tempfile.TemporaryDirectory() as directory:
        rows = integration(count) + readers(count, Path(directory)) + cached(Path(directory))
    where = (_processor(), _versions())
    with Path(options.out).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["what", "unit", "value", "size", "machine", "versions"])
        for what, unit, value, size in rows:
            print(f"{what:40} {value:10.2f} {unit:12} {size}")
            table.writerow([what, unit, f"{value:.4g}", size, *where])


if __name__ == "__main__":
    main()
