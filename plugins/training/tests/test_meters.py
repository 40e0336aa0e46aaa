"""Metrics against counts by hand."""

import dataclasses

import pytest
import torch
from helpers import spiking_task

from spikecore.testing.training import Recorder
from spikecore_training.meters import ClassMeter, StepMeter, ValueMeter
from spikecore_training.supervised import Supervised

CPU = torch.device("cpu")


def task(num_outputs):
    return dataclasses.replace(spiking_task(Supervised(batch_size=8)), num_outputs=num_outputs, classes=())


def test_classes():
    torch.manual_seed(0)
    meter, scores, labels = ClassMeter(task(7), CPU), torch.randn(40, 7), torch.randint(0, 7, (40,))
    losses = torch.rand(40)
    for part in (slice(0, 13), slice(13, 40)):
        meter.update(scores[part], labels[part], losses[part])
    metrics = meter.compute(Recorder(), "val")
    top = scores.topk(5).indices
    assert metrics["val_accuracy"] == pytest.approx((scores.argmax(1) == labels).float().mean().item())
    assert metrics["val_top5_accuracy"] == pytest.approx((top == labels[:, None]).any(1).float().mean().item())
    assert metrics["val_loss"] == pytest.approx(losses.mean().item())
    wanted = torch.zeros(7, 7, dtype=torch.long)
    for true, answer in zip(labels, scores.argmax(1), strict=True):
        wanted[true, answer] += 1
    assert torch.equal(meter.counts(), wanted)
    assert wanted.trace() < 40
    assert set(meter.shown("val")) == {"confusion", "recall"}
    assert "val_top5_accuracy" not in ClassMeter(task(3), CPU).metrics


def test_values_and_steps_leave_padding_out():
    torch.manual_seed(0)
    out, wanted = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    mask = torch.arange(4)[:, None] < torch.tensor([4, 1, 2])
    meter = ValueMeter(task(2), CPU)
    meter.update(out, wanted, torch.rand(3), mask)
    difference = (out - wanted)[mask]
    metrics = meter.compute(Recorder(), "test")
    assert metrics["test_mse"] == pytest.approx(difference.square().mean().item())
    assert metrics["test_mae"] == pytest.approx(difference.abs().mean().item())
    classes = torch.randint(0, 2, (4, 3))
    meter = StepMeter(task(2), CPU)
    meter.update(out, classes, torch.rand(3), mask)
    right = (out.argmax(2) == classes)[mask].float().mean().item()
    assert meter.compute(Recorder(), "test")["test_accuracy"] == pytest.approx(right)
