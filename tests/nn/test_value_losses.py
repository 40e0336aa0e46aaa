"""Losses of values and of sequences against closed forms, with padding, and what they refuse."""

import doctest
import importlib

import pytest
import torch
from torch.nn import functional

from spikecore.errors import ContractError, InputError, ShapeError
from spikecore.nn.losses import SequenceCrossEntropy, SequenceMSE, ValueMSE
from spikecore.registry import choices, load

T, B, C = 5, 3, 4


@pytest.fixture
def out():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(T, B, C, generator=generator, dtype=torch.float64, requires_grad=True)


def test_a_mean_over_the_batch_is_no_loss_of_each_sample(out):
    class Mean(ValueMSE):
        def per_sample(self, out, target):
            return functional.mse_loss(out.mean(0), target)

    with pytest.raises(ContractError, match=r"Mean\.per_sample must return a loss for each of the 3 samples"):
        Mean()(out, torch.zeros(B, C, dtype=torch.float64))


def test_the_mean_over_time_is_compared_with_the_value(out):
    y = torch.randn(B, C, dtype=torch.float64)
    loss = ValueMSE()(out, y)
    assert loss.item() == pytest.approx(((out.sum(0) / T - y) ** 2).mean().item())
    (gradient,) = torch.autograd.grad(loss, out)
    right = 2 * (out.mean(0) - y) / (C * T) / B
    torch.testing.assert_close(gradient, right.detach().expand(T, B, C))
    assert ValueMSE(value="last")(out, y).item() == pytest.approx(((out[-1] - y) ** 2).mean().item())


def test_every_step_is_compared_with_its_own_value(out):
    y = torch.randn(T, B, C, dtype=torch.float64)
    loss = SequenceMSE()(out, y)
    assert loss.item() == pytest.approx(((out - y) ** 2).mean().item())
    (gradient,) = torch.autograd.grad(loss, out)
    torch.testing.assert_close(gradient, (2 * (out - y) / (C * T * B)).detach())


def test_every_step_is_compared_with_its_own_class(out):
    y = torch.randint(C, (T, B))
    right = -torch.log_softmax(out, -1).gather(-1, y.unsqueeze(-1)).mean()
    assert SequenceCrossEntropy()(out, y).item() == pytest.approx(right.item())
    assert SequenceCrossEntropy(label_smoothing=0.2)(out, y).item() == pytest.approx(
        functional.cross_entropy(out.flatten(0, 1), y.flatten(), label_smoothing=0.2).item()
    )


def targets(kind):
    if kind is ValueMSE:
        return torch.randn(B, C, dtype=torch.float64)
    return torch.randn(T, B, C, dtype=torch.float64) if kind is SequenceMSE else torch.randint(C, (T, B))


@pytest.mark.parametrize("kind", [ValueMSE, SequenceMSE, SequenceCrossEntropy])
def test_padding_counts_for_nothing(kind, out):
    """Each sample with its padding has the loss that it has alone, and padding gets no gradient."""
    lengths, y = (5, 2, 3), targets(kind)
    mask = torch.arange(T)[:, None] < torch.tensor(lengths)
    padded = torch.where(mask.unsqueeze(-1), out, torch.full_like(out, 1e6))
    loss = kind(reduction="none")(padded, y, mask)
    for place, length in enumerate(lengths):
        own = y[place : place + 1] if kind is ValueMSE else y[:length, place : place + 1]
        alone = kind()(out[:length, place : place + 1], own)
        assert loss[place].item() == pytest.approx(alone.item())
    (gradient,) = torch.autograd.grad(loss.sum(), out)
    assert not gradient[~mask].any()
    assert gradient[mask].any()


def test_what_does_not_fit_is_refused(out):
    with pytest.raises(ShapeError, match=r"values are \(3, 4\) .*got \(3, 1\)"):
        ValueMSE()(out, torch.zeros(B, 1))
    with pytest.raises(TypeError, match=r"call \.float\(\)"):
        ValueMSE()(out, torch.zeros(B, C, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"values are \(5, 3, 4\)"):
        SequenceMSE()(out, torch.zeros(B, C))
    with pytest.raises(ShapeError, match="time first"):
        SequenceCrossEntropy()(out, torch.zeros(B, T, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"call \.long\(\)"):
        SequenceCrossEntropy()(out, torch.zeros(T, B))
    with pytest.raises(InputError, match=r"classes lie in 0 \.\. 3, got 0 to 4"):
        SequenceCrossEntropy()(out, torch.full((T, B), 4) * torch.eye(T, B, dtype=torch.int64))
    with pytest.raises(ShapeError, match="sample 1 of the batch has no step"):
        SequenceMSE()(out, torch.zeros(T, B, C), torch.tensor([True, False, True]).expand(T, B))
    with pytest.raises(ShapeError, match="a mask of steps"):
        SequenceMSE()(out, torch.zeros(T, B, C), torch.ones(B, T, dtype=torch.bool))


def test_half_precision_is_computed_in_float32(out):
    half = out.detach().to(torch.bfloat16)
    assert SequenceMSE()(half, torch.zeros(T, B, C)).dtype == torch.float32


def test_they_are_found_by_name():
    names = {(table, entry.name) for table in ("value_loss", "sequence_loss") for entry in choices(table)}
    assert names >= {("value_loss", "mse"), ("sequence_loss", "mse"), ("sequence_loss", "cross_entropy")}
    assert load("sequence_loss", "cross_entropy") is SequenceCrossEntropy


def test_the_examples_are_true():
    result = doctest.testmod(importlib.import_module("spikecore.nn.losses.values"), extraglobs={"torch": torch})
    assert result.attempted >= 6
    assert result.failed == 0
