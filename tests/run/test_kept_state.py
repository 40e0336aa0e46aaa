"""What else a checkpoint keeps: averaged weights, a large state, the generator on the device, the scaler of float16."""

import dataclasses
import json

import pytest
import torch

import spikecore
from spikecore.errors import CheckpointError, ConfigError, ContractError
from spikecore.registry import Blocking, Registry, use
from spikecore.run.checkpoint import LARGE, CheckpointStore
from spikecore.run.config import resolve
from spikecore.run.context import Context
from spikecore.run.experiment import evaluate, load, prepare, resume
from spikecore.run.randomness import generator_on
from spikecore.run.record import Record
from spikecore.trainers.classify import Classify
from tests.conformance.toys import Replaying

SMALL = {
    "dataset": {"test_share": 0.8},
    "encoder": {"num_steps": 2},
    "model": {"name": "mlp", "hidden": [10]},
    "trainer": {"epochs": 2, "batch_size": 64},
    "run": {"report": False, "keep_last": 3, "checkpoint_every_steps": 1},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Averaging(Classify):
    """Gives a moving average of the weights at every safe point."""

    def fit(self, task, context):
        if not hasattr(self, "average"):
            self.average = {name: value.clone() for name, value in task.model.state_dict().items()}
        inner = context.checkpoint

        def checkpoint(score=None):
            with torch.no_grad():
                for name, value in task.model.state_dict().items():
                    self.average[name].lerp_(value, 0.3)
            inner(score, self.average)

        context.checkpoint = checkpoint
        try:
            return super().fit(task, context)
        finally:
            del context.checkpoint

    def state_dict(self):
        return {**super().state_dict(), "average": dict(getattr(self, "average", {}))}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        if state["average"]:
            self.average = dict(state["average"])


class Buffered(Replaying):
    """A toy with a replay buffer, for runs."""

    capabilities = dataclasses.replace(Replaying.capabilities, extendable=("epochs",))

    @dataclasses.dataclass(frozen=True)
    class Config(Replaying.Config):
        val_share: float = 0.1


@pytest.fixture(autouse=True)
def mine():
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("trainer", "averaging", Averaging)
        registry.register("trainer", "buffered", Buffered)
        yield registry


def tables(trainer, **run):
    return {**SMALL, "trainer": {**SMALL["trainer"], "name": trainer}, "run": {**SMALL["run"], **run}}


def stopped_at(monkeypatch, count, resolved, out):
    """A run that is interrupted at a safe point."""
    checkpoint = Context.checkpoint

    def stop(self, *arguments):
        self.stopping = self.count + 1 == count
        checkpoint(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            spikecore.run(resolved, out=out)


def store_of(directory):
    return CheckpointStore(directory, Record.read(directory).id)


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_averaged_weights_are_what_load_eval_and_best_give(tmp_path):
    spikecore.run(resolve(tables("averaging")), out=tmp_path / "r")
    store = store_of(tmp_path / "r")
    for which in ("last", "best"):
        kept = store.read(store.find(which))
        assert not same(kept.model, kept.state["model"])
        assert same(kept.model, kept.state["trainer"]["average"])
        assert same(load(tmp_path / "r", which).state_dict(), kept.model)
    task = prepare(resolve(tables("averaging"))).task
    task.model.load_state_dict(store.read(store.find("last")).model)
    measured = Classify(**SMALL["trainer"]).evaluate(task, prepare(resolve(SMALL)).context)
    assert evaluate(tmp_path / "r").metrics == measured


@pytest.mark.parametrize("count", [2, 7])
def test_training_goes_on_from_the_weights_of_the_model_to_the_same_bits(count, tmp_path, monkeypatch):
    resolved = resolve(tables("averaging"))
    whole = spikecore.run(resolved, out=tmp_path / "whole")
    stopped_at(monkeypatch, count, resolved, tmp_path / "parts")
    assert resume(tmp_path / "parts").metrics == whole.metrics
    one, other = (store_of(tmp_path / name) for name in ("whole", "parts"))
    one, other = one.read(one.names()[-1]), other.read(other.names()[-1])
    assert same(one.model, other.model)
    assert same(one.state["model"], other.state["model"])


def test_weights_come_at_every_safe_point_and_fit_the_model(tmp_path):
    context = prepare(resolve(SMALL)).context
    weights = context.model.state_dict()
    context.checkpoint(None, weights)
    with pytest.raises(ContractError, match="give them at every one"):
        context.checkpoint()

    class Partial(Averaging):
        def fit(self, task, context):
            self.average = {"layers.0.weight": task.model.state_dict()["layers.0.weight"].clone()}
            return super().fit(task, context)

    with use(Registry(blocking=Blocking())) as mine:
        mine.register("trainer", "partial", Partial)
        with pytest.raises((ContractError, KeyError)):
            spikecore.run(resolve(tables("partial")), out=tmp_path / "r")


def large_files(directory):
    return sorted(path.parent.name for path in directory.glob(f"checkpoints/*/{LARGE}"))


def test_a_large_state_is_kept_once_and_verified(tmp_path):
    out = tmp_path / "r"
    spikecore.run(resolve(tables("buffered")), out=out)
    store = store_of(out)
    names = store.names()
    assert len(names) >= 3
    assert large_files(out) == [names[-1]]
    kept = store.read(names[-1], with_large=True)
    assert kept.large["seen"].dtype == torch.int64
    assert len(kept.large["seen"]) == 2 * len(prepare(resolve(SMALL)).task.train)
    assert "seen" not in json.dumps(kept.state["trainer"].__repr__())
    assert store.read(names[-1]).large == {}, "an evaluation does not read it"
    with pytest.raises(CheckpointError, match=rf"kept with the newest checkpoint only: resume from {names[-1]}"):
        resume(out, checkpoint=names[0], overrides=["trainer.epochs=3"])
    path = out / "checkpoints" / names[-1] / LARGE
    whole = path.read_bytes()
    for damage, says in (
        (whole[:-1], "truncated"),
        (whole[:-1] + b"\x07", "is damaged"),
        (None, "large.safetensors is missing"),
    ):
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=says):
            resume(out, overrides=["trainer.epochs=3"])
        assert load(out)(torch.zeros(2, 1, 1, 8, 8)).shape == (2, 1, 10)
        path.write_bytes(whole)
    assert resume(out, overrides=["trainer.epochs=3"]).metrics


@pytest.mark.parametrize("count", [1, 4, 8])
def test_a_large_state_resumes_to_the_same_bits(count, tmp_path, monkeypatch):
    resolved = resolve(tables("buffered"))
    whole = spikecore.run(resolved, out=tmp_path / "whole")
    stopped_at(monkeypatch, count, resolved, tmp_path / "parts")
    assert large_files(tmp_path / "parts") == [f"checkpoint-{count:08d}"]
    assert resume(tmp_path / "parts").metrics == whole.metrics
    assert same(load(tmp_path / "whole").state_dict(), load(tmp_path / "parts").state_dict())


def test_a_crash_between_writing_and_tidying_leaves_a_run_that_resumes(tmp_path, monkeypatch):
    """The newer checkpoint is whole before the older one's large state goes."""
    monkeypatch.setattr(CheckpointStore, "_prune", lambda self: None)
    stopped_at(monkeypatch, 4, resolve(tables("buffered")), tmp_path / "r")
    monkeypatch.undo()
    assert len(large_files(tmp_path / "r")) == 4
    with use(Registry(blocking=Blocking())) as mine:
        mine.register("trainer", "buffered", Buffered)
        assert resume(tmp_path / "r").metrics
    assert len(large_files(tmp_path / "r")) == 1


def test_the_generator_on_the_device_is_another_stream_and_is_kept(tmp_path, monkeypatch):
    context = prepare(resolve(SMALL)).context
    draws = [torch.rand(5, generator=generator) for generator in (context.generator, context.device_generator)]
    assert not torch.equal(*draws)
    again = torch.rand(5, generator=generator_on(torch.device("cpu"), 0))
    assert torch.equal(draws[1], again)
    assert not torch.equal(draws[1], torch.rand(5, generator=generator_on(torch.device("cpu"), 1)))
    poisson = resolve({**SMALL, "encoder": {"name": "poisson", "num_steps": 3}})
    whole = spikecore.run(poisson, out=tmp_path / "whole")
    stopped_at(monkeypatch, 3, poisson, tmp_path / "parts")
    store = store_of(tmp_path / "parts")
    kind, state = store.read(store.names()[-1]).state["device_generator"]
    assert kind == "cpu"
    assert not torch.equal(state, generator_on(torch.device("cpu"), 0).get_state()), "the encoder drew from it"
    assert resume(tmp_path / "parts").metrics == whole.metrics


def test_float16_scales_the_loss_and_keeps_the_scaler(tmp_path, monkeypatch):
    half = resolve({**SMALL, "run": {**SMALL["run"], "precision": "float16"}})
    whole = spikecore.run(half, out=tmp_path / "whole")
    assert whole.metrics["test_accuracy"] > 0.1
    stopped_at(monkeypatch, 3, half, tmp_path / "parts")
    store = store_of(tmp_path / "parts")
    scaler = store.read(store.names()[-1]).state["trainer"]["scaler"]
    assert scaler["scale"] > 1
    assert resume(tmp_path / "parts").metrics == whole.metrics
    plain = spikecore.run(resolve(SMALL), out=tmp_path / "plain")
    assert plain.metrics != whole.metrics
    assert store_of(tmp_path / "plain").read(store_of(tmp_path / "plain").find("last")).state["trainer"]["scaler"] == {}


def test_a_gradient_that_overflows_costs_the_step_and_halves_the_scale():
    prepared = prepare(resolve({**SMALL, "run": {**SMALL["run"], "precision": "float16"}}))
    trainer = Classify(epochs=1, batch_size=10**6, val_share=0.0)
    trainer._pending = None
    before = {name: value.clone() for name, value in prepared.task.model.state_dict().items()}
    state = trainer.state_dict()
    first = torch.optim.AdamW(prepared.task.model.parameters())
    scale = {
        "scale": 2.0**40,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
        "_growth_tracker": 0,
    }
    trainer.load_state_dict({**state, "optimizer": first.state_dict(), "scaler": scale})
    trainer.fit(prepared.task, prepared.context)
    assert same(before, prepared.task.model.state_dict()), "a step with infinite gradients was taken"
    assert trainer.state_dict()["scaler"]["scale"] == 2.0**39


def test_a_checkpoint_of_the_format_before_is_refused_with_the_reason(tmp_path):
    spikecore.run(resolve({**SMALL, "trainer": {"epochs": 0}}), out=tmp_path / "r")
    name = store_of(tmp_path / "r").names()[-1]
    path = tmp_path / "r/checkpoints" / name / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(CheckpointError, match=r"format 2, written by spikecore .* reads format 3"):
        load(tmp_path / "r")


def test_other_precisions_are_refused():
    with pytest.raises(ConfigError, match=r"run\.precision: must be one of 'float32', 'bfloat16', 'float16'"):
        resolve({**SMALL, "run": {"precision": "float8"}})
