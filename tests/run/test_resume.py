"""Going on with a run: to the same bits, from what is verified, and only where that is right."""

import errno
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import spikecore
from spikecore.cli import spike as spike_command
from spikecore.errors import CheckpointError, ConfigError, RunError
from spikecore.interfaces.trainer import TrainerCapabilities
from spikecore.models.mlp import MLP
from spikecore.registry import Blocking, Registry, use
from spikecore.run import compare, provenance
from spikecore.run import record as records
from spikecore.run.config import resolve
from spikecore.run.context import Context
from spikecore.run.experiment import evaluate, load, resume
from spikecore.run.files import DirectoryLock
from spikecore.run.report import write_report
from spikecore.run.signals import handling, terminable
from spikecore.trainers.classify import Classify
from tests.crashing import Server

SMALL = {
    "run": {"checkpoint_every_steps": 2, "report": False},
    "dataset": {"test_share": 0.3},
    "encoder": {"name": "poisson", "num_steps": 2},
    "model": {"name": "mlp", "hidden": [8]},
    "trainer": {"epochs": 3, "batch_size": 128},
}
OPTIONS = [
    word
    for text in ("dataset.test_share=0.3", "model.name=mlp", "model.hidden=[8]", "trainer.epochs=3", "run.report=false")
    for word in ("--set", text)
]


class Restless(MLP):
    """Draws from every global generator while it trains."""

    def forward(self, x):
        if self.training:
            x = torch.nn.functional.dropout(x, 0.2) * (1 + 0.1 * np.random.rand()) * (1 + 0.1 * random.random())
        return super().forward(x)


NEURON = '''
import spikecore
from spikecore.nn import LIF
@spikecore.register("neuron", "mine")
class Mine(LIF):
    """Mine."""
'''


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # nets this small only wait for the others
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_registry():
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("model", "restless", Restless)
        yield registry


def small(**tables):
    merged = {table: {**SMALL.get(table, {}), **tables.get(table, {})} for table in {*SMALL, *tables}}
    return resolve({**merged, "model": tables.get("model", SMALL["model"])})


def weights(directory, which="last"):
    return {name: value.clone() for name, value in load(directory, which).state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stopped_at(monkeypatch, count, resolved, out):
    """A run that is interrupted at a safe point, in the middle of an epoch for most counts."""
    checkpoint = Context.checkpoint

    def stop(self, score=None):
        self.stopping = self.count + 1 == count
        checkpoint(self, score)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            spikecore.run(resolved, out=out)
    return out


def record_of(directory):
    return json.loads((Path(directory) / "run.json").read_text())


def names(directory):
    return sorted(path.name for path in (Path(directory) / "checkpoints").iterdir())


@pytest.mark.parametrize("model", [{"name": "restless", "hidden": [8]}, {"name": "convnet", "channels": [4]}])
@pytest.mark.parametrize("trainer", [{"optimizer": "adamw"}, {"optimizer": "sgd", "schedule": "constant"}])
@pytest.mark.parametrize("count", [5, 11, 20])
def test_resumed_anywhere_to_the_same_bits(model, trainer, count, tmp_path, monkeypatch):
    resolved = small(model=model, trainer={**trainer, "epochs": 2})
    whole = spikecore.run(resolved, out=tmp_path / "whole")
    stopped_at(monkeypatch, count, resolved, tmp_path / "parts")
    assert names(tmp_path / "parts")[-1] == f"checkpoint-{count:08d}"
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    again = resume(tmp_path / "parts")
    assert again.metrics == whole.metrics
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_every_interruption_stands_in_the_record(tmp_path, monkeypatch):
    stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    record = record_of(tmp_path / "r")
    assert (record["status"], record["exit_status"]) == ("interrupted", 130)
    assert record["timings_s"]["total"] > 0
    assert list(record["backends"]) == ["layers.1"]
    resume(tmp_path / "r")
    record = record_of(tmp_path / "r")
    assert (record["status"], record["exit_status"]) == ("finished", 0)
    (entry,) = record["resumes"]
    assert (entry["after"], entry["checkpoint"]) == ("interrupted", "checkpoint-00000005")
    assert entry["environment"]["torch"] == torch.__version__
    assert entry["differs"] == []


def test_the_record_tells_what_ran(tmp_path):
    spikecore.run(small(trainer={"epochs": 1}), out=tmp_path / "r")
    record = record_of(tmp_path / "r")
    config = (tmp_path / "r/config.toml").read_text()
    assert record["config_sha256"] == records.digest(config)
    assert record["config"]["trainer"]["batch_size"] == 128
    assert record["components"]["trainer"]["target"] == "spikecore.trainers.classify:Classify"
    plugins = {plugin["id"]: plugin for plugin in record["plugins"]}
    assert plugins["core"]["target"] == "spikecore.plugin"
    assert plugins["core"]["version"] == spikecore.__version__
    assert record["backends"]["layers.1"] | {"asked": "auto"} == record["backends"]["layers.1"]
    assert record["backends"]["layers.1"]["reason"]
    environment = record["environment"]
    assert environment["num_threads"] == torch.get_num_threads()
    assert environment["device_name"]
    assert environment["pid"] == os.getpid()
    assert len(record["git"]["commit"]) == 40 or record["git"] is None
    assert {"forward", "backward", "data", "evaluate", "checkpoint", "probe", "total"} <= set(record["timings_s"])
    parts = sum(seconds for part, seconds in record["timings_s"].items() if part != "total")
    assert parts <= record["timings_s"]["total"]


def test_a_finished_run_is_left_alone(tmp_path, capsys):
    result = spikecore.run(small(trainer={"epochs": 1}), out=tmp_path / "r")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*") if path.name != "run.lock"}
    assert resume(tmp_path / "r").metrics == result.metrics
    assert "finished already" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_resumed_run_tells_the_time_left_from_its_first_epoch_on(tmp_path, monkeypatch, capsys):
    out = stopped_at(monkeypatch, 13, small(), tmp_path / "r")  # in the second epoch of three
    capsys.readouterr()
    resume(out)
    epochs = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert [line[:9] for line in epochs] == ["epoch 2/3", "epoch 3/3"]
    assert epochs[0].endswith(" left")


def test_the_configuration_of_an_extended_run_is_that_of_now(tmp_path, capsys):
    out = tmp_path / "r"
    spikecore.run(small(trainer={"epochs": 1}), out=out)
    resume(out, overrides=["trainer.epochs=2"])
    text = (out / "config.toml").read_text()
    assert "epochs = 2" in text
    assert record_of(out)["config_sha256"] == records.digest(text)
    assert resolve(out / "config.toml").tables["trainer"].epochs == 2
    assert record_of(out)["config"]["trainer"]["epochs"] == 2
    assert record_of(out)["changes"] == ["trainer.epochs=2"]
    (out / "config.toml").unlink()  # a run that died between its record and its configuration
    resume(out, overrides=["trainer.epochs=3"])
    assert "epochs = 3" in (out / "config.toml").read_text()
    assert [line["epoch"] for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())] == [1, 2, 3]


def test_a_longer_schedule_is_the_same_as_one_planned_so(tmp_path):
    constant = {"schedule": "constant"}
    spikecore.run(small(trainer={**constant, "epochs": 1}), out=tmp_path / "parts")
    longer = resume(tmp_path / "parts", overrides=["trainer.epochs=3", "run.keep_last=5"])
    whole = spikecore.run(small(trainer={**constant, "epochs": 3}), out=tmp_path / "whole")
    assert longer.metrics == whole.metrics
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert record_of(tmp_path / "parts")["changes"] == ["trainer.epochs=3", "run.keep_last=5"]
    resume(tmp_path / "parts", overrides=["trainer.epochs=4"])  # what was changed before stays changed
    with pytest.raises(ConfigError, match=r"trainer\.epochs: may only grow when a run is resumed, from 4"):
        resume(tmp_path / "parts", overrides=["trainer.epochs=3"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.lr=0.1", r"trainer\.lr: cannot change in the middle of a run, from 0\.005"),
        ("run.seed=1", r"run\.seed: cannot change"),
        ("model.hidden=[9]", r"model\.hidden: cannot change"),
        ("model.name=convnet", r"model\.name: 'mlp' cannot become 'convnet'"),
        ("trainer.epochs=2", "may only grow"),
        ("trainer.epoch=9", "did you mean 'epochs'"),
        ("run.keep_last=0", "must be >= 1"),
    ],
)
def test_what_may_not_change(override, says, tmp_path, monkeypatch):
    stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    before = (tmp_path / "r/run.json").read_bytes()
    with pytest.raises(ConfigError, match=says) as caught:
        resume(tmp_path / "r", overrides=[override])
    if "cannot" in says:
        assert "--set may change trainer.epochs, run.checkpoint_every_s" in str(caught.value)
    assert (tmp_path / "r/run.json").read_bytes() == before


def test_a_damaged_checkpoint_is_refused_and_the_good_one_before_it_offered(tmp_path, monkeypatch):
    whole = spikecore.run(small(), out=tmp_path / "whole")
    stopped_at(monkeypatch, 25, small(), tmp_path / "r")
    kept = [name for name in names(tmp_path / "r") if name.startswith("checkpoint-")]
    damaged = tmp_path / "r/checkpoints" / kept[-1] / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"truncated.*\n.*newest good one before it is {kept[-2]}: ask for it"):
        resume(tmp_path / "r")
    assert names(tmp_path / "r") == kept
    for refused in (load, evaluate):
        with pytest.raises(CheckpointError, match=kept[-2]):
            refused(tmp_path / "r")
    assert load(tmp_path / "r", kept[-2])
    assert resume(tmp_path / "r", checkpoint=kept[-2]).metrics == whole.metrics
    assert equal(weights(tmp_path / "r"), weights(tmp_path / "whole"))
    assert record_of(tmp_path / "r")["resumes"][0]["dropped_checkpoints"] == [kept[-1]]
    assert (tmp_path / "r/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_when_all_are_damaged_none_is_offered(tmp_path, monkeypatch):
    stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    for path in (tmp_path / "r/checkpoints").rglob("checkpoint.json"):
        path.write_text("{")
    with pytest.raises(CheckpointError, match=r"is damaged.*\n.*No earlier checkpoint is good either"):
        resume(tmp_path / "r")


def test_another_model_is_refused_with_the_differing_keys(tmp_path, monkeypatch, own_registry):
    stopped_at(monkeypatch, 5, small(model={"name": "restless", "hidden": [8]}), tmp_path / "r")

    class Other(MLP):
        """What a new version of a plugin may bring."""

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.extra = torch.nn.Linear(2, 2)
            self.layers[0] = torch.nn.Linear(64, 9)

    own_registry.register("model", "restless", Other, replace=True)
    for refused in (resume, load):
        with pytest.raises(CheckpointError, match="is of another model") as caught:
            refused(tmp_path / "r")
        assert "extra.weight: missing from the checkpoint" in str(caught.value)
        assert "layers.0.bias: (8,) float32 in the checkpoint, (9,) float32 in the net" in str(caught.value)


def test_an_edited_configuration_is_refused_and_put_back_by_resume(tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    text = (out / "config.toml").read_text()
    (out / "config.toml").write_text(text.replace("tau = 2.0", "tau = 3.0"))
    for refused in (load, evaluate):
        with pytest.raises(ConfigError, match=r"was edited after the run began.*`spike run --resume .*/r` rebuilds"):
            refused(out)
    (out / "config.toml").unlink()  # a run may have died just before it was written; the record has it too
    resume(out)
    assert (out / "config.toml").read_text() == text


def test_a_configuration_that_is_no_text_any_more_is_refused(tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    with (out / "config.toml").open("ab") as file:
        file.write(b"\xff")
    for refused in (load, evaluate):
        with pytest.raises(ConfigError, match="was edited after the run began"):
            refused(out)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return bytes(data)


def test_whoever_misses_a_record_is_told_what_rebuilds_it(tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    (out / "run.json").unlink()
    for read in (evaluate, load, write_report):
        with pytest.raises(ConfigError, match=r"run\.json: is missing, .*; `spike run --resume .*/r` rebuilds it"):
            read(out)


def test_whoever_reads_a_damaged_record_is_told_what_rebuilds_it(tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    flipped(out / "run.json")
    for read in (evaluate, load, write_report):
        with pytest.raises(ConfigError, match=r"run\.json: is damaged.*; `spike run --resume .*/r` rebuilds it from a"):
            read(out)
    for path in (out / "checkpoints").glob("*/run.json"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"run\.json: is damaged") as error:
        resume(out)
    assert "--resume" not in str(error.value), "it is of no use here"


@pytest.mark.parametrize("way", ["flip", "remove", "link", "nest"])
def test_damaged_files_are_rebuilt_from_a_checkpoint(way, tmp_path, monkeypatch, capsys):
    whole = spikecore.run(small(), out=tmp_path / "whole")
    out = stopped_at(monkeypatch, 20, small(), tmp_path / "r")
    before = {name: (out / name).read_bytes() for name in ("run.json", "config.toml", "metrics.jsonl")}
    there = {}
    for name in before:
        if way == "flip":
            there[name] = flipped(out / name)
        elif way == "nest":
            there[name] = b"[" * 100_000
            (out / name).write_bytes(there[name])
        else:
            (out / name).unlink()
        if way == "link":
            (tmp_path / name).write_bytes(b"precious")
            (out / name).symlink_to(tmp_path / name)
    assert resume(out).metrics == whole.metrics
    told = capsys.readouterr().err
    for name in ("run.json", "metrics.jsonl"):
        assert f"{name} was damaged or edited: rebuilt from checkpoint-" in told
    for name, data in there.items():
        assert (out / f"{name}.damaged").read_bytes() == data
    if way == "link":
        assert [(tmp_path / name).read_bytes() for name in before] == [b"precious"] * 3
    assert (out / "config.toml").read_bytes() == before["config.toml"]
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert record_of(out)["id"] == json.loads(before["run.json"])["id"]
    assert equal(weights(out), weights(tmp_path / "whole"))


@pytest.mark.parametrize("schema", [3, 6])
def test_a_record_of_another_schema_is_not_taken_for_damaged(schema, tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 20, small(), tmp_path / "r")
    path = out / "run.json"
    path.write_text(records.sealed({**json.loads(path.read_text()), "schema": schema}))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f"is of schema {schema}, written by spikecore .*, which reads 5"):
        resume(out)
    assert path.read_bytes() == before
    assert not (out / "run.json.damaged").exists()


def test_a_flipped_bit_in_the_schema_is_damage(tmp_path, monkeypatch, capsys):
    out = stopped_at(monkeypatch, 20, small(), tmp_path / "r")
    path = out / "run.json"
    path.write_text(path.read_text().replace('"schema": 5', '"schema": 6'))
    with pytest.raises(ConfigError, match="is damaged or was edited: its schema is 5, and it says 6"):
        load(out)
    resume(out)
    assert "run.json was damaged or edited: rebuilt from checkpoint-" in capsys.readouterr().err


def test_nothing_is_rebuilt_from_the_checkpoint_of_another_run(tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    other = stopped_at(monkeypatch, 20, small(run={"seed": 9}), tmp_path / "other")
    (other / "checkpoints" / names(other)[-1]).rename(out / "checkpoints" / names(other)[-1])
    before = (out / "run.json").read_bytes(), (out / "config.toml").read_bytes()
    with pytest.raises(CheckpointError, match="belongs to run"):
        resume(out)
    assert ((out / "run.json").read_bytes(), (out / "config.toml").read_bytes()) == before


@pytest.mark.parametrize("fate", ["removed", "replaced"])
def test_a_directory_that_vanishes_is_an_error_at_the_next_write(fate, tmp_path, own_registry):
    class Vanishing(Classify):
        def evaluate(self, task, context, split="test"):
            (tmp_path / "r").rename(tmp_path / "away")
            if fate == "replaced":
                (tmp_path / "r").mkdir()
            return super().evaluate(task, context, split)

    own_registry.register("trainer", "vanishing", Vanishing)
    with pytest.raises(RunError, match=r"r: was removed or replaced while the run went on.*--resume"):
        spikecore.run(small(trainer={"name": "vanishing"}), out=tmp_path / "r")
    assert list(tmp_path.glob("r/*")) == []  # nothing is written to what took its place
    assert record_of(tmp_path / "away")["status"] == "running"


def test_a_folder_of_checkpoints_that_is_a_link_is_refused(tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    (out / "checkpoints").rename(tmp_path / "elsewhere")
    (out / "checkpoints").symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    for refused in (resume, load):
        with pytest.raises(CheckpointError, match="checkpoints: is a link, which is not followed"):
            refused(out)
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == before


def test_a_checkpoint_that_is_a_link_is_neither_read_nor_changed(tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    older = names(out)[0]
    away = tmp_path / "away"
    (out / "checkpoints" / older).rename(away)
    (out / "checkpoints" / older).symlink_to(away)
    (away / "large.safetensors").write_text("of somebody")
    with pytest.raises(CheckpointError, match=f"{older}: is a link, which is not followed"):
        load(out, older)
    before = {path.name: path.read_bytes() for path in away.iterdir()}
    resume(out)
    assert {path.name: path.read_bytes() for path in away.iterdir()} == before
    (out / "checkpoints" / "checkpoint-00009999").symlink_to(away)
    with pytest.raises(CheckpointError, match="checkpoint-00009999: is a link"):
        load(out)


def test_a_folder_of_shown_values_that_is_a_link_is_not_shown(tmp_path):
    out = tmp_path / "r"
    spikecore.run(small(trainer={"epochs": 1}), out=out)
    (out / "shown").rename(tmp_path / "away")
    (out / "shown").symlink_to(tmp_path / "away")
    page = write_report(out).read_text()
    assert "shown is a link, which is not followed" in page
    assert "confusion" not in page


@pytest.mark.parametrize(
    "odd",
    [
        {"files": {}},
        {"files": []},
        {"log": 3},
        {"log": None},
        {"log": {"bytes": -1, "sha256": hashlib.sha256().hexdigest()}},
        {"timings_s": None},
        {"timings_s": {"loop": "x"}},
        {"state": []},
        {"state": {}},
        {"model": {"$tuple": 3}},
        {"model": 7},
        {"score": "high"},
        {"count": None},
        {"kept": None},
    ],
    ids=str,
)
def test_a_signed_index_of_other_types_is_refused(odd, one_checkpoint):
    from spikecore.run.checkpoint import _digest

    path = next((one_checkpoint / "checkpoints").iterdir()) / "checkpoint.json"
    body = {**json.loads(path.read_text()), **odd}
    body.pop("sha256")
    before = path.read_text()
    path.write_text(json.dumps({**body, "sha256": _digest(body)}))
    try:
        with pytest.raises(CheckpointError):
            resume(one_checkpoint)
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("place", "odd", "says"),
    [
        (
            ("state", "trainer", "epoch"),
            -5,
            "training failed between this checkpoint and the next safe point: IndexError",
        ),
        (("state", "trainer", "order"), "x", "training failed between .* TypeError"),
        (("state", "trainer", "optimizer", "param_groups", 0, "betas"), [], "training failed between .* ValueError"),
        (("state", "trainer", "optimizer", "state"), {"$items": [[0, 7]]}, "training failed between .* TypeError"),
        (
            ("state", "shown"),
            [{"name": 1, "kind": "bars", "value": {}}],
            "cannot be restored: ContractError: show: a name",
        ),
    ],
    ids=str,
)
def test_a_signed_state_of_other_types_names_the_checkpoint(place, odd, says, one_checkpoint, tmp_path):
    from spikecore.run.checkpoint import _digest

    out = tmp_path / "r"
    shutil.copytree(one_checkpoint, out)
    path = next((out / "checkpoints").iterdir()) / "checkpoint.json"
    body = json.loads(path.read_text())
    at = body
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = odd
    body.pop("sha256")
    path.write_text(json.dumps({**body, "sha256": _digest(body)}))
    with pytest.raises(CheckpointError, match=says):
        resume(out)


def test_the_original_of_such_an_error_is_shown_where_it_is_asked_for(tmp_path, monkeypatch, own_registry):
    """A trainer that fails after its first safe point is not the checkpoint's fault, nor is one that is debugged."""

    class Failing(Classify):
        after = 0

        def _train_epoch(self, task, net, context):
            if self.after == 0:
                raise ValueError("mine")
            type(self).after -= 1
            return super()._train_epoch(task, net, context)

    own_registry.register("trainer", "failing", Failing)
    Failing.after = 9
    out = stopped_at(monkeypatch, 2, small(trainer={"name": "failing", "epochs": 3}), tmp_path / "r")
    Failing.after = 0
    with pytest.raises(CheckpointError, match=r"ValueError: mine.*SPIKE_PLUGIN_STRICT=1") as caught:
        resume(out)
    assert isinstance(caught.value.__cause__, ValueError)
    monkeypatch.setenv("SPIKE_PLUGIN_STRICT", "1")
    with pytest.raises(ValueError, match="mine"):
        resume(out)
    monkeypatch.delenv("SPIKE_PLUGIN_STRICT")
    Failing.after = 1
    with pytest.raises(ValueError, match="mine"):
        resume(out)


@pytest.fixture(scope="module")
def one_checkpoint(tmp_path_factory):
    with use(Registry(blocking=Blocking())), pytest.MonkeyPatch.context() as patch:
        out = stopped_at(patch, 2, small(), tmp_path_factory.mktemp("one") / "r")
    assert len(names(out)) == 1
    return out


@pytest.mark.parametrize("lost", ["id", "status", "config", "files", "timings_s"])
def test_a_record_that_lost_a_part_is_refused_by_every_reader(lost, tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    record = record_of(out)
    del record[lost]
    (out / "run.json").write_text(records.sealed(record))
    for refused in (load, evaluate, write_report, lambda directory: compare.read([directory])):
        with pytest.raises(ConfigError, match=rf"run\.json: is damaged: it lacks {lost};"):
            refused(out)


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record["config"]["trainer"].update(lr=0.5),
        lambda record: record["components"]["model"].pop("target"),
        lambda record: record.update(resumes=None),
        lambda record: record.pop("record_sha256"),
    ],
)
def test_a_record_that_was_edited_is_refused_by_every_reader(edit, tmp_path, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    (out / "config.toml").unlink()
    record = record_of(out)
    edit(record)
    (out / "run.json").write_text(json.dumps(record))
    for refused in (load, evaluate, write_report, lambda directory: compare.read([directory])):
        with pytest.raises(ConfigError, match=r"run\.json: is damaged or was edited"):
            refused(out)


def test_a_plugin_that_came_or_was_switched_off_is_told():
    here = dict.fromkeys(provenance.MATTERS, "1")

    def plugin(name, status="ok"):
        return records.PluginRecord(name, name, "0.1.0", "", "", status, "", hooks=False)

    before = [plugin("a"), plugin("b"), plugin("c", "blocked")]
    after = [plugin("a"), plugin("b", "blocked"), plugin("c", "blocked"), plugin("d")]
    assert provenance.changed_environment(here, before, {**here, "torch": "2"}, after) == [
        "torch was 1, is 2",
        "plugin b was 0.1.0, is not in use",
        "plugin d was not in use, is 0.1.0",
    ]


def test_metrics_that_were_edited_are_noticed(tmp_path, monkeypatch, capsys):
    out = stopped_at(monkeypatch, 20, small(), tmp_path / "r")
    lines = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(lines.replace("0.", "1."))
    assert (
        "does not begin"
        in CliRunner().invoke(spike_command, ["run", "--resume", str(out), "--dry-run"]).exception.args[0]
    )
    (out / "metrics.jsonl").write_text(lines + '{"epoch": 9}\n{"epo')
    resume(out)
    assert record_of(out)["resumes"][0]["dropped_lines"] == 2
    assert '"epoch": 9' not in (out / "metrics.jsonl").read_text()


def test_one_process_at_a_time(tmp_path, monkeypatch, spike):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    with DirectoryLock(out):
        done = spike("run", "--resume", "r")
        assert done.returncode == 2
        assert f"in use by process {os.getpid()}" in done.stderr
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            resume(out)
        assert records.status_of(out, "running") == "running"
    assert records.status_of(out, "running") == "died"
    assert record_of(out)["resumes"] == []
    resume(out)


def test_clocks_that_move_back_change_nothing(tmp_path, monkeypatch):
    whole = spikecore.run(small(), out=tmp_path / "whole")
    stopped_at(monkeypatch, 15, small(), tmp_path / "r")
    for back, path in enumerate(sorted((tmp_path / "r").rglob("*"), reverse=True)):
        os.utime(path, (4e9 + back * 1000, 4e9 + back * 1000))  # the newest checkpoint looks the oldest

    class Back(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(1980, 1, 1, tzinfo=timezone.utc)

    for module in ("record", "checkpoint", "directory"):
        monkeypatch.setattr(f"spikecore.run.{module}.datetime", Back)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert resume(tmp_path / "r").metrics == whole.metrics
    assert record_of(tmp_path / "r")["resumes"][0]["checkpoint"] == "checkpoint-00000015"
    assert equal(weights(tmp_path / "r"), weights(tmp_path / "whole"))


def test_generated_names_that_are_taken_are_drawn_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = iter(["aaaa", "an id", "aaaa", "bbbb", "an id"])

    class Fixed(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2020, 1, 1, tzinfo=timezone.utc)

    monkeypatch.setattr("spikecore.run.directory.datetime", Fixed)
    monkeypatch.setattr("spikecore.run.directory.secrets.token_hex", lambda size: next(drawn))
    made = [spikecore.run(small(trainer={"epochs": 0})).directory.name for _ in range(2)]
    assert [name[-4:] for name in made] == ["aaaa", "bbbb"]


class Pressed(Classify):
    """Ctrl-C is pressed in the middle of a step."""

    times, signal = 1, signal.SIGINT

    def evaluate(self, task, context, split="test"):
        for _ in range(self.times):
            signal.raise_signal(self.signal)
        return super().evaluate(task, context, split)


@pytest.fixture
def heeds_ctrl_c():
    """As on a terminal, also where the tests run in the background of a shell, which has its jobs ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("times", "last"), [(1, "checkpoint-00000010"), (2, "checkpoint-00000008")])
def test_ctrl_c_stops_at_the_next_safe_point_and_pressed_again_at_once(
    times, last, number, tmp_path, own_registry, capsys, heeds_ctrl_c
):
    own_registry.register("trainer", "pressed", type("Pressed", (Pressed,), {"times": times, "signal": number}))
    whole = spikecore.run(small(), out=tmp_path / "whole")
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        spikecore.run(small(trainer={"name": "pressed"}), out=tmp_path / "r")
    assert signal.getsignal(number) is before
    assert "stopping at the next safe point" in capsys.readouterr().err
    assert record_of(tmp_path / "r")["exit_status"] == 130
    assert names(tmp_path / "r")[-1] == last
    own_registry.register("trainer", "pressed", Classify, replace=True)
    assert resume(tmp_path / "r").metrics == whole.metrics


def test_sigterm_interrupts_what_cannot_be_resumed_too(tmp_path, own_registry):
    members = {"signal": signal.SIGTERM, "capabilities": TrainerCapabilities(resumable=False)}
    own_registry.register("trainer", "pressed", type("Once", (Pressed,), members))
    with pytest.raises(KeyboardInterrupt):
        spikecore.run(small(trainer={"name": "pressed"}), out=tmp_path / "r")
    assert record_of(tmp_path / "r")["status"] == "interrupted"


def test_sigterm_is_left_to_its_owner_and_ends_forked_children():
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("owner"))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
        assert told == ["owner"]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with handling(lambda *_: told.append("run"), signal.SIGTERM):
            signal.raise_signal(signal.SIGTERM)
            child = os.fork()
            if not child:
                signal.raise_signal(signal.SIGTERM)
                os._exit(0)  # a pool that ends its children would wait for ever
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert told == ["owner", "run"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_loss_that_is_nan_from_the_first_step_is_noted(tmp_path, own_registry, capsys):
    class Undefined(Classify):
        def fit(self, task, context):
            for epoch in (1, 2):
                context.log(epoch=epoch, loss=float("nan"))
                context.epoch_end(epoch, {"loss": float("nan")})
                context.checkpoint()
            return {"loss": float("nan"), "score": float("inf")}

    own_registry.register("trainer", "undefined", Undefined)
    spikecore.run(small(trainer={"name": "undefined"}), out=tmp_path / "r")
    record = record_of(tmp_path / "r")
    assert record["status"] == "finished"
    assert record["metrics"] == {"loss": None, "score": None}
    notes = [note for note in record["notes"] if note.startswith("metric ")]
    assert [note.split(":")[0] for note in notes] == ["metric 'loss' became nan", "metric 'score' became inf"]
    assert capsys.readouterr().err.count("metric 'loss' became nan") == 1


def test_an_average_that_is_not_finite_is_noted(tmp_path, own_registry):
    class Averaged(Classify):
        def fit(self, task, context):
            average = {name: value * float("nan") for name, value in task.model.state_dict().items()}
            for epoch in (1, 2):
                context.log(epoch=epoch, loss=1.0)
                context.checkpoint(score=float(epoch), weights=average)
            return {"loss": 1.0}

    own_registry.register("trainer", "averaged", Averaged)
    spikecore.run(small(trainer={"name": "averaged"}), out=tmp_path / "r")
    (note,) = (note for note in record_of(tmp_path / "r")["notes"] if "in place of the model's own" in note)
    assert "nan or infinite" in note


def test_scores_that_are_nan_are_told_once(tmp_path, own_registry, capsys):
    class Unscored(Classify):
        def fit(self, task, context):
            average = dict(task.model.state_dict())
            for epoch in (1, 2, 3):
                context.log(epoch=epoch, loss=1.0)
                context.checkpoint(score=float("nan"), weights=average)
            return {"loss": 1.0}

    own_registry.register("trainer", "unscored", Unscored)
    spikecore.run(small(trainer={"name": "unscored"}), out=tmp_path / "r")
    (note,) = (note for note in record_of(tmp_path / "r")["notes"] if "never `best`" in note)
    assert "a score given to checkpoint() was nan or infinite" in note
    assert capsys.readouterr().err.replace("\n ", "").count("a score given to checkpoint()") == 1
    with pytest.raises(CheckpointError, match="no checkpoint has a score"):
        load(tmp_path / "r", "best")


def test_ctrl_c_on_the_command_line(tmp_path, heeds_ctrl_c):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    long = ["--set", "trainer.epochs=100000", "--set", "encoder.num_steps=2"]
    command = [sys.executable, "-m", "spikecore", "run", *OPTIONS, *long, "--out", str(tmp_path / "r")]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "r/metrics.jsonl").is_file():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    record = record_of(tmp_path / "r")
    assert (record["status"], record["exit_status"]) == ("interrupted", 130)
    done = CliRunner().invoke(spike_command, ["run", "--resume", str(tmp_path / "r"), "--dry-run"])
    assert done.output == f"sound: would go on from {names(tmp_path / 'r')[-1]}\n"


def test_a_trainer_that_cannot_be_resumed_says_so(tmp_path, monkeypatch, own_registry):
    out = stopped_at(monkeypatch, 5, small(), tmp_path / "r")
    own_registry.register(
        "trainer", "once", type("Once", (Classify,), {"capabilities": TrainerCapabilities(resumable=False)})
    )
    out = stopped_at(monkeypatch, 5, small(trainer={"name": "once"}), tmp_path / "s")
    with pytest.raises(ConfigError, match="trainer Once cannot be resumed"):
        resume(out)
    assert load(out)


def test_files_that_a_run_was_made_with_are_needed_again(tmp_path, monkeypatch, own_registry):
    file = tmp_path / "mine.py"
    source = NEURON
    file.write_text(source)
    own_registry.load_file(file)
    out = stopped_at(monkeypatch, 5, small(neuron={"name": "mine"}), tmp_path / "r")
    assert record_of(out)["files"] == [
        {"path": str(file), "sha256": records.digest(source), "components": ["neuron:mine"]}
    ]
    with use(Registry(blocking=Blocking())):
        for refused in (resume, load, evaluate):
            with pytest.raises(ConfigError, match=r"made with --load .*mine\.py.*neuron:mine.*was not given"):
                refused(out)
    file.write_text(source + "# changed\n")
    digests = records.digest(source)[:12], records.digest(source + "# changed\n")[:12]
    with (
        use(Registry(blocking=Blocking())),
        pytest.raises(
            ConfigError, match=rf"mine\.py has changed since: expected sha256 {digests[0]}, got {digests[1]}"
        ),
    ):
        load(out)
    with use(Registry(blocking=Blocking())) as changed:
        changed.load_file(file)
        for refused in (resume, load, evaluate):
            with pytest.raises(
                ConfigError, match=rf"mine\.py has changed since: expected sha256 {digests[0]}, got {digests[1]}"
            ):
                refused(out)
    file.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with use(Registry(blocking=Blocking())):
        __import__("mine")  # as a notebook would
        assert load(out)
    sys.modules.pop("mine")
    resume(out)


PARTS = {
    "dataset.py": """
from spikecore import register
from spikecore.registry import registry
@register("dataset", "near")
class Near(registry().load("dataset", "digits")):
    pass
""",
    "trainer.py": """
from spikecore import register
from spikecore.trainers.classify import Classify
@register("trainer", "my-classify")
class Mine(Classify):
    pass
""",
    "surrogate.py": """
from spikecore import register
from spikecore.nn.surrogates import Sigmoid
@register("surrogate", "my-sigmoid")
class Mine(Sigmoid):
    pass
""",
}


def test_a_net_needs_only_the_files_that_define_it(tmp_path, own_registry):
    """Those of the data and the trainer may be gone; one that defines what an option names may not."""
    for name, text in PARTS.items():
        (tmp_path / name).write_text(text)
        own_registry.load_file(tmp_path / name)
    out = tmp_path / "r"
    tables = {"dataset": {"name": "near"}, "trainer": {"name": "my-classify"}, "neuron": {"surrogate": "my-sigmoid"}}
    spikecore.run(small(**tables), out=out)
    (tmp_path / "dataset.py").unlink()
    (tmp_path / "trainer.py").write_text("# changed")
    with use(Registry(blocking=Blocking())) as here:
        with pytest.raises(ConfigError, match=r"surrogate\.py .*it defines surrogate:my-sigmoid.*was not given"):
            load(out)
        here.load_file(tmp_path / "surrogate.py")
        assert type(load(out).layers[1].config.surrogate).__name__ == "Mine"
        with pytest.raises(ConfigError, match=r"dataset\.py .*was not given"):
            evaluate(out)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resume", "r", "exp.toml"], "leave out CONFIG (exp.toml)"),
        (["--resume", "r", "--out", "x"], "leave out --out"),
        (["--checkpoint", "best"], "give --resume too"),
        (["--resume", "nowhere"], "holds no run.json"),
        (["--resume", "."], "holds no run.json"),
        (["--resume", __file__], "is no directory; name the directory that"),
    ],
)
def test_wrong_command_lines(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(spike_command, ["run", *arguments])
    assert done.exit_code != 0
    assert says in done.output + str(done.exception)
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Disk:
    """A small file system of its own."""

    path: Path

    def fill(self):
        with pytest.raises(OSError, match="No space left"):
            (self.path / "filler").write_bytes(b"x" * (1 << 24))


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root; the same faults are injected in the tests below")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_stops_the_run_and_harms_no_checkpoint(disk, tmp_path, monkeypatch):
    whole = spikecore.run(small(), out=tmp_path / "whole")
    checkpoint, good = Context.checkpoint, {}

    def fill(self, score=None):
        if self.count == 14:
            good[self.saved] = weights_of(self)
            disk.fill()  # the fault bites: this cannot write any more
        checkpoint(self, score)

    def weights_of(context):
        return weights(context.keeping.directory, context.saved)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "checkpoint", fill)
        with pytest.raises(
            RunError, match=r"No space left on device: free some space.*the last good checkpoint is"
        ) as e:
            spikecore.run(small(), out=disk.path / "r")
    (last,) = good
    assert last in str(e.value)
    assert equal(weights(disk.path / "r", last), good[last])
    (disk.path / "filler").unlink()
    assert resume(disk.path / "r").metrics == whole.metrics
    assert equal(weights(disk.path / "r"), weights(tmp_path / "whole"))


def test_a_read_only_directory_is_told_before_anything_is_done(disk, monkeypatch):
    out = stopped_at(monkeypatch, 5, small(), disk.path / "r")
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (disk.path / "x").touch()
    with pytest.raises(ConfigError, match=r"cannot be written: Read-only file system: make it writable, or copy"):
        resume(out)
    with pytest.raises(ConfigError, match="cannot be written"):
        spikecore.run(small(), out=disk.path / "s")
    assert evaluate(out)  # reading is all that this takes
    assert records.status_of(out, record_of(out)["status"]) == "interrupted"


def test_a_disk_that_fails_at_any_step(tmp_path):
    """The same with injected faults, which need no root: at steps on the disk all through the run."""
    with Server(tmp_path) as server:
        whole = server.spike("run", *OPTIONS, "--out", "whole")
        assert whole["status"] == 0, whole["stderr"]
        errors = itertools.cycle([errno.ENOSPC, errno.EROFS, errno.EIO])
        for step in (1, 2, 3, 9, whole["steps"] // 2, whole["steps"] * 3 // 4, whole["steps"]):
            name, error = f"r{step}", next(errors)
            failed = server.spike("run", *OPTIONS, "--out", name, error_at=(step, error))
            assert os.strerror(error) in failed["stderr"], "the fault did not bite"
            assert failed["status"] == (2 if step == 1 else 1), failed["stderr"]  # 2: nothing has begun
            assert "Traceback" not in failed["stderr"]
            again = server.spike("run", "--resume", name)
            if again["status"] == 2:
                assert "no run began here" in again["stderr"]
                again = server.spike("run", *OPTIONS, "--out", name)
            assert again["status"] == 0, again["stderr"]
            assert record_of(tmp_path / name)["metrics"] == record_of(tmp_path / "whole")["metrics"]
            assert equal(weights(tmp_path / name), weights(tmp_path / "whole"))
