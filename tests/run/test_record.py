"""`run.json`: what is written is read back, and what is not as it was written is refused with the reason."""

import dataclasses
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from spikecore.errors import ConfigError
from spikecore.run import provenance
from spikecore.run import record as records
from spikecore.run.record import (
    BackendRecord,
    ComponentRecord,
    DamageError,
    FileRecord,
    NetRecord,
    PluginRecord,
    Record,
    ResumeRecord,
)
from spikecore.run.typed import Mismatch, from_plain

PLUGIN = PluginRecord("p", "spikecore-p", "1.2", "p.plugin", "installed", "ok", "", hooks=True)
RESUMED = ResumeRecord("now", "died", None, 3, ["checkpoint-00000002"], ["trainer.epochs=3"], {"a": 1}, [PLUGIN], ["x"])


def full():
    """Every field with a value of its own."""
    return Record(
        seed=7,
        config_sha256="ab",
        config={"run": {"seed": 7, "hidden": [1, 2]}},
        task="environment",
        nets={"actor": NetRecord("model", (2, 3), 4)},
        classes=["zero"],
        samples={"train": 9, "test": 3},
        labels={"train": "0f"},
        components={"model": ComponentRecord("mlp", "m:MLP", "core", "spikecore", "0.1")},
        plugins=[PLUGIN],
        files=[FileRecord("mine.py", "cd", ("neuron:mine",))],
        environment={"device": "cpu", "spikecore": "0.1"},
        git={"commit": "ef", "dirty": True},
        header=["hello"],
        status="failed",
        exit_status=1,
        ended="later",
        changes=["a.b=1"],
        backends={"layers.1": BackendRecord("auto", "torch", "only one")},
        timings_s={"total": 1.5},
        resumes=[RESUMED],
        metrics={"loss": 0.25, "rate": None},
        error="E: x",
        notes=["n"],
    )


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = full()
    record.write(tmp_path)
    assert Record.read(tmp_path) == record
    assert (tmp_path / "run.json").read_text() == records.sealed(record.to_plain())


def test_numbers_that_are_not_finite_become_null(tmp_path):
    dataclasses.replace(full(), metrics={"loss": float("nan"), "rate": 2.0}).write(tmp_path)
    assert Record.read(tmp_path).metrics == {"loss": None, "rate": 2.0}


@pytest.mark.parametrize("schema", [[5], "5", 5.0, True, None, {}])
def test_a_schema_that_is_no_number_is_damage(schema, tmp_path):
    rewritten(tmp_path, schema=schema)
    with pytest.raises(DamageError, match="its schema must be a number, got "):
        Record.read(tmp_path)


def test_a_commit_is_told_with_what_is_known_of_changes(tmp_path, monkeypatch):
    def git(*words):
        names = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *names, *words], check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git() is None, "no repository"
    git("init")
    assert provenance.git() is None, "no commit"
    Path("file").write_text("1")
    git("add", "file")
    git("commit", "-m", "Begin")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert provenance.git() == {"commit": commit, "dirty": False}
    Path("file").write_text("2")
    assert provenance.git() == {"commit": commit, "dirty": True}
    Path(".git/index").write_text("damaged")  # git status fails, and git rev-parse does not
    assert provenance.git() == {"commit": commit, "dirty": None}


def rewritten(directory, **values):
    """A record with a checksum that fits."""
    plain = {**full().to_plain(), **values}
    (directory / "run.json").write_text(records.sealed(plain))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seed": "7"}, "seed must be int, got str"),
        ({"seed": True}, "seed must be int, got bool"),
        ({"status": "gone"}, "status is 'gone', not one of 'running', 'finished', 'stopped', 'interrupted', 'failed'"),
        (
            {"nets": {"": {"role": "model", "input_shape": [2, 3.5], "num_outputs": 4, "weights": None}}},
            r"nets\.\.input_shape\[1\] must",
        ),
        (
            {"nets": {"a": {"role": "model", "input_shape": [2]}}},
            r"nets\.a must have the keys .*; look at num_outputs, weights",
        ),
        ({"metrics": {"loss": "low"}}, r"metrics\.loss must be float, got str"),
        ({"extra": 1}, "it must have the keys backends, .*; look at extra"),
        ({"resumes": [1]}, r"resumes\[0\] must be dict, got int"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_path(values, says, tmp_path):
    rewritten(tmp_path, **values)
    with pytest.raises(ConfigError, match=rf"run\.json: is damaged: {says}"):
        Record.read(tmp_path)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (1, r"is of schema 1, written by spikecore 0\.1; .* reads 5: it does not say which input .* cannot be rebuilt"),
        (
            2,
            r"is of schema 2, written by spikecore 0\.1; .* which weights the net started from, nor what",
        ),
        (3, r"is of schema 3, written by spikecore 0\.1; .* how many samples the run's splits held"),
        (4, r"is of schema 4, written by spikecore 0\.1; .* in which order the samples of the run's splits were"),
        (6, r"is of schema 6, written by spikecore 0\.1; .*: use the version that wrote it, or a newer one"),
    ],
)
def test_another_schema_is_refused_with_the_reason(schema, says, tmp_path):
    rewritten(tmp_path, schema=schema)
    with pytest.raises(ConfigError, match=says):
        Record.read(tmp_path)
    assert records.SCHEMA == 5


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 5}', "\xff"])
def test_what_is_no_record_is_refused(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.json: is damaged"):
        Record.read(tmp_path)


@dataclass(frozen=True)
class Inner:
    x: float
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner | None
    table: dict[str, tuple[int, ...]]
    anything: Any


def test_annotations_are_followed():
    plain = {"inner": {"x": 1, "kind": "b"}, "table": {"k": [1, 2]}, "anything": [{}]}
    assert from_plain(Outer, plain) == Outer(Inner(1.0, "b"), {"k": (1, 2)}, [{}])
    assert from_plain(Outer, {**plain, "inner": None}).inner is None
    assert json.loads(json.dumps(dataclasses.asdict(from_plain(Outer, plain)))) == {
        **plain,
        "inner": {"x": 1.0, "kind": "b"},
    }
    with pytest.raises(Mismatch, match=r"table\.k\[0\] must be int, got str"):
        from_plain(Outer, {**plain, "table": {"k": ["1"]}})
