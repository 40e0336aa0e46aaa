"""Spike train distances, kernels and the losses on them against numpy and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from spikecore.errors import OptionError, ShapeError
from spikecore.nn.losses import (
    SpikeSimilarityLoss,
    VanRossumLoss,
    exponential_trace,
    spike_kernel,
    van_rossum_distance,
)

KERNELS = ("linear", "polynomial", "sigmoid", "cosine", "gaussian")


def trains(num_steps=7, batch=4, neurons=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(num_steps, batch, neurons, generator=generator) > 0.5).double()


def kernel_of_pair(x, y, kernel):
    dot = float((x * y).sum())
    if kernel == "cosine":
        return dot / math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return {
        "linear": dot,
        "polynomial": dot**3,
        "sigmoid": 1 / (1 + math.exp(-0.1 * dot)),
        "gaussian": math.exp(-float(((x - y) ** 2).sum()) / (2 * 1.7**2)),
    }[kernel]


def test_a_trace_is_the_sum_of_decaying_spikes():
    s, tau = trains(), 2.5
    f = exponential_trace(s, tau)
    for t in range(len(s)):
        expected = sum(math.exp(-(t - k) / tau) * s[k] for k in range(t + 1))
        torch.testing.assert_close(f[t], expected)
    assert exponential_trace(s[:0], tau).shape == s[:0].shape
    assert exponential_trace(s.half(), tau).dtype == torch.float32


def test_the_distance_of_half_precision_is_computed_in_float32():
    a, b = torch.full((1, 1, 1), 1024.0, dtype=torch.float16), torch.full((1, 1, 1), 0.25, dtype=torch.float16)
    assert (a - b).item() == 1024.0  # float16 has no 1023.75
    assert van_rossum_distance(a, b, tau=2.0).item() == 1023.75**2 / 2


@pytest.mark.parametrize("tau", [0.7, 3.0, 40.0])
def test_the_distance_of_one_spike_and_of_two(tau):
    num_steps, q = 200, math.exp(-1 / tau)
    empty = torch.zeros(num_steps, 1, 1, dtype=torch.float64)
    one, two = empty.clone(), empty.clone()
    one[50] = two[50 + 8] = 1
    tail = lambda steps: (1 - q ** (2 * steps)) / (1 - q * q) / tau  # noqa: E731
    assert van_rossum_distance(one, empty, tau).item() == pytest.approx(tail(150))
    # Two spikes d apart: the first alone for d steps, then a difference of (1 - q^d) that decays.
    expected = tail(8) + (1 - q**8) ** 2 * tail(142)
    assert van_rossum_distance(one, two, tau).item() == pytest.approx(expected)
    assert van_rossum_distance(two, two, tau).item() == 0


def test_the_limits_of_tau():
    a, b = trains(40, 2, 1), trains(40, 2, 1, seed=1)
    coincidence = van_rossum_distance(a, b, 1e-3) * 1e-3  # spikes that have no partner in the same step
    torch.testing.assert_close(coincidence, (a - b).abs().sum((0, 2)))
    slow = 1e7
    wanted = (a - b).cumsum(0).square().sum((0, 2)) / slow  # no decay: the difference of the counts so far
    torch.testing.assert_close(van_rossum_distance(a, b, slow), wanted, rtol=1e-4, atol=0)


def test_the_distance_is_symmetric_and_adds_up_over_neurons():
    a, b = trains(seed=2), trains(seed=3)
    torch.testing.assert_close(van_rossum_distance(a, b), van_rossum_distance(b, a))
    summed = sum(van_rossum_distance(a[..., [n]], b[..., [n]]) for n in range(3))
    torch.testing.assert_close(van_rossum_distance(a, b), summed)
    torch.testing.assert_close(VanRossumLoss(tau=4.0)(a, b), van_rossum_distance(a, b, 4.0).mean())
    assert van_rossum_distance(a, b).shape == (4,)
    torch.testing.assert_close(van_rossum_distance(a[..., 0], b[..., 0]), van_rossum_distance(a[..., [0]], b[..., [0]]))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_its_definition(kernel):
    a, b = trains(batch=4), trains(batch=3, seed=1)
    matrix = spike_kernel(a, b, kernel, degree=3, scale=0.1, width=1.7)
    expected = [[kernel_of_pair(a[:, i], b[:, j], kernel) for j in range(3)] for i in range(4)]
    np.testing.assert_allclose(matrix.numpy(), expected)
    torch.testing.assert_close(spike_kernel(b, a, kernel, degree=3, scale=0.1, width=1.7), matrix.T)
    assert torch.equal(spike_kernel(a[..., 0], b[..., 0], kernel), spike_kernel(a[..., [0]], b[..., [0]], kernel))


def test_an_empty_train_is_like_nothing():
    a = trains(batch=2)
    a[:, 0] = 0
    assert spike_kernel(a, a, "cosine")[0].tolist() == [0.0, 0.0]


def test_the_gradient_of_an_empty_train_is_that_of_length_one():
    a = trains(batch=2)
    a[:, 0] = 0
    a.requires_grad_()
    spike_kernel(a, a.detach(), "cosine").sum().backward()
    torch.testing.assert_close(a.grad[:, 0], (a[:, 1] / a[:, 1].norm()).detach())
    a.grad = None
    SpikeSimilarityLoss()(a, torch.tensor([0, 0])).backward()
    assert a.grad.abs().max() < 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS)
def test_half_precision_is_computed_in_float32(kernel, dtype):
    a = trains(num_steps=9001)  # more spikes than half precision counts
    whole = spike_kernel(a.float(), a.float(), kernel)
    assert torch.equal(spike_kernel(a.to(dtype), a.to(dtype), kernel), whole)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(spike_kernel(a.float(), a.float(), kernel), whole)
        for compare in ("mse", "l1", "bce")[: 3 if kernel in ("cosine", "gaussian", "sigmoid") else 2]:
            loss = SpikeSimilarityLoss(kernel=kernel, compare=compare)
            assert loss(a.to(dtype), torch.tensor([0, 1, 0, 2])).dtype == torch.float32


def test_trains_of_whole_numbers_are_refused():
    whole = trains().to(torch.uint8)
    for call in (
        lambda: exponential_trace(whole, 2.0),
        lambda: spike_kernel(whole, whole),
        lambda: SpikeSimilarityLoss()(whole, torch.zeros(4)),
    ):
        with pytest.raises(TypeError, match=r"got torch\.uint8: call \.float\(\) on them"):
            call()


@pytest.mark.parametrize("compare", ["mse", "l1", "bce"])
@pytest.mark.parametrize("tau", [0.0, 3.0])
def test_the_similarity_loss_is_its_definition(compare, tau):
    s, labels = trains(seed=4), np.array([0, 1, 0, 2])
    f = exponential_trace(s, tau) if tau else s
    total = 0.0
    for i in range(4):
        for j in range(4):
            k, a = kernel_of_pair(f[:, i], f[:, j], "cosine"), float(labels[i] == labels[j])
            k = min(k, 1 - 1e-16)
            log = lambda p: max(math.log(p), -100.0) if p > 0 else -100.0  # noqa: E731
            term = {"mse": (k - a) ** 2, "l1": abs(k - a), "bce": -(log(k) if a else log(1 - k))}[compare]
            total += term / 16
    loss = SpikeSimilarityLoss(compare=compare, tau=tau)
    assert loss(s, torch.from_numpy(labels)).item() == pytest.approx(total)
    hot = torch.nn.functional.one_hot(torch.from_numpy(labels), 3)
    assert loss(s, hot).item() == pytest.approx(total)
    assert torch.equal(loss(s[..., 0], hot), loss(s[..., [0]], hot))  # trains of one neuron


def test_gradients_are_finite_differences():
    a = (torch.rand(5, 3, 2, dtype=torch.float64) + 0.1).requires_grad_()
    b = torch.rand(5, 3, 2, dtype=torch.float64)
    assert gradcheck(lambda x: van_rossum_distance(x, b, 2.0), (a,))
    for kernel in KERNELS:
        assert gradcheck(lambda x, kernel=kernel: spike_kernel(x, b, kernel), (a,))
    assert gradcheck(lambda x: SpikeSimilarityLoss(kernel="gaussian")(x, torch.tensor([0, 1, 0])), (a,))


def test_training_on_similarity_separates_the_classes():
    """A gradient step on the loss lowers it."""
    x = (torch.rand(6, 4, 5, generator=torch.Generator().manual_seed(1)).double()).requires_grad_()
    loss, labels = SpikeSimilarityLoss(), torch.tensor([0, 0, 1, 1])
    before = loss(x, labels)
    before.backward()
    assert loss((x - 0.5 * x.grad).detach(), labels) < before


def test_wrong_use_is_refused():
    a = trains()
    with pytest.raises(ShapeError, match="one shape"):
        van_rossum_distance(a, a[:3])
    with pytest.raises(OptionError, match="tau"):
        van_rossum_distance(a, a, tau=0.0)
    with pytest.raises(OptionError, match="tau"):
        VanRossumLoss(tau=-1.0)
    with pytest.raises(TypeError, match=r"\.float\(\)"):
        exponential_trace(a.long(), 2.0)
    with pytest.raises(ShapeError, match="batch only"):
        spike_kernel(a, a[..., :2])
    with pytest.raises(OptionError, match="gaussian"):
        spike_kernel(a, a, "gauss")
    with pytest.raises(OptionError, match="width"):
        spike_kernel(a, a, "gaussian", width=0.0)
    with pytest.raises(OptionError, match="bce"):
        SpikeSimilarityLoss(kernel="linear", compare="bce")
    with pytest.raises(ShapeError, match="labels"):
        SpikeSimilarityLoss()(a, torch.tensor([0, 1]))
