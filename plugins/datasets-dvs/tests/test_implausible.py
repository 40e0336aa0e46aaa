"""Data that cannot be what the user meant: refused, with what was seen."""

import numpy as np
import pytest

from spikecore import create
from spikecore.errors import DatasetError
from spikecore_datasets_dvs import read_events

RNG = np.random.default_rng(0)
ROWS = np.stack([np.arange(200) * 5, RNG.integers(0, 40, 200), RNG.integers(0, 30, 200), RNG.integers(0, 2, 200)], 1)


def write_npz(path, span=1000, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.linspace(0, span, 200).astype(np.int64)
    np.savez(
        path,
        **{
            "t": t,
            "x": ROWS[:, 1],
            "y": ROWS[:, 2],
            "p": ROWS[:, 3],
            "sensor_size": [30, 40],
            "unit": "us",
            "place": str(path),
        }
        | arrays,
    )


def test_coordinates_are_not_times(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    assert len(read_events(tmp_path / "a.npy", columns="txyp", unit="us")) == 200
    with pytest.raises(DatasetError, match="goes back .* times in 200 events"):
        read_events(tmp_path / "a.npy", columns="xtyp", unit="us")


def test_text_holds_what_its_heading_says(tmp_path):
    lines = [",".join(map(str, row)) for row in ROWS.tolist()]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["t_us,x,y,p", *lines]))
    assert read_events(path, columns="txyp") == read_events(path)
    with pytest.raises(DatasetError, match="names column 2 'x', and 'columns' says that it is y"):
        read_events(path, columns="tyxp")
    path.write_text("\n".join(["t_us,x,y,p", *lines[:5], lines[5] + ",7"]))
    with pytest.raises(DatasetError, match="4 columns but 5"):
        read_events(path)


def test_a_stated_size_and_named_polarities_hold(tmp_path):
    write_npz(tmp_path / "a.npz", sensor_size=[10, 10])
    with pytest.raises(DatasetError, match="states this size.*lie outside"):
        read_events(tmp_path / "a.npz")
    write_npz(tmp_path / "b.npz", p=ROWS[:, 3] + 1)
    with pytest.raises(DatasetError, match="none is ON"):
        read_events(tmp_path / "b.npz", on_values=(7,))


@pytest.mark.parametrize("slices", [[], [{"name": "by_time", "duration_us": 100}]])
def test_broken_recordings_are_skipped_whatever_is_asked(slices, tmp_path):
    for name in ("a", "b"):
        for i in range(5):
            write_npz(tmp_path / name / f"{i}.npz")
    for i in range(5):
        (tmp_path / "a" / f"x{i}.npz").write_bytes(b"PK junk" + bytes(i))
    dataset = create("dataset", "event-folder", root=str(tmp_path), cache=False, broken="skip", slices=slices)
    skipped = []
    for name in dataset.splits:
        if name == "val":
            continue
        with pytest.warns(UserWarning, match="cannot be read") if name == "train" else np.errstate():
            skipped += dataset.split(name).skipped
    assert skipped
    assert all("x" in item.path for item in skipped)


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        ({"name": "by_time", "duration_us": 500}, "class 'b'"),
        ({"name": "by_count_bins", "num_bins": 900}, "holds an ev"),
    ],
)
def test_no_class_is_lost_by_slicing(slices, says, tmp_path):
    for i in range(5):
        write_npz(tmp_path / "a" / f"{i}.npz")
        write_npz(tmp_path / "b" / f"{i}.npz", span=200)
    with pytest.raises(DatasetError, match=says):
        create("dataset", "event-folder", root=str(tmp_path), cache=False, slices=[slices]).split("train")
