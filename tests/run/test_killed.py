"""`kill -9` at any instant, then `--resume`: the same bits as a run that was never stopped.

An instant is a call of a function or a step on the disk, never a time: a busy machine kills at the same ones.
"""

import hashlib
import json
import os
import random

import pytest

from tests.crashing import KILLED, Server

NUM_INSTANTS = 100 if os.environ.get("SPIKE_FULL") else 20
NUM_STEPS = 60 if os.environ.get("SPIKE_FULL") else 12
SMALL = [
    "dataset.test_share=0.3",
    "encoder.name=poisson",
    "encoder.num_steps=2",
    "model.name=mlp",
    "model.hidden=[8]",
    "trainer.epochs=3",
    "trainer.batch_size=128",
    "run.checkpoint_every_steps=2",
    "run.report=false",
]
OPTIONS = [word for text in SMALL for word in ("--set", text)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("killed")) as server:
        yield server


@pytest.fixture(scope="module")
def whole(server):
    """A run that nobody stopped."""
    answer = server.spike("run", *OPTIONS, "--out", "whole", count_calls=True)
    assert answer["status"] == 0, answer["stderr"]
    return {**answer, "outcome": outcome(server.folder / "whole")}


def outcome(directory):
    """All that a run leaves, but for times and the ids that tell runs apart."""
    record = json.loads((directory / "run.json").read_text())
    assert (record["status"], record["exit_status"]) == ("finished", 0)
    checkpoints = {}
    for path in sorted((directory / "checkpoints").iterdir()):
        index = json.loads((path / "checkpoint.json").read_text())
        kept = {key: index[key] for key in ("count", "score", "log", "model", "state", "files")}
        sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.glob("*.safetensors")}
        assert sums == {name: entry["sha256"] for name, entry in index["files"].items()}
        checkpoints[path.name] = kept
    return {
        "checkpoints": checkpoints,
        "log": (directory / "metrics.jsonl").read_bytes(),
        "metrics": record["metrics"],
        "config": (directory / "config.toml").read_text(),
        "backends": record["backends"],
    }


def finish(server, name):
    """Go on as a user would: resume, or start where nothing had begun."""
    answer = server.spike("run", "--resume", name)
    if answer["status"] == 2:
        assert "no run began here" in answer["stderr"]
        answer = server.spike("run", *OPTIONS, "--out", name)
    assert answer["status"] == 0, answer["stderr"]
    return answer


def test_what_is_compared_is_there(whole):
    finished = whole["outcome"]
    assert len(finished["log"].splitlines()) == 3
    assert len(finished["checkpoints"]) in (2, 3)  # the last two and the best
    last = finished["checkpoints"][max(finished["checkpoints"])]
    assert any(name.startswith("$") for name in last["state"]["trainer"]["optimizer"]["state"])  # by number: AdamW's
    assert last["count"] == 3 * 10 + 1  # the last one holds the confusion matrix of the test split


def test_killed_at_random_instants(server, whole):
    dice = random.Random(7)
    assert whole["calls"] > 10_000
    # A few calls more or fewer (sets in another order) must not move the last instants past the end.
    last = whole["calls"] * 95 // 100
    begun = killed_twice = 0
    for instant in range(NUM_INSTANTS):
        name = f"instant-{instant}"
        answer = server.spike("run", *OPTIONS, "--out", name, crash_at_call=dice.randint(1, last))
        assert answer["status"] == KILLED, "the instant missed the run"
        has_begun = any((server.folder / name / "checkpoints").glob("checkpoint-*"))
        begun += has_begun
        if has_begun and instant % 4 == 0:  # the one that goes on is killed as well
            answer = server.spike("run", "--resume", name, crash_at_call=dice.randint(1, whole["calls"] // 4))
            killed_twice += answer["status"] == KILLED
        finish(server, name)
        assert outcome(server.folder / name) == whole["outcome"], name
    assert begun >= NUM_INSTANTS // 3, "most instants were before the first checkpoint"
    assert killed_twice >= 1


def test_killed_in_the_middle_of_writing(server, whole):
    """At steps on the disk spread over the run, from the first to the last: half a file, no flush, no rename …"""
    assert whole["steps"] > 100
    last = whole["steps"]
    spread = sorted({1, 2, 3, last, *(round(1 + (last - 1) * (index + 0.5) / NUM_STEPS) for index in range(NUM_STEPS))})
    for step in spread:
        name = f"step-{step}"
        assert server.spike("run", *OPTIONS, "--out", name, crash_at=step)["status"] == KILLED
        finish(server, name)
        assert outcome(server.folder / name) == whole["outcome"], name


def test_killed_while_it_goes_back(server, whole):
    """Resuming itself writes: newer checkpoints go, lines are dropped, the record changes. It may die at each."""
    for step in range(1, 13):
        name = f"back-{step}"
        assert server.spike("run", *OPTIONS, "--out", name, crash_at=whole["steps"] * 2 // 3)["status"] == KILLED
        oldest = min(path.name for path in (server.folder / name / "checkpoints").glob("checkpoint-????????"))
        answer = server.spike("run", "--resume", name, "--checkpoint", oldest, crash_at=step)
        assert answer["status"] == KILLED
        finish(server, name)
        assert outcome(server.folder / name) == whole["outcome"], name
