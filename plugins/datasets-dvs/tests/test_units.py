"""The unit of times: the file states it, or the user; whole numbers are microseconds to nobody."""

import numpy as np
import pytest
from test_folder import columns

from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_dvs import make_events, read_events
from spikecore_datasets_dvs.columns import column_of, unit_called

EVENTS = make_events(*columns(1, 3))
COLUMNS = {name: getattr(EVENTS, name) for name in "txyp"}
IN_MS = {**COLUMNS, "t": EVENTS.t / 1000}


@pytest.mark.parametrize("kind", ["named", "structured", "matrix", "npy", "hdf5", "hdf5 compound", "hdf5 matrix"])
def test_whole_numbers_without_a_unit(kind, tmp_path):
    path = tmp_path / ("a.npy" if kind == "npy" else "a.h5" if kind.startswith("hdf5") else "a.npz")
    rows = np.stack([COLUMNS[name].astype(np.int64) for name in "txyp"], 1)
    options = {"columns": "txyp"} if "matrix" in kind else {}
    if kind == "npy":
        np.save(path, EVENTS.structured())
    elif path.suffix == ".npz":
        np.savez(path, **{"named": COLUMNS, "structured": {"a": EVENTS.structured()}, "matrix": {"a": rows}}[kind])
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            if kind == "hdf5":
                for name, column in COLUMNS.items():
                    file[f"camera/{name}"] = column
            else:
                file["camera"] = rows if "matrix" in kind else EVENTS.structured()
        options["stream"] = "camera"
    with pytest.raises(
        DatasetError, match=r"does not state the unit of times; they run from \d+ to 49\d+: 4\.9"
    ) as seen:
        read_events(path, **options)
    span = EVENTS.duration_us
    lengths = [
        f"{span * factor:.4g} s if they are in {unit}" for unit, factor in (("s", 1), ("ms", 1e-3), ("us", 1e-6))
    ]
    assert all(length in str(seen.value) for length in lengths)
    assert 'Say it, as in unit = "us" (s, ms, us, ns)' in str(seen.value)
    assert read_events(path, unit="us", **options) == EVENTS
    assert read_events(path, unit="ms", **options) == EVENTS.replace(t=EVENTS.t * 1000)


def test_a_text_without_a_unit_shows_its_range_too(tmp_path):
    lines = [f"{t},{x},{y},{p}" for t, x, y, p in zip(*COLUMNS.values(), strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["t,x,y,p", *lines]) + "\n\n")
    says = rf"run from {EVENTS.t[0]} to {EVENTS.t[-1]}: {EVENTS.duration_us:.4g} s if they are in s"
    with pytest.raises(DatasetError, match=says.replace("+", r"\+")):
        read_events(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "unit"),
    [("times", None), ("Times", None), ("timestamps", None), ("ts", None), ("t_", None), ("t s", "s"), ("t_s", "s")]
    + [("time(s)", "s"), ("time [s]", "s"), ("tus", "us"), ("timestamp_ns", "ns"), ("time (µs)", "us")],
)
def test_a_plural_is_no_second(name, unit, tmp_path):
    assert column_of(name) == ("t", unit)
    np.savez(tmp_path / "a.npz", **{name: EVENTS.t}, **{other: COLUMNS[other] for other in "xyp"})
    if unit is None:
        with pytest.raises(DatasetError, match="does not state the unit of times"):
            read_events(tmp_path / "a.npz")
    assert len(read_events(tmp_path / "a.npz", unit=unit or "us")) == len(EVENTS)


def test_nanoseconds_beyond_int64():
    largest = (1 << 63) - 501
    times = make_events(np.array([largest], np.uint64), [0], [0], [1], unit="ns").t
    assert times.tolist() == [(largest + 500) // 1000]
    with pytest.raises(DatasetError, match=f"times reach {2**64 - 1} ns, beyond {largest}: is the unit right"):
        make_events(np.array([5, 2**64 - 1], np.uint64), [0, 0], [0, 0], [1, 1], unit="ns")


@pytest.mark.parametrize("name", ["unit", "units"])
@pytest.mark.parametrize("holder", ["dataset", "group"])
@pytest.mark.parametrize("text", ["ms", "milliseconds", b"[ms]"])
def test_the_attribute_of_hdf5(name, holder, text, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for column, values in IN_MS.items():
            file[f"dvs/{column}"] = values
        file["dvs/t" if holder == "dataset" else "dvs"].attrs[name] = text
    assert read_events(path) == EVENTS
    with pytest.raises(DatasetError, match="states times in ms, and unit = 's' was given"):
        read_events(path, unit="s")
    with h5py.File(path, "r+") as file:
        file["dvs/t"].attrs[name] = "ticks"
    with pytest.raises(DatasetError, match=f"the attribute '{name}' of /dvs/t says 'ticks', which is none of"):
        read_events(path)
    assert read_events(path, unit="ms") == EVENTS


@pytest.mark.parametrize("kind", ["compound", "matrix"])
def test_the_attribute_of_one_dataset(kind, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        rows = np.stack([IN_MS[name] for name in "txyp"], 1)
        compound = EVENTS.structured().astype([("t", "f8"), ("x", "u2"), ("y", "u2"), ("p", "u1")])
        compound["t"] = IN_MS["t"]
        file["mine"] = rows if kind == "matrix" else compound
        file["mine"].attrs["units"] = "ms"
    assert read_events(path, stream="mine", **({"columns": "txyp"} if kind == "matrix" else {})) == EVENTS


def test_an_array_beside_the_others(tmp_path):
    for unit in ("ms", "Milliseconds"):
        np.savez(tmp_path / "a.npz", **IN_MS, unit=unit)
        assert read_events(tmp_path / "a.npz") == EVENTS
    np.savez(tmp_path / "a.npz", **IN_MS, unit="frames")
    with pytest.raises(DatasetError, match="its array 'unit' says 'frames', which is none of s, ms, us, ns"):
        read_events(tmp_path / "a.npz")
    assert read_events(tmp_path / "a.npz", unit="ms") == EVENTS
    rest = {name: COLUMNS[name] for name in "xyp"}
    np.savez(tmp_path / "a.npz", t_us=EVENTS.t, **rest, unit="ms")
    with pytest.raises(DatasetError, match="the name of its times says us, and the file says ms beside it"):
        read_events(tmp_path / "a.npz")


def test_the_name_that_the_user_gives_states_it_too(tmp_path):
    rest = {name: COLUMNS[name] for name in "xyp"}
    np.savez(tmp_path / "a.npz", t_ms=IN_MS["t"], ts=EVENTS.t, **rest)
    assert read_events(tmp_path / "a.npz", names="t=t_ms") == EVENTS


@pytest.mark.parametrize(
    ("text", "unit"),
    [("us", "us"), ("µs", "us"), ("Microseconds", "us"), ("s", "s"), ("[s]", "s"), ("sec", "s"), ("secs", "s")]
    + [(b"ns", "ns"), ("nanosecond", "ns"), ("msec", "ms"), ("m", None), ("", None), (3, None), ("counts", None)],
)
def test_spellings(text, unit):
    assert unit_called(text) == unit


def test_a_unit_that_leaves_no_time_between_events(tmp_path):
    rest = {name: COLUMNS[name] for name in "xyp"}
    np.savez(tmp_path / "a.npz", t=EVENTS.t / 1e6, **rest)
    with pytest.raises(DatasetError, match=r"as ns, all \d+ events are in one microsecond: is the unit right"):
        read_events(tmp_path / "a.npz", unit="ns")
    assert read_events(tmp_path / "a.npz", unit="s") == EVENTS
    np.savez(tmp_path / "a.npz", t=np.zeros(len(EVENTS)), **rest)  # as they are: nothing was lost
    assert not read_events(tmp_path / "a.npz", unit="ns").t.any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sensor_size": (16,)}, r"'sensor_size' must be \(H, W\)"),
        ({"sensor_size": 16}, r"'sensor_size' must be \(H, W\)"),
        ({"sensor_size": (0, 20)}, r"'sensor_size' must be \(H, W\)"),
        ({"sensor_size": (16.5, 20)}, r"'sensor_size' must be \(H, W\)"),
        ({"columns": 5}, "'columns' must be a string; got 5"),
        ({"names": {"t": "a"}}, "'names' must be a string"),
        ({"on_values": 1}, r"'on_values' must be numbers, as in \(1,\); got 1"),
        ({"on_values": "1"}, "'on_values' must be numbers"),
        ({"allow_empty": "no"}, "'allow_empty' must be True or False"),
        ({"unitt": "s"}, "no option 'unitt'; there are form, sensor_size, .*unit"),
    ],
)
def test_options_from_python(options, says, tmp_path):
    np.savez(tmp_path / "a.npz", **COLUMNS, unit="us")
    with pytest.raises(OptionError, match=says):
        read_events(tmp_path / "a.npz", **options)
