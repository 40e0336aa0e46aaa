"""Optimizers, schedules and parameter groups against torch itself and closed forms."""

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from helpers import spiking_net, spiking_task
from torch.optim import lr_scheduler

import spikecore
from spikecore import nn
from spikecore.errors import ContractError, OptionError
from spikecore.testing.training import Recorder
from spikecore.trainers import Schedule
from spikecore_training import optimizers, schedules
from spikecore_training.groups import parameter_groups
from spikecore_training.rates import LearningRates
from spikecore_training.supervised import Supervised

OF_CORE = {"Adam", "AdamW", "SGD"}
UNSUITABLE = {"LBFGS", "SparseAdam", "Muon"}
"""See the docstring of `optimizers`."""


def test_every_optimizer_of_torch_is_offered_or_named_as_unsuitable():
    of_torch = {name for name, value in vars(torch.optim).items() if isinstance(value, type)} - {"Optimizer"}
    offered = {
        name
        for name, value in vars(optimizers).items()
        if isinstance(value, type) and issubclass(value, optimizers.TorchOptimizer)
    } - {"TorchOptimizer"}
    assert of_torch == offered | OF_CORE | UNSUITABLE
    for name in offered:
        config = Supervised(optimizer=name.lower()).config.optimizer
        made = config([torch.nn.Parameter(torch.ones(2, 2))], 0.3)
        assert type(made) is getattr(torch.optim, name)
        assert made.defaults["lr"] == 0.3
        plain = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(2, 2))], lr=0.3)
        for field in dataclasses.fields(config):
            assert made.defaults[field.name] == pytest.approx(plain.defaults[field.name]), (name, field.name)


def test_options_reach_the_optimizer():
    made = Supervised(optimizer={"name": "rmsprop", "alpha": 0.7, "centered": True}).config.optimizer(
        [torch.nn.Parameter(torch.ones(2))], 0.1
    )
    assert (made.defaults["alpha"], made.defaults["centered"]) == (0.7, True)
    with pytest.raises(OptionError, match="etas"):
        Supervised(optimizer={"name": "rprop", "etas": [1.5, 0.5]})


NUM = 12
CLOSED_FORMS = {
    "step": ({"step_size": 5, "gamma": 0.3}, lambda n: 0.3 ** (n // 5)),
    "multi_step": ({"milestones": [2, 7], "gamma": 0.5}, lambda n: 0.5 ** ((n >= 2) + (n >= 7))),
    "exponential": ({"gamma": 0.8}, lambda n: 0.8**n),
    "polynomial": ({"power": 2.0}, lambda n: (1 - n / NUM) ** 2),
    "linear": ({"start": 0.9, "end": 0.3}, lambda n: 0.9 + (0.3 - 0.9) * n / NUM),
    "cosine_restarts": (
        {"period": 4, "growth": 2, "final": 0.1},
        lambda n: 0.1 + 0.45 * (1 + math.cos(math.pi * (n / 4 if n < 4 else (n - 4) / 8))),
    ),
    "cyclic": ({"low": 0.2, "rise": 3}, lambda n: 0.2 + 0.8 * (1 - abs(n % 6 - 3) / 3)),
    "cosine": ({"final": 0.2}, lambda n: 0.2 + 0.4 * (1 + math.cos(math.pi * n / NUM))),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_schedules_follow_their_equations(name):
    options, formula = CLOSED_FORMS[name]
    factors = Supervised(schedule={"name": name, **options}).config.schedule.factors(NUM)
    assert factors == pytest.approx([formula(n) for n in range(NUM)])
    assert Supervised(schedule=name).config.schedule.factors(0) == []


@pytest.mark.parametrize(("rise", "num"), [(0.5, 2), (0.3, 1), (0.3, 3)])
def test_one_cycle_needs_more_than_one_epoch_to_rise_in(rise, num):
    with pytest.raises(OptionError, match=r"rises over .* must be more than one: set trainer.schedule_per"):
        schedules.OneCycle(rise=rise).factors(num)
    assert schedules.OneCycle(rise=0.35).factors(3)[0] == pytest.approx(1 / 25)


def test_one_cycle_is_that_of_torch():
    factors = schedules.OneCycle(rise=0.4, anneal="linear", div_factor=10.0, final_div_factor=100.0).factors(NUM)
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) <= 1
    assert factors[-1] == pytest.approx(0.001)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer,
        1.0,
        NUM,
        pct_start=0.4,
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=10,
        final_div_factor=100,
    )
    for factor in factors:
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"])
        if factor is not factors[-1]:
            optimizer.step()
            scheduler.step()


def test_plateau_drops_after_scores_that_do_not_rise():
    plateau = Supervised(schedule={"name": "plateau", "factor": 0.5, "patience": 1, "final": 0.2}).config.schedule
    scores = [0.5, 0.6, 0.6, 0.60005, 0.7, 0.7, 0.7, 0.7, 0.7]
    factors = [plateau.after(scores[:count]) for count in range(len(scores) + 1)]
    # Two epochs without 0.0001 more, then again two, and the last drop would go below the floor.
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2]
    config = Supervised(epochs=9, lr=2.0, schedule={"name": "plateau", "factor": 0.5, "patience": 1}).config
    assert LearningRates(config, 4, scores[:4]).at(4, 3) == 1.0
    with pytest.raises(OptionError, match="follows the score of each epoch"):
        Supervised(schedule="plateau", schedule_per="step")
    with pytest.raises(OptionError, match="supervised, regression or sequence"):
        plateau.factors(3)


def test_a_training_follows_its_scores():
    trainer = Supervised(epochs=6, batch_size=16, lr=1e-9, schedule={"name": "plateau", "factor": 0.5, "patience": 0})
    recorder = Recorder()
    trainer.fit(spiking_task(trainer), recorder)
    assert trainer._optimizer.param_groups[0]["lr"] < 1e-9  # it learns nothing
    again = Supervised(epochs=6, batch_size=16)
    again.load_state_dict(trainer.state_dict())
    assert len(again._progress.scores) == 6


def test_a_schedule_may_count_steps():
    config = Supervised(
        epochs=3, lr=2.0, schedule={"name": "exponential", "gamma": 0.5}, schedule_per="step", warmup_epochs=0.5
    ).config
    rates = LearningRates(config, steps_per_epoch=4)
    warm = [0.01, 0.01 + 0.99 * 0.5]
    assert [rates.at(0, step) for step in range(4)] == pytest.approx([2 * warm[0], warm[1], 0.5, 0.25])
    assert rates.at(2, 3) == pytest.approx(2 * 0.5**11)


def test_weights_decay_and_nothing_else():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain, self.matrix = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, 3))

    net = torch.nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ParametricLIF(), nn.GroupNorm(1, 2), nn.Linear(4, 3), Scaled()
    )
    net.append(net[4])  # shared: taken once
    weights, others = parameter_groups(net)
    assert [id(p) for p in weights["params"]] == [id(p) for p in (net[0].weight, net[4].weight, net[5].matrix)]
    assert others["weight_decay"] == 0.0
    assert len(others["params"]) == len(list(net.parameters())) - 3
    (everything,) = parameter_groups(net, decays_all=True)
    assert len(everything["params"]) == len(list(net.parameters()))


def test_decay_moves_weights_only():
    net = spiking_net(3)
    before = {name: value.clone() for name, value in net.named_parameters()}
    optimizer = Supervised(optimizer={"name": "sgd", "weight_decay": 0.5}).config.optimizer(parameter_groups(net), 0.1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in net.named_parameters():
        factor = 1.0 if name.endswith("bias") else 0.95
        torch.testing.assert_close(value, before[name] * factor)


def test_options_of_other_libraries_are_explained():
    with pytest.raises(OptionError, match="use truncate"):
        spikecore.create("trainer", "supervised", tbptt=3)
    with pytest.raises(OptionError, match="warmup_epochs"):
        Supervised(epochs=3, warmup_epochs=4.0)


@dataclass(frozen=True)
class Diverging(Schedule):
    """Divides by the epoch."""

    def factors(self, num):
        return [math.inf, *(1 / epoch for epoch in range(1, num))]


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_schedule_of_another_plugin_is_checked(unit):
    config = Supervised(epochs=3, schedule=Diverging(), schedule_per=unit).config
    with pytest.raises(ContractError, match=r"Diverging\.factors\(\d+\) must give finite numbers, got inf at place 0"):
        LearningRates(config, steps_per_epoch=4)
