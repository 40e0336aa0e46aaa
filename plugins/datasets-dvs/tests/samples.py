"""Samples of many kinds, for the tests of the cache and the processes that they start; no torch."""

import numpy as np

KINDS = (np.uint8, np.uint16, np.uint32, np.float32)


def sample(i):
    """T from 0 to 4, four dtypes, and content that tells the sample."""
    return (np.arange((i % 5) * 6) + i).astype(KINDS[i % 4]).reshape(i % 5, 2, 3)


def check(cache, count):
    assert len(cache) == count
    for i in range(count):
        np.testing.assert_array_equal(cache[i], sample(i))
        assert cache[i].dtype == sample(i).dtype
        assert cache.num_steps(i) == i % 5
