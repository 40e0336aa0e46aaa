"""HDF5 as v2e, Metavision, MVSEC, DSEC and others write it."""

import numpy as np
import pytest
from test_folder import columns

from spikecore.errors import DatasetError, PluginUnavailable
from spikecore_datasets_dvs import make_events, read_events
from spikecore_datasets_dvs.formats import hdf5, stated
from spikecore_datasets_dvs.reading import Reading

h5py = pytest.importorskip("h5py")
EVENTS = make_events(*columns(1, 3))
OTHER = make_events(*columns(0, 7))


def matrix(events, order, kind, t_scale=1.0):
    parts = [getattr(events, name) * (t_scale if name == "t" else 1) for name in order]
    return np.stack(parts, 1).astype(kind)


def group_of(file, name, events, names="txyp"):
    group = file.create_group(name)
    for column, own in zip("txyp", names, strict=True):
        group[own] = getattr(events, column)
    return group


def compound(events, order="xypt"):
    kinds = {"x": "u2", "y": "u2", "p": "i2", "t": "i8"}
    out = np.zeros(len(events), [(name, kinds[name]) for name in order])
    for name in order:
        out[name] = getattr(events, name)
    return out


def v2e(file):
    file.create_dataset("events", data=matrix(EVENTS, "txyp", "u4"), chunks=True, compression="gzip")
    file["frame"] = np.zeros((2, 3, 4), np.uint8)


def metavision(file):
    file.create_group("CD")["events"] = compound(EVENTS)
    file.create_group("EXT_TRIGGER")["events"] = np.zeros(2, [("p", "i2"), ("t", "i8"), ("id", "i2")])
    file.attrs["geometry"] = "1280x720"
    file.attrs["format"] = "ECF"


def dsec(file):
    group_of(file, "events", EVENTS)
    file["ms_to_idx"] = np.arange(5)
    file["t_offset"] = np.int64(10**9)


def e2vid(file):
    group_of(file, "events", EVENTS, ("ts", "xs", "ys", "ps"))


def deep(file):
    group_of(file.create_group("a").create_group("b"), "camera", EVENTS)
    file["a/notes"] = np.arange(3)


@pytest.mark.parametrize(
    ("write", "variant", "size"),
    [
        (v2e, "/events as v2e writes it", None),
        (metavision, "/CD/events", (720, 1280)),
        (dsec, "/events", None),
        (e2vid, "/events", None),
        (deep, "/a/b/camera", None),
    ],
)
def test_layouts_of_known_writers(write, variant, size, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        write(file)
    if write in (e2vid, deep):
        with pytest.raises(DatasetError, match="does not state the unit of times; they run from"):
            read_events(path)
    assert read_events(path, unit="us") == EVENTS
    if write not in (e2vid, deep):
        assert read_events(path) == EVENTS
        with pytest.raises(DatasetError, match="states times in us, and unit = 's' was given"):
            read_events(path, unit="s")
    own = stated(path, Reading())
    assert variant in own.variant
    assert own.sensor_size == size


def mvsec(file):
    for name, events in (("left", EVENTS), ("right", OTHER)):
        file.create_group(f"davis/{name}")["events"] = matrix(events, "xytp", "f8", 1e-6)


def test_mvsec_has_two_cameras_and_seconds(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        mvsec(file)
    with pytest.raises(
        DatasetError, match="holds several recordings: /davis/left/events, /davis/right/events; name one"
    ):
        read_events(path)
    assert read_events(path, stream="davis/left/events") == EVENTS
    assert read_events(path, stream="/davis/right/events") == OTHER
    with pytest.raises(DatasetError, match="states times in s, and unit = 'ms' was given"):
        read_events(path, stream="davis/left/events", unit="ms")
    with pytest.raises(DatasetError, match="has no 'davis/middle/events'; /davis has left, right"):
        read_events(path, stream="davis/middle/events")
    with pytest.raises(DatasetError, match="has no 'davis/left/events/t'"):
        read_events(path, stream="davis/left/events/t")


def test_an_array_of_an_unknown_writer_needs_its_order(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["my/rows"] = matrix(EVENTS, "pxyt", "f8", 1e-3)
    with pytest.raises(DatasetError, match="lacks the dataset 't'; it has my"):
        read_events(path)
    with pytest.raises(DatasetError, match=r"my/rows: is an array \[400, 4\] without names"):
        read_events(path, stream="my/rows")
    assert read_events(path, stream="my/rows", columns="pxyt", unit="ms") == EVENTS


def test_own_names_and_units(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = group_of(file, "dvs", EVENTS, ("stamp", "col", "row", "sign"))
        del group["stamp"]
        group["stamp"] = EVENTS.t / 1e6
    names = "t=stamp, x=col, y=row, p=sign"
    assert read_events(path, stream="dvs", names=names, unit="s") == EVENTS
    assert read_events(path, names=names, unit="s") == EVENTS  # the only group with these
    with pytest.raises(DatasetError, match="they run from .*: 0.0498.* s if they are in s, "):
        read_events(path, names=names)


def test_times_of_v2e_that_turned_over(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["events"] = np.array([[4294967290, 1, 2, 0], [3, 1, 2, 1]], "u4")
    assert read_events(path).t.tolist() == [4294967290, 4294967299]


def test_a_filter_that_is_missing_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_group("CD").create_dataset("events", data=compound(EVENTS), chunks=(100,), compression="gzip")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: False)
    with pytest.raises(PluginUnavailable, match="/CD/events is packed with the filter 1 .deflate"):
        read_events(path)
    monkeypatch.setitem(hdf5.FILTERS, 1, hdf5.FILTERS[0x8ECF])
    with pytest.raises(PluginUnavailable, match="install Prophesee's hdf5_ecf codec"):
        read_events(path)


def test_the_ecf_filter_itself_is_named(tmp_path):
    """The number of Metavision's codec in a file of which no byte can be unpacked here."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        space, kind = h5py.h5s.create_simple((4,)), h5py.h5t.py_create(compound(EVENTS[:4]).dtype)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        plist.set_filter(0x8ECF, h5py.h5z.FLAG_OPTIONAL, ())
        made = h5py.h5d.create(file.create_group("CD").id, b"events", kind, space, plist)
        made.write_direct_chunk((0,), b"\0" * 20)
    with pytest.raises(PluginUnavailable, match="is packed with the filter 36559 .*hdf5_ecf codec"):
        read_events(path)


def test_a_link_into_another_file_is_not_followed_anywhere(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        group_of(file, "events", EVENTS)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_group("inner")["events"] = h5py.ExternalLink("b.h5", "/events")
    with pytest.raises(DatasetError, match="lacks the dataset 't'"):
        read_events(path)
    with pytest.raises(DatasetError, match="'events' is a link to 'b.h5'"):
        read_events(path, stream="inner/events")
