"""Shares of samples: a part of each class, and what no share is."""

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest

import spikecore
from spikecore.datasets import split_by_subject, split_per_class, subset
from spikecore.errors import OptionError


@dataclass(frozen=True)
class Sample:
    label: int
    subject: int


def samples(num_classes, per_class):
    return [Sample(i % num_classes, i % 5) for i in range(num_classes * per_class)]


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_part_is_rounded_up_from_the_share_as_it_is_written(percent):
    """0.07 * 100 is 7.000000000000001 in floating point, and seven of a hundred are meant."""
    for per_class in (1, 9, 50, 100):
        part = subset(samples(2, per_class), percent / 100)
        count = math.ceil(Fraction(percent, 100) * per_class)
        assert [sum(sample.label == label for sample in part) for label in range(2)] == [count, count]


def test_a_tiny_share_leaves_one_of_each_class():
    assert sorted(sample.label for sample in subset(samples(3, 4), 1e-15)) == [0, 1, 2]


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(OptionError, match=r"share must be > 0 and <= 1, got"):
        subset(samples(2, 4), share)
    for cut in (split_per_class, split_by_subject):
        with pytest.raises(OptionError, match=r"test_share must be > 0 and < 1, got"):
            cut(samples(2, 4), share)


def test_a_seed_below_zero_is_refused_by_name():
    with pytest.raises(OptionError, match="option 'split_seed' must be >= 0, got -1"):
        spikecore.create("dataset", "digits", split_seed=-1)
