"""Splits samples per class or by subject, or takes a subset; seeded and reproducible."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

from spikecore.errors import OptionError

T = TypeVar("T")


def _label(sample: object) -> Hashable:
    label: Hashable = sample.label  # type: ignore[attr-defined]
    return label


def _subject(sample: object) -> Hashable:
    subject: Hashable = sample.subject  # type: ignore[attr-defined]
    return subject


def split_per_class(
    samples: Sequence[T], test_share: float, seed: int | None = 0, label: Callable[[T], Hashable] = _label
) -> tuple[list[T], list[T]]:
    """Train and test, with the same share of each class in test; a class of two or more is in both.

    Args:
        samples: anything with a label.
        test_share: of each class, rounded.
        seed: which ones; None takes the last ones of each class.
        label: how to get at it.

    Returns:
        Both in the order of `samples`.

    Raises:
        OptionError: the share is not between 0 and 1.
    """
    _check_test_share(test_share)
    rng = None if seed is None else np.random.default_rng(seed)
    chosen: set[int] = set()
    for members in _groups(samples, label):
        order = members if rng is None else rng.permutation(members).tolist()
        count = min(max(round(test_share * len(members)), 1), len(members) - 1)
        chosen.update(order[len(order) - count :])
    return (
        [sample for i, sample in enumerate(samples) if i not in chosen],
        [sample for i, sample in enumerate(samples) if i in chosen],
    )


def split_by_subject(
    samples: Sequence[T], test_share: float, seed: int = 0, subject: Callable[[T], Hashable] = _subject
) -> tuple[list[T], list[T]]:
    """Train and test without a subject in both.

    Args:
        samples: anything with a subject.
        test_share: of the subjects, rounded; at least one, and one is left.
        seed: which ones.
        subject: how to get at it.

    Raises:
        OptionError: there are fewer than two subjects, or the share is not between 0 and 1.
    """
    _check_test_share(test_share)
    names = list(dict.fromkeys(subject(sample) for sample in samples))
    if len(names) < 2:
        raise OptionError(f"a split by subject needs two subjects; there are {len(names)}: {names!r}")
    count = min(max(round(test_share * len(names)), 1), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = {names[i] for i in order[:count]}
    return (
        [sample for sample in samples if subject(sample) not in chosen],
        [sample for sample in samples if subject(sample) in chosen],
    )


def subset(samples: Sequence[T], share: float, seed: int = 0, label: Callable[[T], Hashable] = _label) -> list[T]:
    """A part of each class, rounded up, in the order of `samples`.

    Args:
        samples: anything with a label.
        share: of each class that is taken, above 0, to 1.
        seed: which ones.
        label: how to get at it.

    Raises:
        OptionError: the share is not above 0, or above 1.
    """
    if not 0 < share <= 1:
        raise OptionError(f"share must be > 0 and <= 1, got {share!r}")
    rng = np.random.default_rng(seed)
    chosen: set[int] = set()
    for members in _groups(samples, label):
        # Rounded first: 0.07 * 100 is a little more than 7 in floating point, and means 7.
        count = math.ceil(round(share * len(members), 9))
        chosen.update(rng.permutation(members)[: max(count, 1)].tolist())
    return [sample for i, sample in enumerate(samples) if i in chosen]


def _check_test_share(test_share: float) -> None:
    if not 0 < test_share < 1:
        raise OptionError(f"test_share must be > 0 and < 1, got {test_share!r}")


def _groups(samples: Sequence[T], label: Callable[[T], Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        groups[label(sample)].append(i)
    return list(groups.values())
