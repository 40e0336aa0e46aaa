"""What a trainer returns or raises: the method is named, and so is the way to go on."""

import json
import shlex

import pytest
import torch

import spikecore
from spikecore.errors import ContractError, ShapeError
from spikecore.registry import Blocking, Registry, use
from spikecore.run.experiment import evaluate, resume
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
