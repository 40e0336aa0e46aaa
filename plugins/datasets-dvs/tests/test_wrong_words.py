"""Files whose header names another version than their words have; genuine ones of every kind are taken."""

import numpy as np
import pytest
import writers

from spikecore.errors import DatasetError
from spikecore_datasets_dvs import read_events

WRITERS = {"2.0": writers.evt2, "2.1": writers.evt21, "3.0": writers.evt3}


def drawn(seed, count, span_us, sensor_size):
    """Columns in order of time, and within a moment by row and column."""
    rng = np.random.default_rng(seed)
    t = rng.integers(0, span_us, count)
    x, y = rng.integers(0, sensor_size[1], count), rng.integers(0, sensor_size[0], count)
    p = rng.integers(0, 2, count)
    order = np.lexsort((x, p, y, t))
    return [column[order].tolist() for column in (t, x, y, p)]


def words_of(file):
    """What follows the header."""
    while file.startswith(b"%"):
        file = file.partition(b"\n")[2]
    return file


@pytest.mark.parametrize("said", WRITERS)
@pytest.mark.parametrize("own", WRITERS)
def test_words_of_another_version(own, said, tmp_path):
    path = tmp_path / "a.raw"
    columns = drawn(0, 1000, 5_000_000, (100, 100))
    words = words_of(WRITERS[own](*columns))
    words += b"\0" * (-len(words) % 8 if own != said else 0)
    path.write_bytes(f"% evt {said}\n% end\n".encode() + words)
    if own == said:
        assert len(read_events(path)) == 1000
        return
    with pytest.raises(DatasetError, match=f"names EVT {said}, and its words are those of {own}: .* Correct the line"):
        read_events(path)


@pytest.mark.parametrize("span_us", [2000, 10**7, 10**8])
@pytest.mark.parametrize("sensor_size", [(4, 4), (700, 1200)])
@pytest.mark.parametrize("kind", ["2.0", "2.1", "2.1 legacy", "3.0", "3.0 plain", "slow", "brightness"])
def test_genuine_words_are_taken(kind, sensor_size, span_us, tmp_path):
    path = tmp_path / "a.raw"
    columns = drawn(1, 800, span_us, sensor_size)
    if kind in ("slow", "brightness"):  # a word of time before every event; an ATIS measures brightness beside them
        words = []
        for t, x, y, p in zip(*columns, strict=True):
            event = (t & 63) << 22 | x << 11 | y
            words += [8 << 28 | t >> 6, p << 28 | event]
            words += [2 << 28 | event, 3 << 28 | event] if kind == "brightness" else []
        path.write_bytes(b"% evt 2.0\n" + np.array(words, "<u4").tobytes())
    else:
        options = {"2.1 legacy": {"is_legacy": True}, "3.0 plain": {"vectors": False, "triggers": False}}
        path.write_bytes(WRITERS[kind[:3]](*columns, **options.get(kind, {})))
    events = read_events(path)
    assert sorted(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True)) == sorted(
        zip(*columns, strict=True)
    )


def test_events_of_evt3_before_any_time(tmp_path):
    words = [0x2005] * 50 + [0x8000, 0x6001, 0x2007]
    (tmp_path / "a.raw").write_bytes(b"% evt 3.0\n" + np.array(words, "<u2").tobytes())
    with pytest.raises(DatasetError, match="of 51 events 50 have no time"):
        read_events(tmp_path / "a.raw")


@pytest.mark.parametrize("has_header", [True, False])
def test_addresses_of_dat_version_2_without_its_name(has_header, tmp_path):
    t, x, y, p = drawn(2, 100, 10_000, (200, 300))
    file = writers.dat(t, x, [row + 200 for row in y], p)
    file = file.replace(b"% Version 2\n", b"") if has_header else words_of(file)[2:]
    (tmp_path / "a.dat").write_bytes(file)
    with pytest.raises(DatasetError, match="have 18 bits, and 100 of 100 addresses have more: .*'% Version 2'"):
        read_events(tmp_path / "a.dat")


def test_a_layout_that_differs_from_the_chip_in_nothing_but_the_side(tmp_path):
    columns = drawn(3, 100, 10_000, (180, 240))
    for own, said in (("davis", "dvxplorer"), ("dvxplorer", "davis")):
        (tmp_path / "a.aedat").write_bytes(writers.aedat2(*columns, layout=own))
        with pytest.raises(DatasetError, match=f"names the chip .*{own}.*and aedat2_layout = '{said}' was given"):
            read_events(tmp_path / "a.aedat", aedat2_layout=said, sensor_size=(480, 640))
        with pytest.raises(DatasetError, match=f'fit {own} or .*: aedat2_layout = "{own}"'):
            read_events(tmp_path / "a.aedat", aedat2_layout="dvs640", sensor_size=(480, 640))
        assert len(read_events(tmp_path / "a.aedat", aedat2_layout=own)) == 100
