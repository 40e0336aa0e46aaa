"""Events back into files, read again here and by others."""

import numpy as np
import pytest
from test_folder import columns

from spikecore import create
from spikecore.errors import DatasetError, OptionError, PluginUnavailable
from spikecore_datasets_dvs import make_events, read_events, write_events
from spikecore_datasets_dvs.events import empty
from spikecore_datasets_dvs.formats import stated

EVENTS = make_events(*columns(1, 3))


@pytest.mark.parametrize("is_packed", [True, False])
def test_npz(is_packed, tmp_path):
    path = tmp_path / "a.npz"
    write_events(path, EVENTS, (16, 20), is_packed=is_packed)
    assert read_events(path) == EVENTS
    assert stated(path).sensor_size == (16, 20)
    with pytest.raises(DatasetError, match="states times in us, and unit = 's' was given"):
        read_events(path, unit="s")
    with np.load(path) as arrays:
        assert {name: arrays[name].tolist() for name in "txyp"} == {n: getattr(EVENTS, n).tolist() for n in "txyp"}
    write_events(path, EVENTS[:0], (16, 20))
    assert read_events(path, allow_empty=True) == empty()
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_aedat4(tmp_path):
    aedat, dv = pytest.importorskip("aedat"), pytest.importorskip("dv_processing")
    path = tmp_path / "a.aedat4"
    write_events(path, EVENTS, (16, 20))
    assert read_events(path) == EVENTS
    assert stated(path).sensor_size == (16, 20)
    packets = [packet["events"] for packet in aedat.Decoder(str(path))]
    assert np.concatenate([packet["t"] for packet in packets]).tolist() == EVENTS.t.tolist()
    recording = dv.io.MonoCameraRecording(str(path))
    assert recording.getEventResolution() == (20, 16)
    assert [file.name for file in tmp_path.iterdir()] == ["a.aedat4"]


def test_what_was_written_is_a_dataset_without_options(tmp_path, data):
    for label, name in enumerate("ab"):
        (tmp_path / "r" / name).mkdir(parents=True)
        for i in range(2):
            write_events(tmp_path / "r" / name / f"{i}.npz", make_events(*columns(label, i)), (16, 20))
    dataset = create("dataset", "event-folder", root=str(tmp_path / "r"))
    assert dataset.sensor_size == (16, 20)
    assert dataset.split("train")[0][0].sum() == 400


def test_what_is_not_written(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="lie outside the sensor"):
        write_events(tmp_path / "a.npz", EVENTS, (16, 8))
    with pytest.raises(OptionError, match="written as .npz or .aedat4"):
        write_events(tmp_path / "a.dat", EVENTS, (16, 20))
    with pytest.raises(DatasetError, match="not in order of time"):
        write_events(tmp_path / "a.npz", EVENTS[::-1], (16, 20))
    with pytest.raises(DatasetError, match="its directory is missing"):
        write_events(tmp_path / "none" / "a.npz", EVENTS, (16, 20))
    for size in ((16,), (0, 20), (2, 16, 20)):
        with pytest.raises(OptionError, match=r"sensor_size must be \(H, W\)"):
            write_events(tmp_path / "a.npz", EVENTS, size)
    with pytest.raises(DatasetError, match="the polarity 2; 0 and 1 are expected"):
        write_events(tmp_path / "a.npz", EVENTS.replace(p=2 * EVENTS.p), (16, 20))
    with pytest.raises(DatasetError, match="AEDAT 4 holds no times below 0; the first is -"):
        write_events(tmp_path / "a.aedat4", EVENTS.replace(t=EVENTS.t - 1_000_000), (16, 20))
    with pytest.raises(DatasetError, match="below 32768"):
        write_events(tmp_path / "a.aedat4", EVENTS, (16, 40_000))
    monkeypatch.setitem(__import__("sys").modules, "dv_processing", None)
    with pytest.raises(PluginUnavailable, match=r"spikecore-datasets-dvs\[dv\]"):
        write_events(tmp_path / "a.aedat4", EVENTS, (16, 20))
    assert not list(tmp_path.iterdir())
