"""Colours against Pillow and the standard library, which were written by others."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from spikecore_datasets_vision import colour
from spikecore_datasets_vision.colour import ColourJitter
from spikecore_datasets_vision.draws import Draws

FACTORS = [0.0, 0.3, 1.0, 1.7]


def pixels(count=4, channels=3, height=13, width=17, low=0, high=256):
    shape = (count, channels, height, width)
    return np.random.default_rng(5).integers(low, high, shape, dtype=np.uint16).astype(np.uint8)


def through(function, levels):
    """Pillow's function on each image."""
    out = []
    for image in levels:
        mode = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        mapped = np.asarray(function(Image.fromarray(mode)))
        out.append(mapped.transpose(2, 0, 1) if mapped.ndim == 3 else mapped[None])
    return torch.from_numpy(np.stack(out).astype(np.float64))


def ours(function, levels, *arguments):
    return 255 * function(torch.from_numpy(levels).double() / 255, *arguments)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("function", "theirs", "slack"),
    [
        (colour.brightness, ImageEnhance.Brightness, 1.0),
        (colour.contrast, ImageEnhance.Contrast, 1.5),  # Pillow rounds the mean
        (colour.saturation, ImageEnhance.Color, 2.0),  # and the grey image
        (colour.sharpness, ImageEnhance.Sharpness, 2.0),  # and the smoothed one
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_enhancement(function, theirs, slack, factor, channels):
    levels = pixels(channels=channels)
    enhanced = ours(function, levels, torch.full((4,), factor))
    wanted = through(lambda image: theirs(image).enhance(factor), levels)
    assert (enhanced - wanted).abs().max() <= slack
    if factor == 1:
        torch.testing.assert_close(enhanced, torch.from_numpy(levels).double())


@pytest.mark.parametrize(("low", "high"), [(0, 256), (40, 90), (7, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_auto_contrast_and_equalise(low, high, channels):
    levels = pixels(channels=channels, low=low, high=high, height=30, width=31)
    assert (ours(colour.auto_contrast, levels) - through(ImageOps.autocontrast, levels)).abs().max() <= 1.0
    torch.testing.assert_close(ours(colour.equalise, levels), through(ImageOps.equalize, levels))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_equalise_any_image(height, width, seed):
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, rng.integers(1, 257), (2, 3, height, width)).astype(np.uint8)
    torch.testing.assert_close(ours(colour.equalise, levels), through(ImageOps.equalize, levels))


@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_posterise(bits):
    posterised = ours(colour.posterise, pixels(), torch.full((4,), bits))
    torch.testing.assert_close(posterised, through(lambda image: ImageOps.posterize(image, bits), pixels()))


@pytest.mark.parametrize("threshold", [0, 100, 255, 256])
def test_solarise(threshold):
    solarised = ours(colour.solarise, pixels(), torch.full((4,), threshold / 255, dtype=torch.float64))
    torch.testing.assert_close(solarised, through(lambda image: ImageOps.solarize(image, threshold), pixels()))


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20), st.floats(-0.5, 0.5))
def test_hue(colours, turn):
    x = torch.tensor(colours, dtype=torch.float64).T[None, :, :, None] / 255
    turned = colour.hue(x, torch.tensor([turn], dtype=torch.float64))
    for i, rgb in enumerate(colours):
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in rgb))
        wanted = torch.tensor(colorsys.hsv_to_rgb((h + turn) % 1, s, v), dtype=torch.float64)
        torch.testing.assert_close(turned[0, :, i, 0], wanted, atol=1e-9, rtol=0)


def test_each_sample_has_its_own_factor():
    levels, factors = pixels(), torch.tensor(FACTORS)
    for function in (colour.brightness, colour.contrast, colour.saturation, colour.sharpness):
        whole = ours(function, levels, factors)
        for i, factor in enumerate(FACTORS):
            torch.testing.assert_close(whole[i : i + 1], ours(function, levels[i : i + 1], torch.tensor([factor])))


def test_jitter_draws_its_factors_from_the_declared_range():
    x = torch.full((3000, 3, 2, 2), 0.25)
    out = ColourJitter(brightness=0.5, contrast=0, saturation=0, hue=0)(x, Draws(0, 0, np.arange(3000)))
    factor = out[:, 0, 0, 0] / 0.25
    assert 0.5 <= factor.min() < 0.51
    assert 1.49 < factor.max() <= 1.5
    assert factor.mean() == pytest.approx(1.0, abs=0.02)
    nothing = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0)
    assert torch.equal(nothing(x, Draws(0, 0, np.arange(3000))), x)
    red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(3000, -1, 2, 2)
    turned = ColourJitter(brightness=0, contrast=0, saturation=0, hue=1 / 6)(red, Draws(0, 0, np.arange(3000)))
    assert (turned[:, 0] == 1).all(), "less than a sixth of the circle away from red"
    assert turned[:, 1].max() > 0.98
    assert turned[:, 2].max() > 0.98
