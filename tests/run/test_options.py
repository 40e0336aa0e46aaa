"""Options on their way into a run: checked once, idle ones reported, faults between options told with the others."""

import json
import math
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from spikecore import create, nn
from spikecore.datasets.digits import Digits
from spikecore.errors import ConfigError, ContractError, OptionError
from spikecore.interfaces import options as checking
from spikecore.interfaces.component import Configurable, Range, SameAs, check_options, make_config
from spikecore.models.mlp import MLP
from spikecore.nn.losses import TET, RateMSE
from spikecore.registry import Blocking, Registry, registry, use
from spikecore.run import config as run_config
from spikecore.run.config import resolve
from spikecore.run.experiment import prepare, run
from spikecore.testing.distributions import fake_distribution
from spikecore.trainers.optimizers import SGD, Adam, AdamW
from spikecore.trainers.schedules import Constant, Cosine

SMALL = {"model": {"name": "mlp", "hidden": [8]}, "encoder": {"num_steps": 2}, "trainer": {"epochs": 1}}


@pytest.fixture
def own():
    with use(registry().without(())) as copy:
        yield copy


class Limits(Configurable):
    """Two options that depend on each other, one that does not."""

    @dataclass(frozen=True)
    class Config:
        low: float = 0.0
        high: float = 1.0
        name_of_file: str = ""
        count: Annotated[int, Range(ge=1)] = 1

    @classmethod
    def option_problems(cls, config):
        if not config.name_of_file:
            yield "name_of_file", "must be given"
        if config.low >= config.high:
            yield "low", f"must be below high = {config.high}"

    def __init__(self, **options):
        self.config = make_config(type(self), options)


class Sized(Configurable):
    """An option of one of two types."""

    @dataclass(frozen=True)
    class Config:
        size: Literal["auto"] | tuple[int, ...] = "auto"

    def __init__(self, **options):
        self.config = make_config(type(self), options)


def test_an_option_of_one_of_several_types():
    assert Sized().config.size == "auto"
    assert Sized(size=[2, 3]).config.size == (2, 3)
    for wrong in ("none", 7, [1.5], {"name": "auto"}):
        with pytest.raises(OptionError, match=r"'size' must be one of 'auto'.*; or it must be|no options of its own"):
            Sized(size=wrong)


class Fixed(Configurable):
    """Numbers to choose from, and a list of two."""

    @dataclass(frozen=True)
    class Config:
        patch: Literal[1, 2, 4] = 4
        is_sorted: Literal[False] = False
        size: tuple[int, float] = (8, 0.5)

    def __init__(self, **options):
        self.config = make_config(type(self), options)


def test_a_choice_is_compared_with_its_type():
    assert Fixed(patch=2, is_sorted=False).config == Fixed.Config(patch=2)
    assert Fixed(patch=np.int64(2)).config.patch == 2
    for wrong in ({"patch": True}, {"patch": 2.0}, {"patch": "2"}, {"is_sorted": 0}):
        with pytest.raises(OptionError, match="must be one of"):
            Fixed(**wrong)


def test_a_list_of_fixed_length_has_a_type_at_each_place():
    assert Fixed(size=[3, 4]).config.size == (3, 4)
    for wrong, says in (([3], "a list of 2, got 1"), ([3, 4, 5], "a list of 2, got 3"), ([0.5, 3], "a whole number")):
        with pytest.raises(OptionError, match=says):
            Fixed(size=wrong)


class Optional(Configurable):
    """Options that may be left open, with a choice: typing makes another union of those than of classes."""

    @dataclass(frozen=True)
    class Config:
        form: Literal["a", "b"] | None = None
        size: Literal["auto"] | int | None = None

    def __init__(self, **options):
        self.config = make_config(type(self), options)


@pytest.mark.parametrize("options", [{}, {"form": "b"}, {"form": None, "size": 3}, {"size": "auto"}])
def test_an_option_that_may_be_left_open(options):
    config = Optional(**options).config
    assert {name: getattr(config, name) for name in options} == options


@pytest.mark.parametrize(("options", "says"), [({"form": "c"}, "one of 'a', 'b'; got 'c'"), ({"size": 1.5}, "or it")])
def test_what_is_no_choice_is_refused_where_an_option_may_be_left_open(options, says):
    with pytest.raises(OptionError, match=says):
        Optional(**options)


def faults(**options):
    return [name for name, _ in check_options(Limits, options)[1]]


def test_rules_between_options_are_told_with_the_faults_of_single_ones():
    assert faults(name_of_file="a") == []
    assert faults(low=2.0) == ["name_of_file", "low"]
    assert faults(low=2.0, count=0, hihg=3.0) == ["count", "hihg", "name_of_file", "low"]
    assert faults(low=2.0, high="wide") == ["high", "name_of_file"], "nothing is said of low: high is not known"
    with pytest.raises(OptionError, match="option 'name_of_file' must be given; option 'low' must be below high"):
        Limits(low=2.0)


def test_a_config_that_was_checked_is_taken_as_it_is():
    config, _ = check_options(nn.LIF, {"tau": 3.0, "surrogate": {"name": "atan", "alpha": 3.0}})
    lif = nn.LIF.from_config(config, step_mode="single")
    assert lif.config is config
    assert lif.step_mode == "single"
    net = MLP.from_config(make_config(MLP, {"hidden": [3]}), nn.LIF, (1, 2, 2), 5)
    assert net.config.hidden == (3,)
    for component in (nn.ATan, nn.Poisson, TET):
        config = make_config(component, {})
        assert component.from_config(config).config is config


def test_a_config_made_by_hand_is_checked():
    assert nn.LIF.from_config(nn.LIF.Config(tau=3)).config.tau == 3
    with pytest.raises(OptionError, match="LIF: option 'tau' must be >= 1"):
        nn.LIF.from_config(nn.LIF.Config(tau=0.5))
    with pytest.raises(OptionError, match=r"IF: config must be a .*Config, got LIF.Config"):
        nn.IF.from_config(nn.LIF.Config())
    with pytest.raises(OptionError, match="'config' is unknown"):
        nn.LIF(config=nn.LIF.Config(), tau=3.0)
    with pytest.raises(TypeError, match="has a field 'config'"):

        class Bad(Configurable):
            @dataclass(frozen=True)
            class Config:
                config: int = 0


def test_options_are_checked_once_for_each_component_of_a_run(monkeypatch):
    counted = Counter()

    def count(component, options):
        counted[component.__qualname__] += 1
        return check_options(component, options)

    monkeypatch.setattr(checking, "check_options", count)
    monkeypatch.setattr(run_config, "check_options", count)
    given = {**SMALL, "neuron": {"tau": 3.0, "surrogate": {"alpha": 3.0}}, "backend": {"name": "torch"}}
    prepared = prepare(resolve(given, ["trainer.loss.name=tet", "trainer.optimizer=sgd"]))
    seen = Counter(counted)
    task, trainer = prepared.task, prepared.trainer
    neurons = [module for module in task.model.modules() if isinstance(module, nn.Neuron)]
    assert neurons
    assert {neuron.config.surrogate for neuron in neurons} == {nn.ATan(alpha=3.0)}
    assert (trainer.config.loss, trainer.config.optimizer) == (TET(), SGD())
    components = ("Digits", "Direct", "MLP", "LIF", "ATan", "TorchBackend", "Classify", "TET", "SGD")
    assert {name: seen[name] for name in components} == dict.fromkeys(components, 1)
    assert set(seen) <= {*components, "RunOptions", "PluginOptions"}


def test_a_component_that_takes_keywords_only_is_built_as_well(own):
    class Plain:
        """No base of ours: the contract asks for the fields as keywords."""

        api_version, capabilities = 1, nn.Direct.capabilities

        @dataclass(frozen=True)
        class Config:
            num_steps: int = 5

        def __init__(self, num_steps=0):
            self.num_steps, self.config = num_steps, Plain.Config(num_steps)

        def __call__(self, x, generator=None):
            return x.expand(self.num_steps, *x.shape)

        forward = encode = decode = __call__

    own.register("encoder", "plain", Plain)
    prepared = prepare(resolve({**SMALL, "encoder": {"name": "plain", "num_steps": 3}}))
    assert prepared.task.encoder.num_steps == 3


def sequences(own):
    class Moving(Digits):
        """Digits as sequences of two steps."""

        is_sequence = True

        def split(self, name):
            inner = super().split(name)

            class Split:
                def __len__(self):
                    return 80

                def __getitem__(self, index):
                    x, label = inner[index]
                    return x.expand(2, *x.shape), label

            return Split()

    own.register("dataset", "moving-digits", Moving)
    return {**SMALL, "encoder": {}, "dataset": {"name": "moving-digits"}}


def test_an_option_without_effect_is_reported_once(own, tmp_path, capsys):
    base = sequences(own)
    run(resolve({**base, "encoder": {"num_steps": 7}}), out=tmp_path / "a")
    told = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    reason = "the samples of 'moving-digits' are sequences, which go to the net as they are"
    assert told == [f"warning: encoder.num_steps has no effect: {reason}"]
    assert told[0].removeprefix("warning: ") in (tmp_path / "a" / "run.json").read_text()
    run(resolve(base), out=tmp_path / "b")
    assert "no effect" not in capsys.readouterr().err, "a default is not reported"


def test_an_option_that_an_override_drops_is_reported(tmp_path, capsys):
    given = {**SMALL, "neuron": {"tau": 3.0}}
    run(resolve(given, ["neuron.name=if"]), out=tmp_path / "a")
    told = [line for line in capsys.readouterr().err.splitlines() if "of the configuration" in line]
    assert len(told) == 1
    assert told[0].startswith("warning: neuron.tau of the configuration does not apply: the component that --set names")
    assert told[0].removeprefix("warning: ") in json.loads((tmp_path / "a" / "run.json").read_text())["notes"]
    run(resolve(given, ["neuron.name=lif"]), out=tmp_path / "b")
    assert "of the configuration" not in capsys.readouterr().err


def test_options_that_others_make_idle_are_reported(tmp_path, capsys):
    given = {**SMALL, "encoder": {"name": "direct", "num_steps": 3, "sequences": True}}
    with pytest.raises(Exception):  # noqa: B017  (the digits are no sequences)
        run(resolve(given), out=tmp_path / "a")
    assert "warning: encoder.num_steps has no effect: with sequences = true" in capsys.readouterr().err


def test_an_option_may_be_that_of_another_table(own):
    class Fixed(nn.LIF):
        """Needs the length of its sequences."""

        @dataclass(frozen=True)
        class Config(nn.LIF.Config):
            num_steps: Annotated[int, Range(ge=1), SameAs("encoder.num_steps")] = 0

    own.register("neuron", "fixed", Fixed)

    def steps(**tables):
        return resolve({**SMALL, **tables}).tables["neuron"].num_steps

    assert steps(neuron={"name": "fixed"}, encoder={"num_steps": 6}) == 6
    assert steps(neuron={"name": "fixed", "num_steps": 9}, encoder={"num_steps": 6}) == 9
    assert steps(neuron={"name": "fixed"}, encoder={}, dataset=sequences(own)["dataset"]) == 0
    assert Fixed().config.num_steps == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.LIF(2.0), "LIF takes its options by name, as in LIF(v_threshold=2.0)"),
        (lambda: nn.ATan(2.0), "ATan takes its options by name, as in ATan(alpha=2.0)"),
        (lambda: nn.Poisson(8), "Poisson takes its options by name, as in Poisson(num_steps=8)"),
        (lambda: TET("mean"), "TET takes its options by name, as in TET(reduction='mean')"),
        (lambda: nn.NonSpikingIF(1), "NonSpikingIF takes its options by name; it has none"),
    ],
)
def test_positional_arguments_are_refused_with_the_name(make, says):
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value) == says


def test_names_of_other_libraries_get_an_answer():
    with pytest.raises(OptionError, match=r"'beta' is unknown; use tau = 1 / \(1 - beta\) with decay_input"):
        nn.LIF(beta=0.9)
    with pytest.raises(OptionError, match="option 'tau' is unknown; use init_tau"):
        nn.ParametricLIF(tau=3.0)
    with pytest.raises(OptionError) as caught:
        nn.LIF(surrogate="fast_sigmoid")
    said = "LIF: option 'surrogate': no surrogate 'fast_sigmoid'. What other libraries call 'fast_sigmoid' is"
    assert str(caught.value).startswith(f"{said} 'soft_sign' or 'superspike' here. Known surrogates: ")
    for name, meant in (("LIF", "lif"), ("PLIF", "plif"), ("CubaLIF", "cuba_lif"), ("cuba-lif", "cuba_lif")):
        with pytest.raises(LookupError, match=f"Did you mean '{meant}'"):
            create("neuron", name)
    with pytest.raises(LookupError, match="call 'LIFNode' is 'lif' here"):
        create("neuron", "LIFNode")


def test_what_is_said_of_beta_is_true():
    """snntorch's leaky neuron without reset: mem = beta mem + x."""
    beta, x = 0.8, torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lif = nn.LIF(tau=1 / (1 - beta), decay_input=False, v_threshold=1e9, record=("v",))
    lif(x)
    mem = np.zeros(5)
    for step, v in zip(x.numpy(), lif.recorded["v"].numpy(), strict=True):
        mem = beta * mem + step
        np.testing.assert_allclose(v, mem, rtol=1e-12)


def test_a_known_plugin_is_named_with_its_line(own):
    bare = Registry(path=["/nowhere"], builtins=True)
    with use(bare), pytest.raises(LookupError) as caught:
        create("dataset", "mnist")
    where = "mnist is in the plugin datasets-vision: pip install ./plugins/datasets-vision in a checkout of spikecore."
    said = f"no dataset 'mnist'. {where} Known datasets:"
    assert str(caught.value).startswith(said)


FOCAL = """
import torch
from dataclasses import dataclass
from typing import Annotated
from spikecore.interfaces.component import Range
from spikecore.nn.losses import Loss
from spikecore.trainers.optimizers import Optimizer
from spikecore.trainers.schedules import Schedule

class Focal(Loss):
    readout = "steps"

    @dataclass(frozen=True)
    class Config(Loss.Config):
        gamma: Annotated[float, Range(ge=0.0)] = 2.0

    def per_sample(self, out, target):
        p = out.mean(0).softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
        return -((1 - p) ** self.config.gamma) * p.log()

def steps(out):
    return out.sum(0)

@dataclass(frozen=True)
class Plain(Optimizer):
    damping: float = 0.5

    def __call__(self, parameters, lr):
        return torch.optim.SGD(parameters, lr=lr * self.damping)

@dataclass(frozen=True)
class Half(Schedule):
    def __call__(self, progress):
        return 0.5
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    points = {"loss.focal": "focal_mod:Focal", "readout.steps": "focal_mod:steps"}
    points |= {"optimizer.plain": "focal_mod:Plain", "schedule.half": "focal_mod:Half", "loss.wrong": "focal_mod:Plain"}
    fake_distribution(tmp_path, "focal", {"spikecore.choices": points}, modules={"focal_mod.py": FOCAL})
    monkeypatch.syspath_prepend(tmp_path)
    with use(Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=True)):
        yield tmp_path


def test_a_plugin_adds_choices_without_a_change_to_core(plugin, tmp_path):
    assert "focal_mod" not in sys.modules, "listing imports nothing"
    trainer = {"epochs": 1, "batch_size": 400, "loss": {"name": "focal", "gamma": 1.5}, "optimizer.name": "plain"}
    resolved = resolve({**SMALL, "trainer": trainer}, ["trainer.schedule=half"])
    text = resolved.to_toml()
    assert 'loss = { name = "focal", gamma = 1.5 }' in text
    assert 'optimizer = { name = "plain", damping = 0.5 }' in text
    result = run(resolved, out=tmp_path / "run")
    assert math.isfinite(result.metrics["test_loss"])
    trainer = prepare(resolved).trainer
    assert trainer._readout.__name__ == "steps", "a plugin's loss names a plugin's readout"
    out, y = torch.rand(4, 3, 5), torch.tensor([0, 4, 2])
    p = out.mean(0).softmax(1)[range(3), y]
    torch.testing.assert_close(trainer._loss.each(out, y), -((1 - p) ** 1.5) * p.log())
    with pytest.raises(ConfigError, match="gama: is unknown; did you mean"):
        resolve(None, ["trainer.loss={name='focal', gama=1}"])
    with pytest.raises(ConfigError, match="loss: must be a Loss, which Plain is not: derive it from Loss of spikecore"):
        resolve(None, ["trainer.loss=wrong"])


FAULTY = """
from dataclasses import dataclass
from torch.nn import functional
from spikecore.nn.losses import Loss
from spikecore.trainers.schedules import Schedule

class Mean(Loss):
    def per_sample(self, out, target):
        return functional.cross_entropy(out.mean(0), target)

def unread(out):
    return out

@dataclass(frozen=True)
class Short(Schedule):
    def factors(self, num):
        return [0.5] * (num - 1)
"""


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (
            "loss=mean",
            r"Mean\.per_sample must return a loss for each of the \d+ samples, .* got the shape \(\): .*'none'",
        ),
        ("readout=unread", r"the readout 'unread' must give scores of the shape \(\d+, 10\), .* got \(\d+, \d+, 10\)"),
        ("schedule=short", r"Short\.factors\(1\) must give a factor for each of the 1 epochs \(or steps\), got 0"),
    ],
)
def test_a_choice_that_gives_something_else_is_refused_by_name(choice, says, tmp_path, monkeypatch):
    """A mean over the batch would pass for the loss of one sample: the losses that are reported would be too low."""
    points = {
        "loss.mean": "faulty_mod:Mean",
        "readout.unread": "faulty_mod:unread",
        "schedule.short": "faulty_mod:Short",
    }
    fake_distribution(tmp_path, "faulty", {"spikecore.choices": points}, modules={"faulty_mod.py": FAULTY})
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=True)
    with use(registry), pytest.raises(ContractError, match=says):
        run(resolve({**SMALL, "trainer": {"epochs": 1}}, [f"trainer.{choice}"]), out=tmp_path / "run")


def test_the_same_options_as_torch_takes():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    sgd = SGD(momentum=0.5, nesterov=True, weight_decay=0.1)(parameters, 0.3)
    assert isinstance(sgd, torch.optim.SGD)
    wanted = {"lr": 0.3, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1}
    assert {key: sgd.defaults[key] for key in wanted} == wanted
    for kind, theirs in ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)):
        made = kind(betas=(0.8, 0.9), eps=1e-4, weight_decay=0.2)(parameters, 0.1)
        assert type(made) is theirs
        wanted = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.2}
        assert {key: made.defaults[key] for key in wanted} == wanted


def test_schedules_are_their_formulas():
    assert [Constant()(p) for p in (0.0, 0.3, 1.0)] == [1.0, 1.0, 1.0]
    for p in (0.0, 0.25, 0.6, 1.0):
        assert Cosine()(p) == pytest.approx((1 + np.cos(np.pi * p)) / 2, abs=1e-12)
        assert Cosine(final=0.2)(p) == pytest.approx(0.2 + 0.8 * (1 + np.cos(np.pi * p)) / 2, abs=1e-12)


def test_the_trainer_uses_what_was_chosen(monkeypatch):
    """Learning rates over the epochs, and the loss of the options given."""
    given = {**SMALL, "trainer": {"epochs": 4, "batch_size": 400, "lr": 0.1, "optimizer": "sgd"}}
    given["trainer"] |= {"schedule": {"final": 0.5}, "loss": {"name": "rate_mse", "on": 0.7, "off": 0.1}}
    prepared = prepare(resolve(given))
    task, trainer, context = prepared.task, prepared.trainer, prepared.context
    rates: list[Any] = []
    monkeypatch.setattr(
        context, "epoch_end", lambda *_, **__: rates.append(trainer._optimizer.param_groups[0]["lr"]), raising=False
    )
    monkeypatch.setattr(context, "log", lambda **_: None, raising=False)
    trainer.fit(task, context)
    assert rates == pytest.approx([0.1 * Cosine(final=0.5)(epoch / 4) for epoch in range(4)])
    assert trainer._loss == RateMSE(on=0.7, off=0.1)
    assert isinstance(trainer._optimizer, torch.optim.SGD)


def test_losses_are_values_unless_they_hold_tensors():
    assert TET(level=2.0) == TET(level=2.0) != TET(level=3.0)
    assert hash(TET(level=2.0)) == hash(TET(level=2.0))
    assert RateMSE() != TET()

    class Learned(TET):
        def __init__(self, **options):
            super().__init__(**options)
            self.weight = torch.nn.Parameter(torch.ones(1))

    one = Learned()
    assert one == one
    assert one != Learned()
    assert one != TET()


@pytest.mark.parametrize(
    "line",
    [
        f"trainer.epochs = {'9' * 4000}",
        f"trainer.epochs = 0x{'f' * 6000}",
        f"trainer.lr = {'9' * 400}",
        f"model.hidden = [8, {'9' * 4000}]",
    ],
)
def test_an_option_that_no_machine_has_is_refused(line, tmp_path):
    (tmp_path / "c.toml").write_text(f"model.name = 'mlp'\n{line}\n")
    name = line.partition(" ")[0]
    with pytest.raises(ConfigError, match=rf"{name}: must be .* 63 bits, got one of \d+") as error:
        resolve(tmp_path / "c.toml")
    assert len(str(error.value)) < 200
