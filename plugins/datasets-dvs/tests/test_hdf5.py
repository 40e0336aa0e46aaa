"""Damaged HDF5 files: an error of ours or events, in a process of its own, since libhdf5 itself may crash or hang."""

import io
import os
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from published import heidelberg

from spikecore import create
from spikecore.errors import DatasetError
from spikecore_datasets_dvs.formats import hdf5
from spikecore_datasets_dvs.reading import Reading

h5py = pytest.importorskip("h5py")
FULL = bool(os.environ.get("SPIKE_FULL"))

READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import spikecore.hdf5
from spikecore import create
from spikecore.errors import SpikeError
from spikecore_datasets_dvs.formats import hdf5
spikecore.hdf5.LIMIT_S = 3.0
whole = 0
for path in map(Path, sys.argv[2:]):
    try:
        if sys.argv[1] == "folder":
            hdf5.read(path)
        else:
            dataset = create("dataset", "shd", root=str(path.parent), allow_partial=True, cache=False)
            for recording in dataset._within(path.parent, "train"):
                dataset.read(path.parent, recording)
        whole += 1
    except SpikeError:
        continue
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("done", peak, whole)
"""


def read_in_a_process(kind, paths):
    """How many of them were read; the others were errors of ours."""
    command = [sys.executable, "-c", READ, kind, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600 + 4 * len(paths))
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-500:]}"
    mark, kilobytes, num_whole = done.stdout.split()
    assert mark == "done"
    assert int(kilobytes) < 1_200_000
    return int(num_whole)


def saved(**options):
    t = np.arange(50)
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        group = file.create_group("events")
        for name, column in {"t": t, "x": t % 7, "y": t % 5, "p": t % 2}.items():
            kind = {"t": "i8", "p": "u1"}.get(name, "u2")
            group.create_dataset(name, data=column.astype(kind), **options)
        group.attrs["unit"] = "us"
    return out.getvalue()


def compound():
    out = io.BytesIO()
    with h5py.File(out, "w", libver="latest") as file:
        file["events"] = np.zeros(50, [("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "u1")])
        file["events"].attrs["unit"] = "us"
    return out.getvalue()


FOLDER = {
    "plain": saved,
    "packed": lambda: saved(compression="gzip", shuffle=True, chunks=(16,)),
    "with checksums": lambda: saved(fletcher32=True, chunks=(10,)),
    "compound": compound,
}


def shd():
    archive = heidelberg("shd", ("train", "test"))["shd_train.h5.zip"]
    return zipfile.ZipFile(io.BytesIO(archive)).read("shd_train.h5")


def damaged(whole, rng):
    """Cut, or a few bytes that are something else."""
    raw = bytearray(whole)
    if rng.random() < 0.15:
        return bytes(raw[: rng.randrange(len(raw))])
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        place = rng.randrange(len(raw))
        kind = rng.randrange(3)
        if kind == 0:
            raw[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 1:
            raw[place] ^= 1 << rng.randrange(8)
        else:
            raw[place : place + 4] = b"\xff" * len(raw[place : place + 4])
    return bytes(raw)


def test_damaged_arrays_of_events(tmp_path):
    paths = []
    for form, make in FOLDER.items():
        whole, rng = make(), random.Random(form)
        for number in range(3000 if FULL else 250):
            paths.append(tmp_path / f"{form} {number}.h5")
            paths[-1].write_bytes(damaged(whole, rng))
    num_whole = read_in_a_process("folder", paths)
    assert 0.1 < num_whole / len(paths) < 0.9  # most bytes of a small file do not matter


def test_chunks_too_short_for_their_checksum(tmp_path):
    """libhdf5 2.0.0 ends the process on this one; it is the one that reads ahead."""
    raw = bytearray(FOLDER["with checksums"]())
    with h5py.File(io.BytesIO(bytes(raw)), "r") as file:
        chunk = file["events/p"].id.get_chunk_info(4)
        size, entry = chunk.size.to_bytes(4, "little"), chunk.byte_offset.to_bytes(8, "little")
    place = raw.index(entry) - 24  # in a node of the tree: size, mask, two offsets, where
    assert raw[place : place + 4] == size
    raw[place] = 1
    path = tmp_path / "a.h5"
    path.write_bytes(raw)
    assert read_in_a_process("folder", [path]) == 0
    with pytest.raises(DatasetError, match="is damaged: libhdf5 ended with signal"):
        hdf5.read(path)


def placed(directory, content):
    directory.mkdir(parents=True)
    path = directory / "shd_train.h5"
    path.write_bytes(content)
    return path


def test_damaged_rows_of_spikes(tmp_path):
    whole, rng = shd(), random.Random(0)
    heap = whole.index(b"GCOL")
    contents = []
    for offset, value in ((105, 8), (857, 4), (856, 0), (24, 0xFF), (28, 0xFF)):  # sizes in the heap: hangs and crashes
        raw = bytearray(whole)
        raw[heap + offset] = value
        contents.append(bytes(raw))
    num_bad = len(contents)
    contents += [whole, *(damaged(whole, rng) for _ in range(1000 if FULL else 12))]
    paths = [placed(tmp_path / str(number), content) for number, content in enumerate(contents)]
    assert read_in_a_process("shd", paths[: num_bad + 1]) == 1
    assert read_in_a_process("shd", paths[num_bad:]) > len(contents) // 4


def opened(path):
    dataset = create("dataset", "shd", root=str(path.parent), allow_partial=True, cache=False)
    return dataset._within(path.parent, "train")


def test_a_note_that_comes_with_a_folder_does_not_stand_for_a_check(tmp_path):
    """Earlier versions left such a note beside a file that had passed."""
    raw = bytearray(shd())
    raw[raw.index(b"GCOL") + 24] = 0xFF
    path = placed(tmp_path / "a", bytes(raw))
    there = path.stat()
    path.with_name(".shd_train.h5.read").write_text(f"{there.st_size} {there.st_mtime_ns} spikes/times spikes/units")
    with pytest.raises(DatasetError, match="is damaged"):
        opened(path)


def test_labels_without_rows(tmp_path):
    path = placed(tmp_path / "a", shd())
    with h5py.File(path, "r+") as file:
        del file["labels"]
        file["labels"] = np.zeros(7, int)
    with pytest.raises(DatasetError, match="holds 7 labels, 5 speakers, 5 rows of times and 5 of units"):
        opened(path)


@pytest.mark.parametrize("way", ["storage", "virtual", "link", "group", "soft"])
def test_numbers_that_stand_in_another_file_are_not_read(way, tmp_path):
    path, other = tmp_path / "a.h5", tmp_path / "other.h5"
    (tmp_path / "raw").write_bytes(bytes(range(16)))
    with h5py.File(other, "w") as file:
        for name in "txyp":
            file[f"events/{name}"] = np.zeros(4, "u1")
    with h5py.File(path, "w") as file:
        group = file if way == "group" else file.create_group("events")
        for name in "" if way == "group" else "xyp":
            group[name] = np.zeros(4, "u1")
        if way == "storage":
            group.create_dataset("t", (4,), "i4", external=[(str(tmp_path / "raw"), 0, 16)])
        elif way == "virtual":
            layout = h5py.VirtualLayout((4,), "u1")
            layout[:] = h5py.VirtualSource(str(other), "events/t", (4,))
            group.create_virtual_dataset("t", layout)
        else:
            file["elsewhere" if way == "soft" else "events" if way == "group" else "events/t"] = h5py.ExternalLink(
                str(other), "/events" if way == "group" else "/events/t"
            )
        if way == "soft":
            group["t"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(DatasetError, match=r"a\.h5: .*(in another file|is a link to).*; a file that holds all of its"):
        hdf5.read(path)


def test_links_within_a_file_are_followed(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in "txyp":
            file[f"kept/{name}"] = np.arange(2, dtype="u1")
        file["events"] = h5py.SoftLink("/kept")
    assert hdf5.read(path, Reading(unit="us")).t.tolist() == [0, 1]
