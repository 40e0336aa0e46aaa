"""Events per second of integration and of readers, and a cached sample against a plain memory map.

    python plugins/datasets-dvs/benchmarks/events.py [--out docs/benchmarks/events.csv] [--millions 10]

CPU time of one thread, medians of calls that take turns; correctness is asserted first. Peers are measured in the same
run where they are installed, with columns of the dtypes that their own readers give (N-MNIST's at 34 × 34, DVS128
Gesture's at 128 × 128). `from an .npz` includes reading the file that spikingjelly keeps, for both.
The floor is what numpy and torch cannot do without: `addresses alone` the multiplications and additions of the columns,
`counting alone` one count in memory per ready address, in the fastest of the ways that are tried, `output alone` zeros
to count into, their largest count, and the same as bytes.
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
from spikecore_datasets_dvs.representations import FixedDuration, Frames, VoxelGrid

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import peer
import writers

SENSOR, STEPS, DURATION_US, REPEATS = (128, 128), 10, 200_000, 9
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
    elif by == "duration":
        step = np.minimum((events.t - events.t[0]) // DURATION_US, STEPS - 1)
    else:
        step = np.minimum(np.arange(len(events)) // (len(events) // STEPS), STEPS - 1)
    place = ((step * 2 + (events.p != 0)) * side + events.y) * side + events.x
    return np.bincount(place, minlength=STEPS * 2 * side * side).reshape(STEPS, 2, side, side)


def pipelines(events: Events, by: Any, side: int, file: Path) -> dict[str, Callable[[], Any]]:
    """Ours first; the others as far as they are installed, each with the input it takes."""
    ours = FixedDuration(duration_us=DURATION_US) if by == "duration" else Frames(num_steps=STEPS, by=by)
    calls: dict[str, Callable[[], Any]] = {
        "spikecore": lambda: ours(events, (side, side)),
        "numpy bincount": lambda: bincount_pipeline(events, by, side),
    }
    try:
        utils = peer.spikingjelly_utils()
    except BaseException as error:  # pytest's skip is one
        print(f"spikingjelly is left out: {error}")
    else:
        kind = np.uint32 if side == 34 else np.int64
        columns = {name: getattr(events, name).astype(kind) for name in "txyp"}
        np.savez(file, **columns)
        theirs = {
            "duration": lambda columns: utils.integrate_events_by_fixed_duration(columns, DURATION_US, side, side)
        }.get(by, lambda columns: utils.integrate_events_by_fixed_frames_number(columns, by, STEPS, side, side))
        calls["spikingjelly"] = lambda: theirs(columns)
        calls["spikecore from an .npz"] = lambda: ours(read_events(file, unit="us"), (side, side))
        calls["spikingjelly from an .npz"] = lambda: theirs(np.load(file))
    try:
        from tonic.functional import to_frame_numpy
    except ImportError as error:
        print(f"tonic is left out: {error}")
        return calls
    array = np.zeros(len(events), [("t", int), ("x", int), ("y", int), ("p", int)])
    for name in "txyp":
        array[name] = getattr(events, name)
    bins = {"time": {"n_time_bins": STEPS}, "number": {"n_event_bins": STEPS}, "duration": {"time_window": DURATION_US}}
    calls["tonic"] = lambda: to_frame_numpy(array, (side, side, 2), **bins[by])
    return calls


def floor(events: Events, side: int) -> dict[str, Callable[[], Any]]:
    """What is left of counting by number when the rest is free; buffers are ready, in caches where they fit."""
    num_places, size = 2 * side * side, len(events) // STEPS
    place, sign = np.empty(len(events), np.uint16), events.p != 0

    def addresses() -> np.ndarray:
        np.copyto(place, sign)
        for factor, column in ((np.uint16(side), events.y), (np.uint16(side), events.x)):
            np.multiply(place, factor, out=place)
            np.add(place, column, out=place)
        return place

    narrow = torch.from_numpy(addresses().astype(np.int16))
    step = torch.arange(len(events)).div_(size, rounding_mode="floor").clamp_(max=STEPS - 1)
    wide = narrow.long() + step * num_places
    counts, ones = torch.zeros(STEPS * num_places, dtype=torch.int16), torch.ones(len(events), dtype=torch.int16)
    together = narrow.int() + (step * num_places).int()

    def output() -> np.ndarray:
        fresh = np.zeros(len(counts), np.int16)
        return fresh.astype(np.uint8) if fresh.max() < 256 else fresh

    ways = {
        "bincount, 16 bits": lambda: [torch.bincount(part, minlength=num_places) for part in narrow.chunk(STEPS)],
        "bincount, 32 bits": lambda: torch.bincount(together, minlength=STEPS * num_places),
        "scatter_add_": lambda: counts.scatter_add_(0, wide, ones),
        "index_add_": lambda: counts.index_add_(0, together, ones),
        "np.bincount": lambda: np.bincount(wide.numpy(), minlength=STEPS * num_places),
        "np.add.at": lambda: np.add.at(counts.numpy(), wide.numpy(), ones.numpy()),
    }
    parts = {"addresses alone": addresses, "output alone": output}
    return {**parts, **{f"counting alone, {name}": way for name, way in ways.items()}}


def integration(largest: int, directory: Path) -> list[Row]:
    """Frames by time, by number and by duration, for sensors and recordings of several sizes, beside others."""
    rows = []
    kinds = ("time", "number", "duration")
    for side, count, by in itertools.product((34, 128), (100_000, 300_000, 1_000_000, largest), kinds):
        events = recording(count, side)
        size = f"{count} events, T = {STEPS}, {side} × {side}"
        calls = pipelines(events, by, side, directory / "events.npz")
        wanted = bincount_pipeline(events, by, side)
        for name in calls:
            if name != "tonic":  # its segments are others
                np.testing.assert_array_equal(calls[name](), wanted)
        repeats, inner = REPEATS if count < 5_000_000 else 5, max(1, 2_000_000 // count)
        seconds_by_name = medians(calls, repeats, inner)
        for name, seconds in seconds_by_name.items():
            rows.append((f"frames by {by}, {name}", "M events/s", count / seconds / 1e6, size))
        for name in list(seconds_by_name)[1:]:
            if name != "spikecore from an .npz":
                own = seconds_by_name["spikecore from an .npz" if "npz" in name else "spikecore"]
                rows.append((f"frames by {by}, spikecore / {name}", "ratio", seconds_by_name[name] / own, size))
        if by == "number":
            rows += floor_rows(events, side, seconds_by_name, size, repeats, inner)
    events = recording(largest)
    grid = median_s(lambda: VoxelGrid(num_steps=STEPS)(events, SENSOR))
    return [*rows, ("voxel grid", "M events/s", largest / grid / 1e6, f"{largest} events, T = {STEPS}, 128 × 128")]


def floor_rows(
    events: Events, side: int, seconds_by_name: dict[str, float], size: str, repeats: int, inner: int
) -> list[Row]:
    """Nanoseconds an event of what cannot be left out, beside a fifth of the peer's time."""
    alone = medians(floor(events, side), repeats, inner)
    ns = {name: seconds / len(events) * 1e9 for name, seconds in alone.items()}
    rows = [(f"frames by number, {name}", "ns/event", value, size) for name, value in ns.items()]
    least = ns.pop("addresses alone") + ns.pop("output alone") + min(ns.values())
    rows.append(("frames by number, addresses, output and the fastest counting", "ns/event", least, size))
    rows.append(("frames by number, spikecore", "ns/event", seconds_by_name["spikecore"] / len(events) * 1e9, size))
    if "spikingjelly" in seconds_by_name:
        fifth = seconds_by_name["spikingjelly"] / 5 / len(events) * 1e9
        rows.append(("frames by number, a fifth of spikingjelly", "ns/event", fifth, size))
    return rows


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
        path.unlink()
    return [*rows, *array_readers(events, directory), *text_readers(events[: count // 5], directory)]


def array_readers(events: Events, directory: Path) -> list[Row]:
    """Arrays in the forms that others write."""
    count = len(events)
    columns = {name: getattr(events, name) for name in "txyp"}
    matrix = np.stack([columns[name].astype(np.float64) for name in "xytp"], 1)
    matrix[:, 2] /= 1e6
    whole = np.stack([columns[name].astype(np.int64) for name in "txyp"], 1)
    written: list[tuple[str, str, Callable[[Path], object], dict[str, str]]] = [
        ("structured .npy", "a.npy", lambda path: np.save(path, events.structured()), {"unit": "us"}),
        (".npz", "a.npz", lambda path: np.savez(path, **columns), {"unit": "us"}),
        (".npy int64 [N, 4]", "b.npy", lambda path: np.save(path, whole), {"columns": "txyp", "unit": "us"}),
        (".npy float64 [N, 4] in s", "c.npy", lambda path: np.save(path, matrix), {"columns": "xytp", "unit": "s"}),
    ]
    try:
        import h5py
    except ImportError as error:
        print(f"HDF5 is left out: {error}")
    else:

        def into(fill: Callable[[Any], object]) -> Callable[[Path], object]:
            def write(path: Path) -> None:
                with h5py.File(path, "w") as file:
                    fill(file)

            return write

        def datasets(file: Any) -> None:
            group = file.create_group("events")
            for name, column in columns.items():
                group[name] = column

        compound = np.zeros(count, [("x", "u2"), ("y", "u2"), ("p", "i2"), ("t", "i8")])
        for name, column in columns.items():
            compound[name] = column
        v2e = whole.astype(np.uint32)
        written += [
            ("HDF5, datasets t x y p", "a.h5", into(datasets), {"unit": "us"}),
            (
                "HDF5 as v2e has it, uint32 [N, 4]",
                "b.h5",
                into(lambda file: file.create_dataset("events", data=v2e)),
                {},
            ),
            (
                "HDF5 compound as Metavision has it, unpacked",
                "c.h5",
                into(lambda file: file.create_dataset("CD/events", data=compound)),
                {},
            ),
            (
                "HDF5 as MVSEC has it, float64 [N, 4]",
                "d.h5",
                into(lambda file: file.create_dataset("davis/left/events", data=matrix)),
                {},
            ),
        ]
    return _read_rows(written, events, directory)


def text_readers(events: Events, directory: Path) -> list[Row]:
    columns = [getattr(events, name).tolist() for name in "txyp"]

    def write(head: str, mark: str, show: Callable[[int], str]) -> Callable[[Path], object]:
        lines = (mark.join((show(t), str(x), str(y), str(p))) for t, x, y, p in zip(*columns, strict=True))
        return lambda path: path.write_text(head + "\n".join(lines) + "\n")

    written: list[tuple[str, str, Callable[[Path], object], dict[str, str]]] = [
        ("CSV, whole µs", "a.csv", write("t_us,x,y,p\n", ",", str), {}),
        ("text, seconds", "b.txt", write("t_s x y p\n", " ", lambda t: f"{t / 1e6:.6f}"), {}),
    ]
    return _read_rows(written, events, directory)


def _read_rows(
    written: list[tuple[str, str, Callable[[Path], object], dict[str, str]]], events: Events, directory: Path
) -> list[Row]:
    rows = []
    for title, name, write, options in written:
        path = directory / name
        write(path)
        assert read_events(path, **options) == events
        seconds = median_s(lambda path=path, options=options: read_events(path, **options))
        rows.append((f"read {title}", "M events/s", len(events) / seconds / 1e6, f"{len(events)} events"))
        path.unlink()
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

    seconds = medians({"ours": ours, "theirs": theirs}, 21)
    return [
        ("cached sample / plain memory map", "ratio", seconds["theirs"] / seconds["ours"], f"{size} bytes a sample")
    ]


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
    versions = [f"Python {platform.python_version()}"]
    for name in ("spikecore-datasets-dvs", "numpy", "torch", "spikingjelly", "tonic"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(versions)


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="docs/benchmarks/events.csv")
    parser.add_argument("--millions", type=int, default=10)
    parser.add_argument("--readers", action="store_true", help="measure readers only, and leave the other rows alone")
    options = parser.parse_args()
    count, out = options.millions * 1_000_000, Path(options.out)
    kept: list[list[str]] = []
    with tempfile.TemporaryDirectory() as directory:
        rows = readers(count, Path(directory))
        if options.readers and out.is_file():
            measured = {what for what, *_ in rows}
            kept = [row for row in list(csv.reader(out.open()))[1:] if row[0] not in measured]
        else:
            rows = integration(count, Path(directory)) + rows + cached(Path(directory))
    where = (_processor(), _versions())
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["what", "unit", "value", "size", "machine", "versions"])
        table.writerows(kept)
        for what, unit, value, size in rows:
            print(f"{what:40} {value:10.2f} {unit:12} {size}")
            table.writerow([what, unit, f"{value:.4g}", size, *where])


if __name__ == "__main__":
    main()
