"""`spike view FILE` and `spike info format` with this plugin's formats."""

import numpy as np
import pytest
import writers
from click.testing import CliRunner
from PIL import Image
from test_folder import columns

from spikecore.cli import spike
from spikecore_datasets_dvs import make_events
from spikecore_datasets_dvs.formats import FORMATS

EVENTS = make_events(*columns(1, 3))


def run(*args):
    return CliRunner().invoke(spike, args)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recording_in_numbers_and_as_a_picture(here):
    (here / "left.raw").write_bytes(writers.evt3(*columns(1, 3)))
    shown = run("view", "left.raw", "--out", "left.png")
    assert shown.exit_code == 0, shown.output
    duration = EVENTS.duration_us
    for line in (
        "left.raw",
        "format    EVT 3.0",
        "sensor    720 × 1280 pixels (H × W): the header (height, width)",
        "events    400",
        f"duration  {duration / 1e6:.6g} s, from {EVENTS.t[0]} to {EVENTS.t[-1]} µs",
        f"rate      {400 / duration * 1e3:.4g} thousand events/s",
        f"polarity  {EVENTS.p.mean():.1%} ON",
        "picture   left.png",
    ):
        assert line in shown.output
    assert Image.open(here / "left.png").size[0] > 500
    assert run("view", "left.raw").exit_code == 0
    assert Image.open(here / "left.gif").n_frames == 16


def test_a_file_that_leaves_something_open_says_which_option(here):
    (here / "a.txt").write_bytes(writers.text(*columns(1, 3), heading="t_us x y p").partition(b"\n")[2])
    shown = run("view", "a.txt")
    assert shown.exit_code != 0
    assert 'columns = "txyp"' in str(shown.exception)
    shown = run("view", "a.txt", "--set", "columns=txyp", "--set", "unit=us", "--set", "sensor_size=[16, 20]")
    assert shown.exit_code == 0, shown.output
    assert "16 × 20 pixels (H × W): as given" in shown.output
    shown = run("view", "a.txt", "--set", "columns=txyp", "--set", "unit=us")
    assert "the largest coordinates; the file does not state it" in shown.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["none.raw"], "there is no such file"),
        (["folder"], "is a directory: name one of its files"),
        (["a.npz", "3"], "is one recording: it has no INDEX"),
        (["a.npz", "--all"], "is one recording"),
        (["a.npz", "--set", "colums=1"], "a file has no option 'colums'"),
        (["a.npz", "--set", "sensor_size=7"], "'sensor_size' must be 'auto' or [H, W]"),
        (["a.npz", "--set", "unit=3"], "'unit' must be a string"),
        (["a.npz", "--set", "allow_empty=3"], "'allow_empty' must be true or false"),
        (["a.npz", "--out", "a.jpg"], "must end in .png or .gif"),
        (["a.npz", "--set", "form=mp4"], "no event format 'mp4'"),
        (["b.npz"], "its events fill 60001 × 60001 pixels, more than any sensor"),
        (["c.xyz"], "no event format has the suffix '.xyz'"),
    ],
)
def test_what_cannot_be_viewed(args, says, here):
    (here / "folder").mkdir()
    np.savez("a.npz", t_us=[0], x=[1], y=[2], p=[1])
    np.savez("b.npz", events=make_events([0], [60_000], [60_000], [1]).structured(), unit="us")
    (here / "c.xyz").write_text("x")
    shown = run("view", *args)
    assert shown.exit_code != 0
    assert says in f"{shown.output} {shown.exception}"


def test_a_recording_without_events(here):
    np.savez("a.npz", t=[], x=[], y=[], p=[])
    shown = run("view", "a.npz")
    assert "allow_empty = true" in str(shown.exception)
    shown = run("view", "a.npz", "--set", "allow_empty=true")
    assert shown.exit_code == 0, shown.output
    assert "events    0" in shown.output


def test_the_formats_are_those_of_the_table():
    shown = run("info", "format")
    assert shown.exit_code == 0
    for name, form in FORMATS.items():
        assert f"\n{name} " in f"\n{shown.output}"
        assert form.title in shown.output
        one = run("info", "format", name)
        for fact in (form.title, form.unit, *form.suffixes, *form.options):
            assert fact in one.output
    shown = run("info", "format", "hdf")
    assert shown.exit_code != 0
    assert "no format 'hdf'; did you mean 'hdf5'" in shown.output
