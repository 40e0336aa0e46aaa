"""The option `memory`: the same bits whatever is kept, refusals beside what would go wrong, and peak memory shown."""

import pytest
import torch
from helpers import spiking_task

from spikecore.errors import OptionError
from spikecore.interfaces import Table
from spikecore.testing.training import Recorder
from spikecore_training.passes import Passes
from spikecore_training.supervised import Supervised


def trained(memory, monkeypatch):
    trainer = Supervised(epochs=2, batch_size=12, memory=memory, lr=0.05)
    task, recorder = spiking_task(trainer, norm=True), Recorder(seed=3)
    calls = []
    task.model[1].register_forward_hook(lambda module, args, out: calls.append(module.training))
    metrics = trainer.fit(task, recorder)
    tensors = {name: value.clone() for name, value in task.model.state_dict().items()}
    return metrics, tensors, sum(calls), task, recorder


def test_every_mode_gives_the_same_bits(monkeypatch):
    right, weights, num_calls, _, _ = trained("fast", monkeypatch)
    for memory, factor in (("balanced", 1), ("save", 2)):
        metrics, others, calls, task, recorder = trained(memory, monkeypatch)
        assert metrics == right
        assert all(torch.equal(value, weights[name]) for name, value in others.items())
        assert calls == factor * num_calls
        assert "forward" not in vars(task.model)  # what is kept afterwards runs once
        shown = recorder.gallery.values["peak memory"]
        assert isinstance(shown, Table)
        assert shown.rows[0][1] > 10


@pytest.mark.parametrize(
    "option", [{"truncate": 2}, {"rate_penalty": 1.0}, {"sync_batch_norm": True}], ids=lambda option: next(iter(option))
)
def test_what_does_not_go_together_is_refused(option):
    with pytest.raises(OptionError, match=f"'save' runs .*balanced.*leave out {next(iter(option))}"):
        Supervised(memory="save", **option)
    Supervised(memory="balanced", **option)


def test_spikes_are_packed_while_it_trains(monkeypatch):
    packs = []
    monkeypatch.setattr(Passes, "end_step", _telling(Passes.end_step, packs))
    for memory in ("fast", "balanced", "save"):
        trained(memory, monkeypatch)
    assert [packs[0], packs[len(packs) // 2], packs[-1]] == [False, True, True]


def _telling(method, packs):
    def told(self):
        packs.append(self.packs)
        return method(self)

    return told
