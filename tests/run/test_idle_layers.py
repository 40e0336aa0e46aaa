"""Layers that never spike or always do are told once, with cures that help; looking changes nothing."""

import json

import pytest
import torch
from torch import nn

import spikecore
from spikecore import create
from spikecore.errors import RunError
from spikecore.interfaces.task import Task
from spikecore.nn import LIF, get_state, reset_state, streaming
from spikecore.run.config import resolve
from spikecore.run.context import Context
from spikecore.run.experiment import prepare, resume
from spikecore.run.idle_layers import IdleLayers, spiking_layers
from spikecore.trainers import Trainer

SMALL = {
    "encoder": {"num_steps": 4},
    "model": {"name": "mlp", "hidden": [12]},
    "trainer": {"epochs": 2, "batch_size": 256},
}


class Fed(nn.Module):
    """A neuron fed a constant at every step."""

    def __init__(self, neuron, current):
        super().__init__()
        self.neuron, self.current = neuron, current

    def forward(self, x):
        return self.neuron(torch.full_like(x, self.current))


def watch(model, notes=(), example=None):
    samples = [(torch.full((3,), float(i)), 0) for i in range(40)]
    task = Task(model, create("encoder", "direct", num_steps=6), samples, samples, 2)
    context = Context(torch.device("cpu"), torch.float32, torch.Generator(), model)
    trainer = create("trainer", "classify")
    if example is not None:
        trainer.example = lambda task: example
    return IdleLayers(task, trainer, context, notes)


def test_silent_is_told_once_with_the_cures_of_this_neuron():
    layers = watch(Fed(LIF(tau=3.0, v_threshold=2.0), 0.1))
    assert layers.look(3) == [
        "layer 'neuron' (LIF, 3 neurons) is silent after epoch 3: no spike in 16 samples, so the layers behind it get "
        "nothing. Usual cures: larger weights before it or a larger input gain, a lower v_threshold, a smaller tau"
    ]
    assert layers.look(4) == []


def test_weights_that_are_not_finite_are_told_in_place_of_the_silence_they_cause():
    net = nn.Sequential(nn.Linear(3, 3), LIF())
    with torch.no_grad():
        net[0].weight[1, 2] = float("nan")
    layers = watch(net)
    (text,) = layers.look(2)
    assert text.startswith("weights are not finite after epoch 2: '0.weight'. Training has diverged")
    assert layers.look(3) == []
    assert watch(net, notes=[text]).look(4) == []
    (of_an_ann,) = watch(nn.Sequential(nn.Linear(3, 3), net[0])).look(1)  # there is no neuron to look at
    assert "'1.weight'" in of_an_ann


def test_saturated_is_told_with_the_share():
    (text,) = watch(Fed(LIF(tau=3.0, decay_input=False), 9.0)).look(1)
    assert "is saturated after epoch 1: it spikes at 100% of the steps in 16 samples" in text
    assert text.endswith("smaller weights before it or a smaller input gain, a higher v_threshold, a smaller tau")


@pytest.mark.parametrize(("decay_input", "current"), [(True, 1.2), (False, 0.3)])
def test_the_cure_for_tau_is_one(decay_input, current):
    """Where the input is divided by tau a smaller one makes it fire; where it is not, a larger one."""

    def rate(tau):
        neuron = LIF(tau=tau, decay_input=decay_input)
        return float(neuron(torch.full((6, 1, 1), current)).mean())

    tau = 8.0 if decay_input else 1.2
    assert rate(tau) == 0
    (text,) = watch(Fed(LIF(tau=tau, decay_input=decay_input), current)).look(1)
    word = text.rpartition(", a ")[2]
    assert word == ("smaller tau" if decay_input else "larger tau")
    assert rate(1.5 if word == "smaller tau" else 8.0) > 0


def test_a_layer_that_spikes_is_not_told():
    neuron = LIF()
    model = Fed(neuron, 1.5)
    assert 0 < float(neuron(torch.full((6, 1, 1), 1.5)).mean()) < 0.9
    assert watch(model).look(1) == []


@pytest.mark.parametrize("name", ["relu", "li", "non_spiking_if"])
def test_a_layer_that_is_not_to_spike_is_not_told(name):
    model = Fed(create("neuron", name), -1.0 if name == "relu" else 0.0)
    assert spiking_layers(model) == {}
    assert watch(model).look(1) == []


def test_a_layer_may_be_silent_first_and_saturated_later():
    model = Fed(LIF(), 0.0)
    layers = watch(model)
    assert "silent" in layers.look(1)[0]
    model.current = 50.0
    assert "saturated" in layers.look(2)[0]
    model.current = 0.0
    assert layers.look(3) == []


def test_what_was_told_before_a_run_was_resumed_is_not_told_again():
    note = watch(Fed(LIF(), 0.0)).look(1)
    assert watch(Fed(LIF(), 0.0), note).look(5) == []
    assert len(watch(Fed(LIF(), 50.0), note).look(5)) == 1


class Normed(nn.Module):
    """A batch norm before the neuron; its running statistics are those of torch's start unless they are set."""

    def __init__(self, momentum=0.1):
        super().__init__()
        self.norm, self.neuron = nn.BatchNorm1d(3, momentum=momentum), LIF()
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, x):
        return self.neuron(self.norm((x * 0.001).flatten(0, 1)).unflatten(0, x.shape[:2]))


def test_a_layer_that_only_the_running_statistics_silence_is_told_with_the_evidence():
    model = Normed(0.25)
    model.norm.num_batches_tracked.fill_(7)
    layers = watch(model.eval())
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    (text,) = layers.look(1)
    assert text.startswith("layer 'neuron' (LIF, 3 neurons) is silent in evaluation after epoch 1: no spike in 16")
    x = torch.linspace(0, 39, 16).round().reshape(1, 16, 1).expand(6, 16, 3)
    rate = float(model.train()(x).detach().mean())
    assert rate > 0.1
    assert f"a spike at {rate:.1%} of the steps with the statistics of these samples" in text
    assert "lag behind (of 7 batches, momentum 0.25). The weights are not the cause" in text
    model = Normed(0.25)
    model.norm.num_batches_tracked.fill_(7)
    layers = watch(model.eval())
    assert len(layers.look(1)) == 1
    assert not model.norm.training
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items()), "looking changed the net"
    assert layers.look(2) == []
    nn.init.zeros_(model.norm.weight)
    (text,) = layers.look(3)
    assert "is silent after epoch 3" in text, "silent in training too: another cause"


def test_the_default_run_is_not_silent_after_its_first_epoch(tmp_path, capsys):
    spikecore.run({"trainer": {"epochs": 2}, "run": {"report": False, "device": "cpu"}}, out=tmp_path / "r")
    first = json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["val_accuracy"] > 0.6
    assert "warning" not in capsys.readouterr().err


def test_looking_changes_nothing():
    neuron = LIF(record=("v",))
    model = Fed(neuron, 0.7).train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    layers = watch(model)
    with streaming(model):
        model(torch.zeros(2, 1, 3))
        kept = get_state(model)["neuron"]["v"].clone()
        chosen = neuron.chosen
        layers.look(1)
        assert torch.equal(get_state(model)["neuron"]["v"], kept)
        reset_state(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert neuron.chosen is chosen
    assert not neuron._forward_hooks


def test_the_example_of_a_trainer_is_what_it_looks_at():
    (text,) = watch(Fed(LIF(), 0.0), example=torch.zeros(5, 2, 7)).look(1)
    assert "(LIF, 7 neurons)" in text
    assert "no spike in 2 samples" in text


def test_a_run_tells_it_and_trains_to_the_same_bits(tmp_path, capsys):
    torch.set_num_threads(1)
    config = {**SMALL, "neuron": {"v_threshold": 30.0}, "encoder": {"name": "poisson", "num_steps": 4}}
    spikecore.run(resolve(config), out=tmp_path / "r")
    assert capsys.readouterr().err.count("warning: layer 'layers.1' (LIF, 12 neurons) is silent after epoch 1") == 1
    notes = json.loads((tmp_path / "r/run.json").read_text())["notes"]
    assert [note for note in notes if "is silent after epoch 1" in note]
    assert "is silent after epoch 1" in (tmp_path / "r/report.html").read_text()
    prepared = prepare(resolve(config))
    prepared.trainer.fit(prepared.task, prepared.context)  # without a directory nobody looks
    saved = spikecore.load(tmp_path / "r").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in prepared.task.model.state_dict().items())
    resume(tmp_path / "r", overrides=["trainer.epochs=3"])
    assert "is silent" not in capsys.readouterr().err


def test_a_net_that_cannot_be_looked_at_trains_all_the_same(tmp_path, monkeypatch):
    def fail(self, task):
        raise RunError("<odd>")

    monkeypatch.setattr(Trainer, "example", fail)
    spikecore.run(resolve(SMALL), out=tmp_path / "r")
    notes = json.loads((tmp_path / "r/run.json").read_text())["notes"]
    assert [note for note in notes if "from epoch" in note] == ["silent layers are not told from epoch 1 on: <odd>"]
