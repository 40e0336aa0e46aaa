"""`spike view`, and the colours of its pictures."""

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
