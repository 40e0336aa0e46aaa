"""Memory while a cache is built: in a fresh process, at most four times the largest recording."""

import os
import subprocess
import sys

import numpy as np
import pytest
import writers

from spikecore_datasets_dvs.events import make_events

COUNT = 8_000_000
BUILD = """
import sys
from spikecore import create

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

def build(part):
    options = {"root": f"{sys.argv[1]}/{part}", "sensor_size": [128, 128], "transforms": eval(sys.argv[2])}
    split = create("dataset", "event-folder", **options).split("train")
    return len(split), sum(float(split[i][0].sum()) for i in range(len(split)))

build("small")  # everything is imported, and every arena has its first memory
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = kilobytes("VmRSS:")
print(*build("large"), (kilobytes("VmHWM:") - before) * 1024)
"""


def save_npz(path, events):
    np.savez(path, **{name: getattr(events, name) for name in "txyp"}, unit="us")


def save_hdf5(path, events):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name in "txyp":
            file[name] = getattr(events, name)
        file.attrs["unit"] = "us"


def recording(count, seed, is_sorted):
    rng = np.random.default_rng(seed)
    t = rng.integers(0, 2_000_000, count)
    events = make_events(t, *(rng.integers(0, n, count) for n in (128, 128, 2)))
    if is_sorted:
        return events
    return events[np.argsort(events.t + rng.integers(0, 8_000, count))]  # as far as a .bin allows


CASES = {
    "bin": (writers.large_atis, True, ()),
    "bin, not in order": (writers.large_atis, False, ()),
    "aedat3": (writers.large_aedat3, True, ()),
    "aedat3, not in order": (writers.large_aedat3, False, ()),
    "aedat3, transformed": (writers.large_aedat3, True, ({"name": "downsample", "factor": 2}, "flip")),
    "aedat3, denoised": (writers.large_aedat3, True, ("denoise", "refractory")),
    "npz": (save_npz, True, ()),
    "h5": (save_hdf5, False, ()),
}
QUICK = ("bin, not in order",)
"""The case with the narrowest margin: events are sorted as well."""


@pytest.mark.parametrize("case", CASES)
def test_building_takes_at_most_four_times_the_largest_recording(case, tmp_path):
    if case not in QUICK and not os.environ.get("SPIKE_FULL"):
        pytest.skip("SPIKE_FULL=1 runs this")
    if not os.path.exists("/proc/self/clear_refs"):
        pytest.skip("the peak of memory is read from /proc, which is not here")
    save, is_sorted, transforms = CASES[case]
    suffix = case.split(",")[0]
    for part, count in (("small", 1_000), ("large", COUNT)):
        for seed, name in enumerate(("train/left", "train/right", "test/left", "test/right")):
            path = tmp_path / part / name / f"{seed}.{suffix}"
            path.parent.mkdir(parents=True)
            save(path, recording(count if name == "train/right" else 1_000, seed, is_sorted))
    largest = path.parents[2].joinpath("train", "right", f"1.{suffix}").stat().st_size
    assert largest >= 40_000_000
    env = {**os.environ, "SPIKECORE_DATA": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BUILD, str(tmp_path), repr(transforms)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    num_samples, num_events, peak = map(float, done.stdout.split())
    assert num_samples == 2
    assert num_events == COUNT + 1_000 or (case == "aedat3, denoised" and COUNT / 2 < num_events < COUNT)
    assert largest < peak <= 4 * largest, f"{peak / largest:.2f} times {largest} bytes"
