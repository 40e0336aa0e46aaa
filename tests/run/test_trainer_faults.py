"""What a trainer returns or raises: the method is named, and so is the way to go on."""

import json
import shlex
from dataclasses import dataclass, replace

import pytest
import torch

import spikecore
from spikecore.errors import ConfigError, ContractError, ShapeError
from spikecore.interfaces.task import Task
from spikecore.interfaces.trainer import TrainerCapabilities
from spikecore.registry import Blocking, Registry, use
from spikecore.run.build import prepare
from spikecore.run.config import resolve
from spikecore.run.experiment import evaluate, resume
from spikecore.trainers import Optimizer, Schedule, factors_of, make_optimizer
from spikecore.trainers.classify import Classify
from spikecore.trainers.optimizers import AdamW
from spikecore.trainers.schedules import Cosine
from tests.run.toy_trainers import Alone


class Careless(Alone):
    """Returns what it is told to, or crashes in an epoch."""

    returns = None
    crashes_at = 0

    def fit(self, task, context):
        if self.crashes_at:
            self.config = type(self.config)(epochs=self.crashes_at - 1)
            super().fit(task, context)
            raise ZeroDivisionError("odd")
        super().fit(task, context)
        return self.returns

    def evaluate(self, task, context, split="test"):
        numbers = super().evaluate(task, context, split)
        return numbers if context.keeping is not None else self.returns


@pytest.fixture(autouse=True)
def mine(monkeypatch):
    for name in ("returns", "crashes_at"):
        monkeypatch.setattr(Careless, name, getattr(Careless, name))
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("trainer", "careless", Careless)
        yield registry


CONFIG = {"trainer": {"name": "careless"}, "run": {"report": False}}


@pytest.mark.parametrize(
    ("returns", "says"),
    [
        (None, r"Careless\.fit must return a dict of metrics, name -> number, as in .*, got None: add a `return`"),
        ([1.0], r"Careless\.fit must .*, got \[1\.0\]"),
        ({"loss": "low"}, r"Careless\.fit must .*, got 'loss': str: write float"),
        ({"loss": torch.ones(())}, r"Careless\.fit must .*, got 'loss': Tensor: write float\(\.\.\.\)"),
        ({"loss": True}, r"Careless\.fit must .*, got 'loss': bool"),
        ({3: 1.0}, r"Careless\.fit must .*, got 3: float"),
    ],
)
def test_fit_returns_metrics(returns, says, tmp_path, monkeypatch):
    def fit(self, task, context):
        Alone.fit(self, task, context)
        return returns

    with monkeypatch.context() as patch:
        patch.setattr(Careless, "fit", fit)
        with pytest.raises(ContractError, match=says):
            spikecore.run(CONFIG, out=tmp_path / "r")
    monkeypatch.setattr(Careless, "returns", {"norm": 0.5})
    assert resume(tmp_path / "r").metrics == {"norm": 0.5}, "what was trained is kept"


def test_evaluate_returns_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(Careless, "returns", {"norm": 0.5})
    spikecore.run(CONFIG, out=tmp_path / "r")
    monkeypatch.setattr(Careless, "returns", [0.5])
    with pytest.raises(ContractError, match=r"Careless\.evaluate must return a dict of metrics.*got \[0\.5\]"):
        evaluate(tmp_path / "r")


class Labelled(Classify):
    """Names every split's numbers after validation."""

    def evaluate(self, task, context, split="test"):
        numbers = super().evaluate(task, context, split)
        return {name.replace("test", "val"): number for name, number in numbers.items()}


def test_a_number_of_one_split_is_never_told_as_that_of_another(tmp_path, mine):
    mine.register("trainer", "labelled", Labelled)
    tables = {"trainer": {"name": "labelled", "epochs": 1}, "model": {"name": "mlp"}, "encoder": {"num_steps": 1}}
    spikecore.run({**tables, "run": {"report": False}}, out=tmp_path / "r")
    assert set(evaluate(tmp_path / "r", split="val").metrics) == {"val_accuracy", "val_loss"}
    says = (
        r"asked for the split 'test' and returned val_accuracy, val_loss: expected names that begin with 'test' and an"
    )
    with pytest.raises(ContractError, match=says):
        evaluate(tmp_path / "r")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda context: context.checkpoint("0.5"), r"takes a score, .* or None, got '0\.5' \(str\): write float"),
        (lambda context: context.checkpoint(torch.ones(())), r"takes a score, .* got tensor\(1\.\) \(Tensor\)"),
        (lambda context: context.checkpoint(True), r"takes a score, .* got True \(bool\)"),
        (
            lambda context: context.log(loss=torch.ones(())),
            r"context\.log\(loss=\.\.\.\) takes a number or a text, got ten",
        ),
        (lambda context: context.log(loss=None), r"got None \(NoneType\): .* leave it out"),
        (lambda context: context.log(loss={}), r"got \{\} \(dict\)"),
        (
            lambda context: context.epoch_end(1, {"loss": "low"}),
            r"context\.epoch_end\(1, \.\.\.\) takes a dict .*'loss': str",
        ),
        (
            lambda context: context.epoch_end(1, None),
            r"context\.epoch_end\(1, \.\.\.\) takes a dict of metrics, .* got None$",
        ),
        (lambda context: context.epoch_end("1", {}), "takes the number of the epoch, an int from 1, got '1'"),
        (lambda context: context.epoch_end(0, {}), "takes the number of the epoch, an int from 1, got 0"),
    ],
)
def test_what_a_run_cannot_keep_is_refused_where_it_is_given(call, says, tmp_path, monkeypatch):
    monkeypatch.setattr(Careless, "fit", lambda self, task, context: call(context))
    with pytest.raises(ContractError, match=says):
        spikecore.run(CONFIG, out=tmp_path / "r")
    assert not (tmp_path / "r" / "metrics.jsonl").exists()
    assert not list((tmp_path / "r").glob("checkpoints/*"))


@pytest.mark.parametrize("method", ["state_dict", "large_state_dict"])
def test_a_state_that_is_no_dict_is_refused_before_a_resume_needs_it(method, tmp_path, monkeypatch):
    monkeypatch.setattr(Careless, method, lambda self: None)
    with pytest.raises(ContractError, match=rf"Careless\.{method} must return a dict .*, got None"):
        spikecore.run(CONFIG, out=tmp_path / "r")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda parts: None, r"Careless\.prepare must return a spikecore\.interfaces\.Task, as in .*, got None"),
        (lambda parts: Task(len), r"prepare must return .* whose model is a torch\.nn\.Module, .* got <built-in"),
        (
            lambda parts: Task(torch.nn.ReLU(), train=[]),
            "split 'train' has samples, got an empty one; None stands",
        ),
        (lambda parts: Task(torch.nn.ReLU(), test=iter("a")), "whose split 'test' has samples, got <str_"),
    ],
)
def test_prepare_returns_a_task(make, says, monkeypatch):
    monkeypatch.setattr(Careless, "prepare", lambda self, parts: make(parts))
    with pytest.raises(ContractError, match=says):
        prepare(resolve(CONFIG))


@dataclass(frozen=True)
class Forgetful(Optimizer):
    """Returns what it is told to."""

    def __call__(self, parameters, lr):
        torch.optim.SGD(parameters, lr)  # without a return


@dataclass(frozen=True)
class Short(Schedule):
    """Gives what it is told to."""

    given = None

    def factors(self, num):
        return self.given


def test_an_optimizer_that_returns_nothing_is_named():
    with pytest.raises(ContractError, match=r"optimizer .*test_trainer_faults\.Forgetful must return a .*None"):
        make_optimizer(Forgetful(), torch.nn.Linear(2, 2).parameters(), 0.1)
    assert isinstance(make_optimizer(AdamW(), torch.nn.Linear(2, 2).parameters(), 0.1), torch.optim.AdamW)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, r"Short\.factors\(3\) must give a factor for each of the 3 epochs \(or steps\), got None"),
        ([1.0, 1.0], "for each of the 3 epochs .*, got 2"),
        ([1.0, float("nan"), 1.0], "must give finite numbers, got nan at place 1"),
        ([1.0, 1.0, "1"], "must give finite numbers, got '1' at place 2"),
        ([True, 1.0, 1.0], "must give finite numbers, got True at place 0"),
    ],
)
def test_a_schedule_gives_a_number_for_each_epoch(given, says, monkeypatch):
    monkeypatch.setattr(Short, "given", given)
    with pytest.raises(ContractError, match=says):
        factors_of(Short(), 3)
    assert factors_of(Cosine(), 2) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((64, 10), r"input_shape must be a tuple of ints, .* got 64$"),
        (((6.5,), 10), r"input_shape must be a tuple of ints, .* got \(6\.5,\)"),
        (("64", 10), "input_shape must be a tuple of ints, .* got '64'"),
        (((64,), "3"), "num_outputs must be an int, got '3'"),
    ],
)
def test_a_net_of_odd_sizes_is_refused(sizes, says, monkeypatch, mine):
    mine.register("trainer", "sized", Sized)
    monkeypatch.setattr(Careless, "prepare", lambda self, parts: Task(parts.model(*sizes)))
    with pytest.raises(ContractError, match=says):
        prepare(resolve({"trainer": {"name": "sized"}}))


class Sized(Careless):
    capabilities = TrainerCapabilities(roles=("model", "neuron"), task="unsupervised")


@pytest.mark.parametrize(
    ("capabilities", "says"),
    [
        (
            TrainerCapabilities(roles=(), task="clas"),
            r"trainer 'odd': its capabilities\.task must be one of class, .* got 'clas'; did you mean 'class'\?",
        ),
        (
            TrainerCapabilities(roles="model"),
            r'its capabilities\.roles must be a tuple of names, as in \("model",\), got',
        ),
        (
            TrainerCapabilities(roles=(), extendable="epochs"),
            r'extendable must be a tuple of names, as in \("epochs",\)',
        ),
        (
            TrainerCapabilities(roles=(), extendable=("epoch",)),
            r"extendable names 'epoch', which its Config does not have \(options: epochs\)",
        ),
    ],
)
def test_capabilities_that_cannot_be_are_refused_by_name(capabilities, says, mine):
    mine.register("trainer", "odd", type("Odd", (Careless,), {"capabilities": capabilities}))
    with pytest.raises(ConfigError, match=says) as caught:
        resolve({"trainer": {"name": "odd"}})
    assert len(str(caught.value).splitlines()) == 1


def test_a_component_without_capabilities_is_refused(mine):
    with pytest.raises(ContractError, match="is not a trainer: it lacks a dataclass instance as capabilities"):
        mine.register("trainer", "none", type("Incapable", (Careless,), {"capabilities": None}))


def test_a_crash_tells_where_the_run_is_and_how_it_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Careless, "crashes_at", 3)
    with pytest.raises(ZeroDivisionError):
        spikecore.run({**CONFIG, "trainer": {"name": "careless", "epochs": 5}}, out=tmp_path / "r")
    said = capsys.readouterr().err.splitlines()
    assert "failed with ZeroDivisionError: the last checkpoint is checkpoint-00000002" in said
    assert f"run directory  {tmp_path / 'r'}" in said
    (command,) = [line.removeprefix("go on with     ") for line in said if line.startswith("go on with")]
    assert shlex.split(command) == ["spike", "run", "--resume", str(tmp_path / "r")]
    monkeypatch.setattr(Careless, "crashes_at", 0)
    monkeypatch.setattr(Careless, "returns", {"norm": 0.5})
    resume(tmp_path / "r")
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3, 4, 5]


def test_an_error_of_the_configuration_is_not_to_be_resumed(tmp_path, monkeypatch, capsys):
    def fit(self, task, context):
        raise ShapeError("expected [T, B, 3], got [T, B, 4]")

    monkeypatch.setattr(Careless, "fit", fit)
    with pytest.raises(ShapeError):
        spikecore.run(CONFIG, out=tmp_path / "r")
    said = capsys.readouterr().err
    assert "resuming would end in the same error" in said
    assert "go on with" not in said


@pytest.mark.parametrize(("num_outputs", "shape"), [(12, "12"), (8, "8")])
def test_a_net_with_other_outputs_than_there_are_classes_is_refused(num_outputs, shape, tmp_path, mine):
    """Scores of an eleventh digit would be counted as answers of other samples."""

    class Wider(Classify):
        def prepare(self, parts):
            task = super().prepare(parts)
            return replace(task, model=parts.model((1, 8, 8), num_outputs))

    mine.register("trainer", "wider", Wider)
    tables = {"trainer": {"name": "wider", "epochs": 0}, "model": {"name": "mlp"}, "encoder": {"num_steps": 1}}
    says = rf"model MLP must give \[T, B, 10\], .* got \(1, 64, {shape}\): build it with parts\.model"
    with pytest.raises(ContractError, match=says):
        spikecore.run({**tables, "run": {"report": False}}, out=tmp_path / "r")
