"""RandAugment: its affine changes against Pillow and closed forms, and the choice of changes against the even one."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from spikecore_datasets_vision.draws import Draws
from spikecore_datasets_vision.rand_augment import CHANGES, RandAugment, affine, rotation, shear, translation


def smooth(count=3, height=24, width=30):
    """Slow waves, on which all ways of interpolation agree."""
    y, x = np.mgrid[:height, :width]
    made = [[np.sin(x / 5 + c) * np.cos(y / 6 + i) / 2 + 0.5 for c in range(3)] for i in range(count)]
    return torch.tensor(np.array(made))


@pytest.mark.parametrize("degrees", [-30.0, 10.0, 90.0])
def test_rotation_is_pillows(degrees):
    x = smooth(height=25, width=25)
    rotated = affine(x, rotation(torch.full((3,), degrees, dtype=torch.float64)))
    for image, own in zip(x, rotated, strict=True):
        for c in range(3):
            theirs = Image.fromarray(image[c].numpy().astype(np.float32)).rotate(degrees, Image.Resampling.BILINEAR)
            inner = (slice(6, -6), slice(6, -6))
            assert np.abs(np.asarray(theirs)[inner] - own[c].numpy()[inner]).max() < 0.02


def test_a_quarter_turn_is_exact():
    x = smooth(height=8, width=8)
    rotated = affine(x, rotation(torch.full((3,), 90.0, dtype=torch.float64)))
    torch.testing.assert_close(rotated, x.rot90(1, (2, 3)), atol=1e-9, rtol=0)


def test_whole_pixels_of_translation_are_exact_and_bring_in_the_fill():
    x = smooth()
    moved = affine(x, translation(torch.full((3,), 4.0).double(), torch.full((3,), -2.0).double()), fill=0.25)
    torch.testing.assert_close(moved[:, :, 2:, :-4], x[:, :, :-2, 4:])
    torch.testing.assert_close(moved[:, :, :2], torch.full_like(moved[:, :, :2], 0.25))
    torch.testing.assert_close(moved[:, :, :, -4:], torch.full_like(moved[..., -4:], 0.25))


def test_shear_moves_rows_by_their_height():
    x = smooth(height=9, width=30)
    sheared = affine(x, shear(torch.full((3,), 0.5).double(), torch.zeros(3).double()))
    torch.testing.assert_close(sheared[:, :, 4], x[:, :, 4])  # the middle row
    torch.testing.assert_close(sheared[:, :, 6, :-1], x[:, :, 6, 1:])  # two below: one pixel
    torch.testing.assert_close(sheared[:, :, 2, 1:], x[:, :, 2, :-1])
    turned = affine(x.transpose(2, 3), shear(torch.zeros(3).double(), torch.full((3,), 0.5).double()))
    torch.testing.assert_close(turned, sheared.transpose(2, 3))


def test_each_sample_has_its_own_matrix():
    angles = torch.tensor([0.0, 20.0, -40.0], dtype=torch.float64)
    whole = affine(smooth(), rotation(angles))
    for i in range(3):
        torch.testing.assert_close(whole[i : i + 1], affine(smooth()[i : i + 1], rotation(angles[i : i + 1])))
    torch.testing.assert_close(whole[0], smooth()[0])


def test_there_are_fourteen_changes_and_each_does_something():
    assert len(CHANGES) == 14
    x = smooth() * 0.8
    outcomes = {name: change(x, torch.tensor([0.9, -0.9, 0.9]).double(), 0.5) for name, change in CHANGES.items()}
    for name, out in outcomes.items():
        assert torch.equal(out, x) == (name == "identity"), name
        assert out.shape == x.shape
    assert len({out.numpy().tobytes() for out in outcomes.values()}) == 14


def test_without_strength_only_the_even_ones_change_anything():
    x = (smooth() * 255).round() / 255
    x[:, :, 0, 0] = 1
    for name, change in CHANGES.items():
        changed = change(x, torch.zeros(3).double(), 0.5)
        if name not in ("auto_contrast", "equalise"):
            torch.testing.assert_close(changed, x, msg=name)


@pytest.mark.parametrize(
    ("name", "strength", "theirs"),
    [
        ("posterise", 1.0, lambda image: ImageOps.posterize(image, 4)),
        ("posterise", -0.5, lambda image: ImageOps.posterize(image, 6)),
        ("solarise", 0.5, lambda image: ImageOps.solarize(image, 128)),
        ("solarise", -1.0, lambda image: ImageOps.solarize(image, 0)),
        ("brightness", 1.0, lambda image: ImageEnhance.Brightness(image).enhance(1.9)),
        ("contrast", -1.0, lambda image: ImageEnhance.Contrast(image).enhance(0.1)),
        ("saturation", 0.5, lambda image: ImageEnhance.Color(image).enhance(1.45)),
        ("sharpness", -0.5, lambda image: ImageEnhance.Sharpness(image).enhance(0.55)),
    ],
)
def test_how_strong_a_change_is(name, strength, theirs):
    levels = np.random.default_rng(2).integers(0, 256, (12, 14, 3)).astype(np.uint8)
    x = torch.from_numpy(levels).permute(2, 0, 1)[None].double() / 255
    changed = CHANGES[name](x, torch.tensor([strength]).double(), 0.5)[0].permute(1, 2, 0) * 255
    assert np.abs(changed.numpy() - np.asarray(theirs(Image.fromarray(levels)))).max() <= 2


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("rotate", rotation(torch.tensor([15.0]).double())),
        ("shear_x", shear(torch.tensor([0.15]).double(), torch.tensor([0.0]).double())),
        ("shear_y", shear(torch.tensor([0.0]).double(), torch.tensor([0.15]).double())),
        ("translate_x", translation(torch.tensor([0.225 * 30]).double(), torch.tensor([0.0]).double())),
        ("translate_y", translation(torch.tensor([0.0]).double(), torch.tensor([0.225 * 24]).double())),
    ],
)
def test_how_far_a_change_moves(name, matrix):
    x = smooth(1)
    torch.testing.assert_close(CHANGES[name](x, torch.tensor([0.5]).double(), 0.5), affine(x, matrix, 0.5))


def test_each_change_is_drawn_evenly(monkeypatch):
    seen = dict.fromkeys(CHANGES, 0)

    def counted(name):
        def change(x, strength, fill):
            seen[name] += len(x)
            assert strength.abs().allclose(torch.tensor(0.3).double())
            return x

        return change

    monkeypatch.setattr("spikecore_datasets_vision.rand_augment.CHANGES", {name: counted(name) for name in CHANGES})
    x = torch.rand(7000, 1, 1, 1)
    assert torch.equal(RandAugment(num_changes=2, magnitude=9)(x, Draws(0, 0, np.arange(7000))), x)
    counts = np.array(list(seen.values()))
    assert counts.sum() == 14_000
    assert ((counts - 1000) ** 2 / 1000).sum() < 40  # χ² with 13 degrees of freedom: beyond its 99.98th percentile


def test_samples_stay_in_their_places():
    """Images of one value each: no change of place can exchange two of them unseen."""
    x = (torch.arange(200) / 400 + 0.25)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    out = RandAugment(num_changes=1, magnitude=0)(x, Draws(0, 0, np.arange(200)))
    torch.testing.assert_close(out, x, atol=1 / 255, rtol=0)
