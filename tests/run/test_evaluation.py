"""`spike eval`: which split, on what, from which checkpoint; and what is missing is said plainly."""

import dataclasses
import json
import re

import pytest
import torch
from click.testing import CliRunner

import spikecore
from spikecore.cli import spike as spike_command
from spikecore.datasets.digits import Digits
from spikecore.errors import ConfigError, DatasetError
from spikecore.registry import Blocking, Registry, use
from spikecore.run.checkpoint import CheckpointStore
from spikecore.run.config import resolve
from spikecore.run.experiment import evaluate, load, prepare
from spikecore.run.record import Record
from spikecore.run.report import build
from spikecore.testing.distributions import fake_distribution
from tests.run.toy_trainers import Alone, Walker

TABLES = {
    "dataset": {"test_share": 0.6},
    "encoder": {"name": "poisson", "num_steps": 3},
    "model": {"name": "mlp", "hidden": [12]},
    "trainer": {"epochs": 3, "batch_size": 128},
    "run": {"keep_last": 1},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "r"
    result = spikecore.run(TABLES, out=out)
    yield out, result.metrics
    torch.set_num_threads(before)


def spike(*arguments):
    return CliRunner().invoke(spike_command, [str(argument) for argument in arguments])


def test_each_split_by_its_name_as_in_training(finished):
    out, metrics = finished
    assert sorted(metrics) == ["test_accuracy", "test_loss", "val_accuracy", "val_loss"]
    assert {**evaluate(out, split="val").metrics, **evaluate(out).metrics} == metrics, "Poisson spikes are the same"
    assert sorted(evaluate(out, split="train").metrics) == ["train_accuracy", "train_loss"]


def test_the_test_split_is_none_of_those_that_were_trained_on(finished):
    _, metrics = finished
    task = prepare(resolve(TABLES)).task
    sizes = {name: len(split) for name, split in task.splits.items()}
    assert sum(sizes.values()) == 1797
    seen = {name: {split[i][0].numpy().tobytes() for i in range(len(split))} for name, split in task.splits.items()}
    assert not seen["train"] & seen["val"]
    right = round(metrics["val_accuracy"] * sizes["val"])
    assert metrics["val_accuracy"] == right / sizes["val"]


def test_json_says_what_was_measured(finished):
    out, metrics = finished
    done = spike("eval", out, "--split", "val", "--device", "cpu", "--set", "backend.name=torch", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    store = CheckpointStore(out, Record.read(out).id)
    assert said == {
        "schema": 1,
        "directory": str(out),
        "checkpoint": store.find("last"),
        "split": "val",
        "device": "cpu",
        "changes": ["backend.name=torch", "run.device=cpu"],
        "other_samples": [],
        "metrics": {name: metrics[name] for name in ("val_accuracy", "val_loss")},
    }


def test_best_is_chosen_by_validation(finished):
    out, _ = finished
    store = CheckpointStore(out, Record.read(out).id)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert not any(name.startswith("test") for line in lines for name in line), "it is read once, at the end"
    best = store.read(store.find("best"))
    assert best.score == max(line["val_accuracy"] for line in lines)
    measured = evaluate(out, "best", split="val")
    assert measured.checkpoint == best.name
    assert measured.metrics["val_accuracy"] == pytest.approx(best.score)


def test_the_report_keeps_the_three_apart(finished):
    out, metrics = finished
    html = build(out)
    table = html[html.index('<div id="splits">') :].split("</div>")[0]
    for heading in ("training", "validation", "test"):
        assert f"<th>{heading}</th>" in table or f">{heading}<" in table
    accuracy = f"{metrics['val_accuracy']:.2%}", f"{metrics['test_accuracy']:.2%}"
    assert table.index(accuracy[0]) < table.index(accuracy[1], table.index(accuracy[0]) + 1)
    assert "64 validation samples" in html
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    (sizes,) = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows if "samples" in row]
    assert sizes == ["samples", "649", "70", "1078"]
    assert Record.read(out).samples == {"train": 649, "val": 70, "test": 1078}


def test_what_may_not_change_is_refused(finished):
    out, _ = finished
    for change in ("model.hidden=[3]", "run.seed=3", "trainer.val_share=0.2", "neuron.tau=3.0"):
        with pytest.raises(ConfigError, match=r"cannot change in an evaluation.*\n.*may change backend\.\*"):
            evaluate(out, overrides=[change])
    assert evaluate(out, overrides=["encoder.num_steps=12"]).metrics != evaluate(out).metrics
    assert spike("eval", out, "--split", "later").exit_code == 2
    with pytest.raises(ConfigError, match="--split later: must be one of train, val, test"):
        evaluate(out, split="later")
    with pytest.raises(ConfigError, match=r"run\.device: must be 'auto', 'cpu'"):
        evaluate(out, device="tpu")


@pytest.mark.parametrize("change", ["dataset.split_seed=3", "dataset.test_share=0.4", "dataset.name=other"])
def test_options_that_may_move_training_samples_into_the_test_split_need_to_be_allowed(finished, change):
    out, metrics = finished
    with use(Registry(blocking=Blocking())) as mine:
        mine.register("dataset", "other", type("Other", (Digits,), {}))
        for split in ("test", "train"):
            with pytest.raises(ConfigError, match=rf"{change.split('=')[0]}: may change which samples '{split}' holds"):
                evaluate(out, split=split, overrides=[change])
        allowed = evaluate(out, overrides=[change], other_samples=True)
    assert allowed.other_samples == (change.split("=")[0],)
    assert change == "dataset.name=other" or allowed.metrics["test_loss"] != metrics["test_loss"]


def test_a_change_that_changes_nothing_is_none(finished):
    out, metrics = finished
    measured = evaluate(out, overrides=["dataset.split_seed=0", "dataset.test_share=0.6"])
    assert measured.metrics["test_loss"] == metrics["test_loss"]
    assert measured.other_samples == ()


def test_options_that_keep_the_samples_of_each_split_are_the_datasets_to_name(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Config(Digits.Config):
        gain: float = 1.0

    class Bright(Digits):
        capabilities = dataclasses.replace(Digits.capabilities, same_samples=("gain",))

        def split(self, name):
            split = super().split(name)
            return dataclasses.replace(split, images=split.images * self.config.gain)

    Bright.Config = Config
    tables = {**TABLES, "trainer": {"epochs": 1}, "run": {"report": False}}
    with use(Registry(blocking=Blocking())) as mine:
        mine.register("dataset", "bright", Bright)
        spikecore.run({**tables, "dataset": {"name": "bright"}}, out=tmp_path / "r")
        dark = evaluate(tmp_path / "r", overrides=["dataset.gain=0.0"])
        assert dark.metrics["test_loss"] != evaluate(tmp_path / "r").metrics["test_loss"]
        with pytest.raises(ConfigError, match=r"keep the samples of each split: dataset\.gain\)"):
            evaluate(tmp_path / "r", overrides=["dataset.gain=0.0", "dataset.split_seed=1"])
        assert spike("eval", tmp_path / "r", "--set", "dataset.split_seed=1").exit_code != 0
        done = spike("eval", tmp_path / "r", "--set", "dataset.split_seed=1", "--other-samples")
        assert done.exit_code == 0, done.output
        assert "dataset.split_seed may change which samples 'test' holds" in done.stderr


def test_a_split_that_the_run_does_not_have(tmp_path):
    tables = {**TABLES, "trainer": {"epochs": 0, "val_share": 0.0}, "run": {"report": False}}
    spikecore.run(tables, out=tmp_path / "r")
    with pytest.raises(ConfigError, match=r"has no split 'val' \(its splits: train, test\)"):
        evaluate(tmp_path / "r", split="val")
    with use(Registry(blocking=Blocking())) as mine:
        mine.register("trainer", "walker", Walker)
        spikecore.run({"trainer": {"name": "walker", "epochs": 1}, "run": {"report": False}}, out=tmp_path / "w")
        assert list(evaluate(tmp_path / "w").metrics) == ["test_return"]
        says = (
            "learns in an environment, which has no splits, so there is no 'val' .*: leave out --split .* environment"
        )
        with pytest.raises(ConfigError, match=says):
            evaluate(tmp_path / "w", split="val")
        mine.register("trainer", "alone", Alone)
        spikecore.run({"trainer": {"name": "alone", "epochs": 1}, "run": {"report": False}}, out=tmp_path / "a")
        with pytest.raises(ConfigError, match=r"learns without a dataset, which has no splits, .*: leave out --split"):
            evaluate(tmp_path / "a", split="train")


class Fleeting(Digits):
    """Digits whose file may be gone."""

    is_there = True

    def split(self, name):
        if not self.is_there:
            raise DatasetError("/data/fleeting: holds no digits")
        return super().split(name)


def test_data_that_are_gone_are_said_plainly_and_the_net_still_loads(tmp_path):
    with use(Registry(blocking=Blocking())) as mine:
        gone = type("Gone", (Fleeting,), {})
        mine.register("dataset", "fleeting", gone)
        tables = {"dataset": {"name": "fleeting"}, "model": {"name": "mlp"}, "trainer": {"epochs": 0}}
        spikecore.run({**tables, "run": {"report": False}}, out=tmp_path / "r")
        gone.is_there = False
        with pytest.raises(DatasetError) as error:
            evaluate(tmp_path / "r")
        assert "the data of this run (dataset 'fleeting') cannot be read" in str(error.value)
        assert "/data/fleeting: holds no digits" in str(error.value)
        assert f"spikecore.load({str(tmp_path / 'r')!r})" in str(error.value)
        assert load(tmp_path / "r")(torch.zeros(2, 1, 1, 8, 8)).shape == (2, 1, 10)


FAR = """
from spikecore.backends.reference import TorchBackend
class Far(TorchBackend):
    pass
"""


def test_a_backend_plugin_that_is_gone_is_named_with_its_distribution_and_an_override(tmp_path, monkeypatch):
    site = tmp_path / "site"
    entries = {"spikecore.backends": {"far": "far_backend:Far"}}
    fake_distribution(site, "spikecore-far", entries, modules={"far_backend.py": FAR})
    tables = {**TABLES, "trainer": {"epochs": 0}, "backend": {"name": "far"}, "run": {"report": False}}
    with monkeypatch.context() as patch:
        patch.syspath_prepend(site)
        with use(Registry(blocking=Blocking())):
            right = spikecore.run(tables, out=tmp_path / "r").metrics
    with use(Registry(blocking=Blocking())):
        with pytest.raises(ConfigError) as error:
            evaluate(tmp_path / "r")
        for text in ("no backend 'far'", "spikecore-far 1.0: install it", "--set backend.name=torch"):
            assert text in str(error.value)
        measured = evaluate(tmp_path / "r", overrides=["backend.name=torch"]).metrics
        assert measured == {name: right[name] for name in measured}


def test_an_evaluation_is_plain_data(finished):
    out, _ = finished
    plain = dataclasses.replace(evaluate(out), metrics={"test_loss": float("nan")}).to_plain()
    assert json.loads(json.dumps(plain, allow_nan=False))["metrics"] == {"test_loss": None}
