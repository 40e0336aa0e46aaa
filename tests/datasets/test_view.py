"""`spike view`, and the colours of its pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import spikecore
from spikecore.cli import spike
from spikecore.cli.view import picture
from spikecore.datasets.digits import Digits
from spikecore.errors import ConfigError
from spikecore.interfaces import FileFormat, RecordingView


def view(*args):
    return CliRunner().invoke(spike, ["view", *args])


def test_a_static_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = view("digits", "7", "--split", "test", "--set", "split_seed=3")
    assert result.exit_code == 0, result.output
    x, label = spikecore.create("dataset", "digits", split_seed=3).split("test")[7]
    assert f"label   {label} ({label})" in result.output
    assert "[C, H, W] = [1, 8, 8]" in result.output
    assert f"sum {float(x.sum()):.6g}" in result.output
    assert Image.open(tmp_path / "digits-test-7.png").size > (100, 100)


class Moving(Digits):
    """Digits that move one pixel to the right each step, ON and OFF channels."""

    is_sequence = True
    sample_shape = (2, 8, 8)

    def split(self, name):
        inner = super().split(name)

        class Split:
            def __len__(self):
                return len(inner)

            def __getitem__(self, index):
                x, label = inner[index]
                return torch.stack([torch.cat([x.roll(t, -1), x.roll(t + 1, -1)]) for t in range(20)]), label

        return Split()


@pytest.fixture
def moving():
    spikecore.register("dataset", "moving-for-view", Moving, replace=True)


def test_a_sequence_moves(tmp_path, monkeypatch, moving):
    monkeypatch.chdir(tmp_path)
    assert view("moving-for-view").exit_code == 0
    gif = Image.open(tmp_path / "moving-for-view-train-0.gif")
    assert gif.n_frames == 20
    assert gif.size == (240, 240)
    assert view("moving-for-view", "--out", "steps.png").exit_code == 0
    assert Image.open(tmp_path / "steps.png").size[0] > 500


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["digits", "--split", "valid"], "has the splits train, test"),
        (["digits", "99999"], "has the samples 0 to 1437"),
        (["digits", "--out", "a.jpg"], "must end in .png or .gif"),
        (["digits", "--out", "a.gif"], "does not move"),
        (["digits", "--out", "/no/such/place/a.png"], "cannot be written"),
        (["digits", "--set", "split_sed=1"], "did you mean 'split_seed'"),
        (["digit"], "Did you mean 'digits'"),
        (["digits", "--as", "png"], "--as goes with --all"),
        (["digits", "--all", "--as", "gif"], "does not move; take png"),
        (["digits", "--all", "--out", __file__], "is a file; --all writes into a directory"),
        (["digits", "--all", "--out", "/proc/none"], "cannot be written"),
        (["none.rec"], "there is no such file"),
        ([str(Path(__file__).parent)], "is a directory: name one of its files"),
    ],
)
def test_what_cannot_be_shown(args, says):
    result = view(*args)
    assert says in f"{result.output} {result.exception}"
    assert result.exit_code == 2 or isinstance(result.exception, ConfigError)  # for which `main` exits with 2


def test_colours():
    on, off = np.zeros((2, 1, 1)), np.zeros((2, 1, 1))
    on[1], off[0] = 2, 2
    assert picture(np.zeros((2, 1, 1)), 2)[0, 0].tolist() == [255, 255, 255]
    assert picture(on, 2)[0, 0].tolist() == [255, 0, 0]
    assert picture(off, 2)[0, 0].tolist() == [0, 0, 255]
    assert picture(np.full((1, 1, 1), 1.0), 2)[0, 0].tolist() == [127, 127, 127]
    assert picture(np.array([[[1.0, -1.0]]]), 1, True)[0].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert picture(np.array([[[1.0, 0.0]]]), 1, True)[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    assert picture(np.array([1.0, 0.5, 0.0]).reshape(3, 1, 1), 1)[0, 0].tolist() == [255, 127, 0]


class Signed(Digits):
    """Two steps: the digit as it is, and its negative."""

    is_sequence = True

    def split(self, name):
        x, label = super().split(name)[0]
        return [(torch.stack([x, -x]), label)]


class Normalised(Digits):
    """Values far from 0 .. 1, and the way back."""

    def split(self, name):
        x, label = super().split(name)[0]

        class Split(list):
            def unnormalised(self, x):
                return x / 4 + 0.5

        return Split([((x - 0.5) * 4, label)])


def test_all_steps_of_a_signed_sample_have_the_same_ground(tmp_path):
    spikecore.register("dataset", "signed-for-view", Signed, replace=True)
    assert view("signed-for-view", "--out", str(tmp_path / "a.gif")).exit_code == 0
    gif = Image.open(tmp_path / "a.gif")
    corners, darkest = [], []
    for step in range(gif.n_frames):
        gif.seek(step)
        rgb = np.asarray(gif.convert("RGB")).astype(int)
        corners.append(rgb[0, 0].tolist())
        darkest.append(rgb.reshape(-1, 3)[rgb.sum(2).argmin()].tolist())
    assert corners == [[255, 255, 255]] * 2  # nothing there: white in both
    assert darkest == [[255, 0, 0], [0, 0, 255]]


def test_a_normalised_sample_is_drawn_as_it_was(tmp_path):
    spikecore.register("dataset", "normalised-for-view", Normalised, replace=True)
    result = view("normalised-for-view", "--out", str(tmp_path / "a.png"))
    assert "values  -2 to 1.75" in result.output  # what a net is given
    assert view("digits", "--out", str(tmp_path / "b.png")).exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@dataclass(frozen=True)
class Lines:
    """Reads `.lines`: a number a line."""

    def formats(self):
        return [FileFormat("lines", "a number a line", (".lines",), (("unit", "metres"),))]

    def takes(self, path):
        return path.suffix == ".lines"

    def view(self, path, options, num_steps):
        numbers = [float(line) for line in path.read_text().split()]
        shown = (("numbers", str(len(numbers))), ("options", str(dict(options))))
        return RecordingView(shown, np.arange(num_steps * 32).reshape(num_steps, 2, 4, 4))


@pytest.fixture
def lines():
    spikecore.register("recording_reader", "lines", Lines, replace=True)


def test_a_file_goes_to_the_reader_that_takes_it(tmp_path, monkeypatch, lines):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.lines").write_text("1\n2\n3\n")
    result = view("a.lines", "--set", "unit=s", "--set", "size=[2, 3]")
    assert result.exit_code == 0, result.output
    assert "  numbers   3\n  options   {'unit': 's', 'size': [2, 3]}\n  picture   a.gif" in result.output
    assert Image.open(tmp_path / "a.gif").n_frames == 16
    assert "is one recording: it has no INDEX" in view("a.lines", "2").output


def test_a_dataset_comes_before_a_file_of_its_name(tmp_path, monkeypatch, lines):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("1")
    assert "[C, H, W] = [1, 8, 8]" in view("digits").output


def test_formats_are_listed(lines):
    shown = CliRunner().invoke(spike, ["info", "format"])
    assert "lines" in shown.output
    assert "a number a line  (.lines)" in shown.output
    one = CliRunner().invoke(spike, ["info", "format", "lines"])
    assert "unit           metres" in one.output
    wrong = CliRunner().invoke(spike, ["info", "format", "line"])
    assert "no format 'line'; did you mean 'lines'" in wrong.output


def test_pictures_of_a_whole_split(tmp_path, moving):
    options = ["moving-for-view", "--split", "test", "--all", "--out", str(tmp_path / "all"), "--as", "png"]
    count = len(spikecore.create("dataset", "moving-for-view").split("test"))
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(Moving, "split", _first_three(Moving.split))
    with monkeypatch.context():
        result = view(*options)
        assert result.exit_code == 0, result.output
        gifs = view(*options[:-2], "--set", "split_seed=0")
    monkeypatch.undo()
    assert count > 3
    assert "3 pictures in" in result.output
    labels = [spikecore.create("dataset", "digits").split("test")[i][1] for i in range(3)]
    assert sorted(
        path.relative_to(tmp_path / "all").as_posix() for path in (tmp_path / "all").rglob("*.png")
    ) == sorted(f"{label}/{i}.png" for i, label in enumerate(labels))
    assert gifs.exit_code == 0, gifs.output
    assert len(list((tmp_path / "all").rglob("*.gif"))) == 3


def _first_three(split):
    def few(self, name):
        inner = split(self, name)

        class Few:
            def __len__(self):
                return 3

            def __getitem__(self, index):
                return inner[index]

        return Few()

    return few
