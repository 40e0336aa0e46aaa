"""Geometry of the transforms, against numpy and closed forms; and what holds for every transform."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikecore import create
from spikecore.errors import OptionError
from spikecore.registry import choices, load
from spikecore_datasets_vision.draws import Draws
from spikecore_datasets_vision.transforms import (
    Crop,
    Pad,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    boxes,
)

SIZES = {
    "resize": {"height": 9, "width": 20},
    "crop": {"height": 5, "width": 7},
    "pad": {"pixels": 2},
    "random_crop": {"padding": 2},
}
AUGMENTS = [entry.name for entry in choices("image_augment")]
EACH = {
    entry.name: load(entry.kind, entry.name)(**SIZES.get(entry.name, {}))
    for entry in (*choices("image_transform"), *choices("image_augment"))
    if entry.name not in ("torchvision", "mixup", "cutmix")
}


def images(count=6, channels=3, height=12, width=16, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((count, channels, height, width), np.float32))


def draws(index, seed=0, epoch=0):
    return Draws(seed, epoch, np.asarray(index))


def test_every_transform_is_here():
    assert len(EACH) == 9


@pytest.mark.parametrize("transform", EACH.values(), ids=EACH)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_holds_for_all(transform, channels):
    x = images(channels=channels)
    kept = x.clone()
    out = transform(x, draws(range(6)))
    assert out.shape == (6, channels, *transform.size((12, 16)))
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(x, kept), "the input was written to"
    assert torch.equal(transform(x, draws(range(6))), out), "the same draws give the same"
    for i in range(6):
        torch.testing.assert_close(transform(x[i : i + 1], draws([i]))[0], out[i], msg="a batch of one is a slice")
    with pytest.raises(dataclasses.FrozenInstanceError):
        transform.name = "other"
    assert pickle.loads(pickle.dumps(transform)) == transform
    hash(transform)


@pytest.mark.parametrize("name", [name for name in EACH if name in AUGMENTS])
def test_what_is_random_differs_from_sample_to_sample(name):
    same = images(1).expand(64, -1, -1, -1)
    out = EACH[name](same, draws(range(64)))
    assert len({image.numpy().tobytes() for image in out}) > 1
    assert not torch.equal(EACH[name](same, draws(range(64), epoch=1)), out)
    assert not torch.equal(EACH[name](same, draws(range(64), seed=1)), out)


def test_crop_and_pad():
    x = images(2)
    assert torch.equal(Crop(5, 7)(x, draws([0, 1])), x[:, :, 3:8, 4:11])
    padded = Pad(2, 0.25)(x, draws([0, 1]))
    assert torch.equal(padded[:, :, 2:-2, 2:-2], x)
    padded[:, :, 2:-2, 2:-2] = 0.25
    assert (padded == 0.25).all()


@pytest.mark.parametrize("margin", ["fill", "mirror"])
def test_random_crop_takes_every_place_of_the_padded_image(margin):
    x = images(1, height=6, width=5).expand(2000, -1, -1, -1)
    out = RandomCrop(padding=2, margin=margin, fill=0.5)(x, draws(range(2000)))
    pad = {"fill": {"mode": "constant", "constant_values": 0.5}, "mirror": {"mode": "reflect"}}[margin]
    padded = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 2)), **pad)
    wanted = {padded[:, i : i + 6, j : j + 5].tobytes(): (i, j) for i in range(5) for j in range(5)}
    places = [wanted[image.contiguous().numpy().tobytes()] for image in out]
    counts = np.unique(np.array(places), axis=0, return_counts=True)[1]
    assert len(counts) == 25
    assert ((counts - 80) ** 2 / 80).sum() < 56  # χ² with 24 degrees of freedom: its 99.98th percentile


def test_random_crop_to_a_smaller_size():
    out = RandomCrop(height=4, width=3)(images(), draws(range(6)))
    assert out.shape == (6, 3, 4, 3)


@pytest.mark.parametrize(("axis", "place"), [("x", -1), ("y", -2)])
def test_random_flip(axis, place):
    x = images(1000)
    out = RandomFlip(axis, p=0.3)(x, draws(range(1000)))
    flipped = torch.tensor([torch.equal(a, b.flip(place)) for a, b in zip(out, x, strict=True)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(out, x, strict=True)])
    assert (flipped ^ same).all()
    assert flipped.float().mean() == pytest.approx(0.3, abs=0.05)


def test_resize_to_whole_fractions_is_a_weighted_mean():
    """Half the size: the four pixels around each new one at 3, the next at 1 (a triangle of the doubled width)."""
    x = images(2, height=16, width=16)
    out = Resize(8, 8)(x, draws([0, 1]))
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    rows = sum(w * x[:, :, 5 + i] for i, w in enumerate(weights))
    wanted = sum(w * rows[:, :, 7 + i] for i, w in enumerate(weights))
    torch.testing.assert_close(out[:, :, 3, 4], wanted)
    assert Resize(16, 16)(x, draws([0, 1])) is x


def test_random_resized_crop_of_a_ramp():
    """A plane stays a plane: its slope tells the size of the part, its middle the place; both within the bounds."""
    height, width = 40, 60
    across, down = torch.meshgrid(torch.arange(width) / width, torch.arange(height) / height, indexing="xy")
    x = torch.stack([across, down, across * 0])[None].expand(500, -1, -1, -1)
    part = RandomResizedCrop(height=20, width=20, min_area=0.2, max_area=0.6)(x, draws(range(500)))
    wide = (part[:, 0, 10, 15] - part[:, 0, 10, 5]) * 20 / 10 * width
    high = (part[:, 1, 15, 10] - part[:, 1, 5, 10]) * 20 / 10 * height
    area, ratio = wide * high / (width * height), wide / high
    assert 0.19 < area.min() < 0.23
    assert 0.57 < area.max() < 0.62
    assert area.mean() == pytest.approx(0.4, abs=0.02)
    assert 0.72 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.38
    assert ratio.log().mean() == pytest.approx(0, abs=0.03)
    whole = RandomResizedCrop(min_area=1.0, min_ratio=1.5, max_ratio=1.5)(x[:1], draws([0]))
    torch.testing.assert_close(whole, x[:1])


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)).map(sorted),
    seed=st.integers(0, 1000),
)
def test_boxes_are_inside(height, width, area, ratio, seed):
    top, left, high, wide, is_valid = boxes(draws(range(32), seed), (height, width), area, ratio)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + high)[is_valid].le(height).all()
    assert (left + wide)[is_valid].le(width).all()
    assert high[is_valid].ge(1).all()
    exact = high[is_valid] * wide[is_valid]
    slack = (high[is_valid] + wide[is_valid]) / 2 + 0.25  # each side is rounded
    assert (exact >= area[0] * height * width - slack).all()
    assert (exact <= area[1] * height * width + slack).all()


@pytest.mark.parametrize("content", ["noise", "fill"])
def test_random_erasing(content):
    x = torch.full((1000, 3, 32, 32), 2.0)
    out = RandomErasing(p=0.4, content=content, fill=0.5)(x, draws(range(1000)))
    changed = out != 2
    assert torch.equal(changed[:, 0], changed[:, 1])
    share = changed[:, 0].float().mean((1, 2))
    assert (share > 0).float().mean() == pytest.approx(0.4, abs=0.05)
    assert share[share > 0].min() > 0.015
    assert share.max() < 0.42
    rows, columns = changed[:, 0].any(2), changed[:, 0].any(1)
    assert torch.equal(changed[:, 0], rows[:, :, None] & columns[:, None]), "boxes"
    values = out[changed]
    if content == "fill":
        assert (values == 0.5).all()
    else:
        assert values.mean() == pytest.approx(0.5, abs=0.01)
        assert values.std() == pytest.approx(math.sqrt(1 / 12), abs=0.01)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"transforms": [{"name": "crop", "height": 40, "width": 10}]}, "larger than the image"),
        ({"transforms": ["resize"]}, "'transforms\\[0\\].height' is required"),
        ({"transforms": [{"name": "resize", "height": 0, "width": 3}]}, "must be >= 1"),
        (
            {"transforms": ["random_flip"]},
            "no image_transform 'random_flip'. Known .*: crop, pad, resize",
        ),
        ({"augment": [{"name": "random_crop", "padding": 32, "margin": "mirror"}]}, "needs larger images"),
        ({"augment": [{"name": "random_crop", "height": 33}]}, "larger than the image"),
        ({"augment": [{"name": "random_crop", "height": 16, "width": 16}]}, "name the size in 'transforms'"),
        ({"augment": [{"name": "random_flip", "p": 1.5}]}, "must be >= 0 and <= 1"),
        ({"augment": [{"name": "random_resized_crop", "min_area": 0.9, "max_area": 0.5}]}, "more than 'max_area'"),
        ({"augment": [{"name": "random_erasing", "min_area": 0.9}]}, "more than 'max_area'"),
        ({"augment": [{"name": "rand_augment", "magnitude": 31.0}]}, "must be >= 0 and <= 30"),
        ({"augment": [{"name": "colour_jitter", "hue": 0.6}]}, "must be >= 0 and <= 0.5"),
        ({"augment": ["colour_jiter"]}, "Did you mean 'colour_jitter'"),
        ({"augment": [{"name": "cutmix", "alpha": 0.0}]}, "must be > 0"),
        ({"augment": [Crop(3, 3)]}, "option 'augment\\[0\\]' takes colour_jitter"),
        ({"augment": "random_flip"}, "must be a list"),
    ],
)
def test_options_that_cannot_be(options, says):
    with pytest.raises(OptionError, match=says):
        create("dataset", "cifar10", **options)


def test_sizes_of_both_splits_agree_where_the_transforms_bring_them_together():
    dataset = create(
        "dataset",
        "cifar10",
        augment=[{"name": "random_resized_crop", "height": 24, "width": 24}],
        transforms=[{"name": "crop", "height": 24, "width": 24}],
    )
    assert dataset.sample_shape == dataset.info.sample_shape == (3, 24, 24)
