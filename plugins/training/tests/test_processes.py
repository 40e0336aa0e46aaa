"""Two and four processes train as one does."""

import dataclasses

import pytest
import torch
from helpers import spiking_task

from spikecore.errors import RunError
from spikecore.interfaces import Batch
from spikecore.testing.training import Recorder
from spikecore.testing.two_processes import SharedRecorder, in_processes
from spikecore_training.supervised import Supervised

OPTIONS = {"epochs": 2, "batch_size": 7, "lr": 0.02, "firing_rates": True, "log_every": 3}
"""48 = 6 · 7 + 6: neither 7 nor 6 is a multiple of 4."""


def fit(recorder, norm=False, **options):
    trainer = Supervised(**OPTIONS, **options)
    task = spiking_task(trainer, norm=norm)
    # In double precision: one membrane that rounding puts on the other side of the threshold changes the run.
    task.model.double().register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    metrics = trainer.fit(task, recorder)
    logs = [event for name, event in recorder.events if name == "log"]
    return {"model": dict(task.model.state_dict()), "metrics": metrics, "logs": logs, "notes": recorder.notes}


def assert_as_one(several, one):
    for answer in several:
        assert answer["metrics"] == pytest.approx(one["metrics"], rel=1e-5, abs=1e-6)
        for line, wanted in zip(answer["logs"], one["logs"], strict=True):
            assert line == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        for name, value in one["model"].items():
            torch.testing.assert_close(answer["model"][name], value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("world_size", "options"),
    [
        (2, {"accumulate": 3, "ema": 0.5, "clip_norm": 0.5}),
        (4, {"truncate": 2, "rate_penalty": 1.0, "label_smoothing": 0.1}),
    ],
)
def test_several_processes_train_as_one(world_size, options):
    one = fit(Recorder(), **options)
    several = in_processes(lambda group: fit(SharedRecorder(group), **options), world_size)
    assert_as_one(several, one)


@pytest.mark.parametrize("world_size", [2, 4])
def test_synchronised_batch_norms_see_the_whole_batch(world_size):
    one = fit(Recorder(), norm=True)
    shared = in_processes(lambda group: fit(SharedRecorder(group), norm=True, sync_batch_norm=True), world_size)
    assert_as_one(shared, one)
    assert any("share their statistics" in note for note in shared[0]["notes"])
    assert one["model"]["2.num_batches_tracked"] == 14
    if world_size == 2:
        own = in_processes(lambda group: fit(SharedRecorder(group), norm=True), 2)
        with pytest.raises(AssertionError):
            assert_as_one(own, one)


def refused(group):
    trainer = Supervised(epochs=1, batch_size=47, sync_batch_norm=True)  # one sample is left for the last batch
    try:
        trainer.fit(spiking_task(trainer, norm=True), SharedRecorder(group))
    except RunError as error:
        return str(error)
    return "nothing"


def test_a_process_without_a_sample_has_no_statistics():
    for text in in_processes(refused, 2):
        assert "fewer samples than there are processes (2)" in text


class Ragged:
    """Sequences of 1 to 4 steps, padded to the longest of a batch."""

    def __init__(self, split):
        self._split = split

    def __len__(self):
        return len(self._split)

    def __getitem__(self, index):
        x, label = self._split[index]
        return x[: 1 + index % 4], label

    def collate(self, samples, generator):
        longest = max(len(x) for x, _ in samples)
        x = torch.zeros(longest, len(samples), *samples[0][0].shape[1:])
        mask = torch.zeros(longest, len(samples), dtype=torch.bool)
        for place, (sample, _) in enumerate(samples):
            x[: len(sample), place] = sample
            mask[: len(sample), place] = True
        has_one_length = bool(mask.all())
        return Batch(x, torch.tensor([label for _, label in samples]), None if has_one_length else mask)


def fit_ragged(recorder, parallel="ddp"):
    trainer = Supervised(epochs=1, batch_size=5, lr=0.02, truncate=1, rate_penalty=0.5, parallel=parallel)
    task = spiking_task(trainer, is_sequence=True)
    task.model.double().register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    trainer.fit(dataclasses.replace(task, train=Ragged(task.train), val=None), recorder)
    return dict(task.model.state_dict())


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_parts_of_sequences_are_as_many_in_all_processes(parallel):
    """Of a batch one process may have short sequences only."""
    one = fit_ragged(Recorder())
    for weights in in_processes(lambda group: fit_ragged(SharedRecorder(group), parallel), 4):
        torch.testing.assert_close(weights, one, rtol=1e-6, atol=1e-8)


class Few:
    """The first sample only."""

    def __init__(self, split):
        self._split = split

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self._split[range(1)[index]]


def rates_of_one_sample(recorder):
    trainer = Supervised(epochs=0, batch_size=8, firing_rates=True)
    task = spiking_task(trainer)
    return trainer.fit(dataclasses.replace(task, val=None, test=Few(task.test)), recorder)


def test_a_process_without_a_sample_takes_part_in_the_sums():
    one = rates_of_one_sample(Recorder())
    assert one["test_firing_rate"] > 0
    for metrics in in_processes(lambda group: rates_of_one_sample(SharedRecorder(group)), 2):
        assert metrics == pytest.approx(one)


class Poisoned:
    def __init__(self, split, at):
        self._split, self._at = split, at

    def __len__(self):
        return len(self._split)

    def __getitem__(self, index):
        x, label = self._split[index]
        return (x * float("nan") if index == self._at else x), label


def poisoned(group):
    trainer = Supervised(epochs=1, batch_size=48)
    task = spiking_task(trainer)
    try:
        trainer.fit(dataclasses.replace(task, train=Poisoned(task.train, 5)), SharedRecorder(group))
    except RunError as error:
        return str(error)
    return "nothing"


def test_all_processes_stop_where_one_loss_is_no_number():
    for text in in_processes(poisoned, 2):
        assert "no number" in text
