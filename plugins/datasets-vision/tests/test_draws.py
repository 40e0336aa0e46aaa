"""Random numbers depend on seed, epoch, index and stream alone, and look like uniform ones in every direction."""

import numpy as np
import pytest
import torch

from spikecore_datasets_vision.draws import Draws

INDEX = np.arange(4000)


def test_a_sample_gets_the_same_in_any_batch():
    whole = Draws(3, 5, INDEX, 2)
    first, second = whole.uniform(2, 3), whole.integers(7)
    for part in ([17], [3999, 17, 4]):
        alone = Draws(3, 5, np.array(part), 2)
        assert torch.equal(alone.uniform(2, 3), first[part])
        assert torch.equal(alone.integers(7), second[part])


def test_known_numbers_of_splitmix64():
    """The first outputs for the state 0, as published with the generator."""
    draws = Draws(0, 0, np.array([0]))
    draws._keys = np.zeros(1, np.uint64)
    wanted = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert draws.uniform(3)[0].tolist() == [(value >> 11) / 2**53 for value in wanted]


@pytest.mark.parametrize("vary", ["index", "epoch", "seed", "stream", "call"])
def test_numbers_are_even_and_independent(vary):
    if vary == "index":
        u = Draws(0, 0, INDEX).uniform().numpy()
    elif vary == "call":
        u = Draws(0, 0, np.array([0])).uniform(4000)[0].numpy()
    else:
        parts = {"seed": 0, "epoch": 0, "index": np.array([0]), "stream": 0}
        u = np.array([Draws(**{**parts, vary: i}).uniform().item() for i in range(4000)])
    counts = np.histogram(u, 20, (0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 50  # χ² with 19 degrees of freedom: 50 is its 99.99th percentile
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.06
    assert len(np.unique(u)) == 4000


def test_ranges():
    draws = Draws(1, 0, INDEX)
    u = draws.uniform(low=-2.0, high=3.0)
    assert -2 <= u.min() < -1.98
    assert 2.98 < u.max() < 3
    below = torch.from_numpy(INDEX % 5 + 1)
    n = draws.integers(below)
    assert (n >= 0).all()
    assert (n < below).all()
    assert torch.bincount(n[below == 5]).tolist() == pytest.approx([160] * 5, abs=45)
    assert draws.chance(0.25).float().mean() == pytest.approx(0.25, abs=0.03)
    assert not draws.chance(0.0).any()
    assert draws.chance(1.0).all()
    assert sorted(set(draws.sign().tolist())) == [-1, 1]
