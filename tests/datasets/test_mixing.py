"""Mixing: shares of labels are shares of what is in the sample, in both layouts; λ as Beta says."""

import numpy as np
import pytest
import torch

from spikecore.datasets.mixing import CutMix, Mixup, mix_batch
from spikecore.errors import OptionError
from spikecore.interfaces.dataset import Batch


def numbered(is_sequence, size=6):
    """Sample i holds i + 1 everywhere; its label is i."""
    x = torch.arange(1.0, size + 1)[:, None, None, None].expand(size, 2, 8, 10).contiguous()
    label = torch.arange(size)
    return Batch(x.expand(3, -1, -1, -1, -1).contiguous() if is_sequence else x, label)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("is_sequence", [False, True])
@pytest.mark.parametrize("kind", [Mixup(alpha=1.0), CutMix()])
def test_a_label_tells_what_is_in_the_sample(kind, is_sequence):
    batch = numbered(is_sequence)
    kept = batch.x.clone()
    seen = set()
    for seed in range(20):
        mixed = mix_batch(batch, [kind], 6, is_sequence, generator(seed))
        assert mixed.x.shape == batch.x.shape
        torch.testing.assert_close(mixed.label.sum(1), torch.ones(6))
        assert (mixed.label > 0).sum(1).max() <= 2
        own = mixed.x.transpose(0, 1) if is_sequence else mixed.x
        content = own.flatten(1).mean(1)
        torch.testing.assert_close(content, mixed.label @ torch.arange(1.0, 7.0), atol=1e-4, rtol=1e-4)
        seen.add(round(float(mixed.label.max()), 6))
        again = mix_batch(batch, [kind], 6, is_sequence, generator(seed))
        assert torch.equal(again.x, mixed.x)
    assert len(seen) > 10
    assert torch.equal(batch.x, kept), "the input was written to"


def test_cutmix_takes_one_box_over_all_channels_and_steps():
    mixed = mix_batch(numbered(True), [CutMix()], 6, True, generator(3)).x
    assert torch.equal(mixed[0], mixed[2])
    assert torch.equal(mixed[:, :, 0], mixed[:, :, 1])
    for i in range(6):
        other = mixed[0, i, 0] != i + 1
        rows, columns = other.any(1), other.any(0)
        assert torch.equal(other, rows[:, None] & columns)


def test_shares_follow_beta():
    rng = np.random.default_rng(0)
    one, other = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    shares = [Mixup(alpha=0.4).mix(one, other, rng)[1] for _ in range(5000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.005)
    x, share = Mixup(alpha=0.4).mix(one, other, rng)
    assert x.item() == pytest.approx(share)


def test_a_batch_may_stay_as_it_is_and_one_of_several_is_drawn():
    batch = numbered(False)
    counts = {"none": 0, "mixup": 0, "cutmix": 0}
    for seed in range(400):
        x = mix_batch(batch, [Mixup(alpha=1.0, p=0.5), CutMix(p=1.0)], 6, False, generator(seed)).x
        same, even = torch.equal(x, batch.x), all(len(own.unique()) == 1 for own in x)
        counts["none" if same else "mixup" if even else "cutmix"] += 1
    assert counts["cutmix"] == pytest.approx(200, abs=45)
    assert counts["mixup"] == pytest.approx(100, abs=40)
    assert counts["none"] > 50
    mixed = mix_batch(batch, [Mixup(p=0.0)], 6, False, generator())
    assert torch.equal(mixed.label, torch.eye(6))


def test_masks_are_joined():
    mask = torch.tensor([[True] * 6, [True, False] * 3, [False] * 6])
    batch = numbered(True)._replace(mask=mask)
    mixed = mix_batch(batch, [Mixup(alpha=1.0)], 6, True, generator(1))
    others = mixed.label * (1 - torch.eye(6))
    order = torch.where(others.any(1), others.argmax(1), torch.arange(6))
    assert torch.equal(mixed.mask, mask | mask[:, order])


def test_samples_that_are_no_images():
    with pytest.raises(OptionError, match=r"cutmix needs samples of which each step is \[C, H, W\]; these are \(5,\)"):
        mix_batch(Batch(torch.zeros(3, 2, 5), torch.tensor([0, 1])), [CutMix()], 2, True, generator())
