"""Losses and kernels against spikingjelly's and snntorch's."""

import pytest
import torch

from spikecore.nn import losses
from spikecore.nn.readouts import first_spike_time
from tests.peers.compare import require

sj = require("spikingjelly.activation_based.functional")
sn = require("snntorch.functional")

T, B, C = 7, 5, 4


def make(spikes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    out = torch.rand(T, B, C, generator=generator)
    return ((out > 0.7).float() if spikes else out * 4 - 2), torch.randint(C, (B,), generator=generator)


def compare(ours, theirs, spikes):
    out, y = make(spikes)
    a, b = out.clone().requires_grad_(), out.clone().requires_grad_()
    mine, other = ours(a, y), theirs(b, y).squeeze()
    torch.testing.assert_close(mine, other)
    mine.backward()
    other.backward()
    torch.testing.assert_close(a.grad, b.grad)
    assert a.grad.abs().max() > 0


def test_spikingjelly_tet():
    compare(losses.TET(), sj.temporal_efficient_training_cross_entropy, spikes=False)


@pytest.mark.parametrize("spikes", [True, False])
def test_snntorch_cross_entropies(spikes):
    compare(losses.TET(), sn.ce_rate_loss(), spikes)  # theirs takes the cross entropy of every step
    compare(losses.CountCrossEntropy(), sn.ce_count_loss(), spikes)


def test_snntorch_membrane_losses():
    compare(losses.MembraneCrossEntropy(over="max"), sn.ce_max_membrane_loss(), spikes=False)
    theirs = sn.mse_membrane_loss(on_target=0.9, off_target=0.3)  # an off_target below 0 counts as 0 there
    compare(losses.MembraneMSE(on=0.9, off=0.3), theirs, spikes=False)


def test_snntorch_counts():
    theirs = sn.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2)
    ours = losses.CountMSE(on=0.8, off=0.2)
    out, y = make(spikes=True)
    # Theirs rounds the wanted counts to whole numbers and divides by T once.
    rounded = losses.CountMSE(on=int(T * 0.8) / T, off=int(T * 0.2) / T)
    torch.testing.assert_close(rounded(out, y), T * theirs(out, y))
    assert ours(out, y) != rounded(out, y)


def test_snntorch_first_spikes():
    out, y = make(spikes=True)
    out[0, out.sum(0) == 0] = 1.0  # theirs gives a silent train the last step, ours gives it T
    torch.testing.assert_close(losses.FirstSpikeCrossEntropy()(out, y), sn.ce_temporal_loss()(out, y))


@pytest.mark.parametrize(
    ("kernel", "options", "arguments"),
    [
        ("linear", {}, ()),
        ("polynomial", {"degree": 3.0}, (3.0,)),
        ("sigmoid", {"scale": 0.2}, (0.2,)),
        ("gaussian", {"width": 1.7}, (1.7,)),
    ],
)
def test_spikingjelly_kernels(kernel, options, arguments):
    a, b = make(True)[0], make(True, seed=1)[0]
    x, y = (train.transpose(0, 1).flatten(1) for train in (a, b))
    theirs = sj.kernel_dot_product(x, y, kernel, *arguments)
    torch.testing.assert_close(losses.spike_kernel(a, b, kernel, **options), theirs)


def test_spikingjelly_similarity():
    s, y = make(spikes=True)
    hot = torch.nn.functional.one_hot(y, C).float()
    theirs = sj.spike_similar_loss(s.permute(1, 2, 0), hot, "linear", "mse")  # linear there: divided by the lengths
    torch.testing.assert_close(losses.SpikeSimilarityLoss(kernel="cosine")(s, y), theirs)


def test_spikingjelly_first_spikes():
    s, _ = make(spikes=True)
    index = sj.first_spike_index(s.permute(1, 2, 0)).permute(2, 0, 1)
    time = first_spike_time(s)
    steps = torch.arange(T).reshape(T, 1, 1)
    assert torch.equal(index.bool(), steps == time)
