"""Several processes train as one does; they begin, stop and fail together. Two processes by torchrun, gloo on the CPU.

Most runs are made in two launches, one after the other in the same processes: starting torch is what takes the time.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import spikecore
from spikecore.cli import spike as spike_command
from spikecore.errors import ConfigError, ProcessError
from spikecore.interfaces import Processes, RunContext, Shard
from spikecore.registry import Registry, use
from spikecore.run.build import prepare
from spikecore.run.checkpoint import CheckpointStore
from spikecore.run.config import resolve
from spikecore.run.context import Context
from spikecore.run.experiment import evaluate, resume
from spikecore.run.joining import is_left_to_another, is_one_of_several, joined
from spikecore.run.processes import Group
from tests.run.processes_scenario import FAULT_AT, SMALL, WITH_TAIL, Normed

SCENARIO = Path(__file__).with_name("processes_scenario.py")
SOURCE = Path(spikecore.__file__).parents[1]
HANG_S = 240.0
"""Nothing takes as long, even on a busy machine: what does hangs."""


def launch(folder, scenario, **environment):
    """`torchrun --nproc-per-node 2`; where it hangs, its processes say in which lines, and are ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(SCENARIO), scenario]
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "SPIKE_TEST": str(folder), **environment}
    env["PYTHONFAULTHANDLER"] = "1"
    process = subprocess.Popen(
        command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=HANG_S)
    except subprocess.TimeoutExpired:
        for pid in set(workers(folder)) - {process.pid}:
            os.kill(pid, signal.SIGABRT)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        pytest.fail(f"{scenario} hangs:\n{output[-20_000:]}")
    return process.returncode, output


def workers(folder):
    """Processes that were started for this folder and are still there."""
    mark = f"SPIKE_TEST={folder}".encode()
    alive = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                alive.append(int(path.parent.name))
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return alive


def answers(folder):
    return [json.loads((folder / f"answers-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    status, output = launch(folder, "sound")
    assert status == 0, output
    return folder


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    status, output = launch(folder, "refused")
    assert status == 0, output
    return folder


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def record(directory):
    return json.loads((directory / "run.json").read_text())


def last(directory):
    store = CheckpointStore(directory, record(directory)["id"])
    return store.read(store.find("last"))


def alone(folder, *changes):
    """The same run in this one process."""
    torch.set_num_threads(1)
    spikecore.run(resolve(None, [*SMALL, *changes]), out=folder)
    return folder


def assert_same_numbers(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


# Sound runs


@pytest.mark.parametrize(("name", "changes"), [("mlp", ()), ("tail", WITH_TAIL)])
def test_two_processes_train_as_one_does(sound, tmp_path, name, changes):
    one = alone(tmp_path / "one", *changes)
    assert_same_numbers(lines(sound / name), lines(one))
    first, second = lines(one)[0], lines(one)[-1]
    assert second["train_loss"] < first["train_loss"]  # it learns, so the gradients matter
    ours, theirs = last(sound / name).model, last(one).model
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-5)


def test_the_nets_spike(sound):
    shown = answers(sound)[0]
    assert "silent" not in "".join(shown[name]["stderr"] for name in ("mlp", "whole", "tail"))


def test_the_time_until_all_have_met_has_a_name(sound, tmp_path):
    times = [record(path)["timings_s"] for path in sorted(sound.iterdir()) if (path / "run.json").is_file()]
    assert times
    assert any(parts.get("connect", 0.0) > 0 for parts in times)
    assert "connect" not in record(alone(tmp_path / "one", "trainer.epochs=1"))["timings_s"]


def test_there_is_one_directory_and_one_voice(sound):
    ours, theirs = answers(sound)
    names = {"mlp", "whole", "stopped", "halted", "normed", "tail"}
    assert {path.name for path in sound.iterdir()} == {*names, "answers-0.json", "answers-1.json"}
    assert record(sound / "mlp")["environment"]["num_processes"] == 2
    assert "run directory  mlp" in ours["mlp"]["stdout"]
    assert "epoch 3/3" in ours["mlp"]["stderr"]
    assert all(answer["stdout"] + answer["stderr"].strip() == "" for answer in theirs.values())


def test_a_run_that_is_stopped_in_one_process_resumes_to_the_same_bits(sound):
    for answer in answers(sound):
        assert answer["stopped"]["status"] == 130
        assert answer["resumed"]["status"] == 0
    shown = answers(sound)[0]
    assert "torchrun --nproc-per-node 2 -m spikecore run --resume stopped" in shown["stopped"]["stderr"]
    assert f"going on from checkpoint-{FAULT_AT + 1:08d}" in shown["resumed"]["stderr"]  # in the middle of an epoch
    assert (sound / "stopped/metrics.jsonl").read_bytes() == (sound / "whole/metrics.jsonl").read_bytes()
    whole, resumed = last(sound / "whole"), last(sound / "stopped")
    assert whole.count == resumed.count
    for key, value in whole.model.items():
        assert torch.equal(value, resumed.model[key]), key
    for state in (whole.state, resumed.state):
        assert len(state["other_processes"]) == 1
    assert torch.equal(*(state["other_processes"][0]["random"]["torch"] for state in (whole.state, resumed.state)))
    assert torch.equal(*(state["other_processes"][0]["rank_generator"] for state in (whole.state, resumed.state)))


def test_each_process_has_its_own_dropout_and_encoder_noise(sound):
    state = last(sound / "whole").state
    other = state["other_processes"][0]
    assert not torch.equal(state["random"]["torch"], other["random"]["torch"])
    assert not torch.equal(state["rank_generator"], other["rank_generator"])
    assert not torch.equal(state["rank_generator"], state["generator"])


def test_a_run_of_two_processes_is_resumed_in_one(sound, capsys):
    assert [answer["halted"]["status"] for answer in answers(sound)] == [130, 130]
    assert "stopping at the next safe point" in answers(sound)[0]["halted"]["stderr"]
    assert last(sound / "halted").count < last(sound / "mlp").count
    resume(sound / "halted")
    assert "num_processes was 2, is 1: the rest of the run may differ" in capsys.readouterr().err
    assert_same_numbers(lines(sound / "halted"), lines(sound / "mlp"))


def test_a_batch_norm_is_reported_once(sound):
    assert answers(sound)[0]["normed"]["stderr"].count("batch norm: each of the 2 processes normalises") == 1
    notes = record(sound / "normed")["notes"]
    assert sum("batch norm" in note for note in notes) == 1
    assert "batch norm" not in answers(sound)[0]["mlp"]["stderr"]
    saved = last(sound / "normed").model
    assert int(saved["norm.num_batches_tracked"]) == 12  # one for each global batch
    assert len(lines(sound / "normed")) == 1  # and a parameter without gradient stops nobody


def test_every_process_evaluates_the_net_that_is_saved(sound):
    """Process 1 has running statistics of its own while it trains."""
    mine = Registry()
    mine.register("model", "normed", Normed)
    with use(mine):
        again = evaluate(sound / "normed").metrics
    assert again == pytest.approx({name: record(sound / "normed")["metrics"][name] for name in again}, rel=1e-5)


# Runs that are refused, or end for all


@pytest.mark.parametrize(
    ("name", "status", "teller", "text"),
    [
        ("unlike", 2, 0, "trainer.lr: 0.01 in process 0, 0.02 in process 1"),
        ("unwritable", 2, 0, "file-0/run: cannot be written"),
        ("alone", 2, 0, "trainer 'alone' trains in one process only"),
        ("wrong", 2, 0, "trainer.lr: must be > 0"),
        ("one wrong", 2, 1, "process 1 of 2: trainer.lr: must be > 0"),
        ("full", 1, 0, "No space left on device: free some space"),
        ("draw", 2, 0, "context.generator of process 1 is not where that of process 0 is"),
    ],
)
def test_all_processes_end_alike_with_one_message(refused, name, status, teller, text):
    shown = [answer[name] for answer in answers(refused)]
    assert [answer["status"] for answer in shown] == [status, status]
    assert text in shown[teller]["stderr"]
    assert "spike:" not in shown[1 - teller]["stderr"]
    assert "".join(answer["stderr"] for answer in shown).count("spike:") == 1


def test_what_is_refused_leaves_nothing(refused):
    assert {path.name for path in refused.iterdir() if path.is_dir()} == {"draw", "full"}
    assert record(refused / "draw")["status"] == "failed"


def test_a_disk_that_is_full_for_the_first_process_only_ends_all_and_keeps_what_was_saved(refused):
    ours, theirs = (answer["full"] for answer in answers(refused))
    assert f"the last good checkpoint is checkpoint-{FAULT_AT:08d}" in " ".join(ours["stderr"].split())
    assert theirs["stdout"] == ""
    assert record(refused / "full")["status"] == "failed"
    assert last(refused / "full").count == FAULT_AT


def test_a_dry_run_speaks_once(refused):
    ours, theirs = (answer["dry"] for answer in answers(refused))
    assert ours["stdout"].count("parameters on cpu") == 1
    assert theirs["stdout"] == ""


@pytest.mark.parametrize(
    ("fault", "rank", "told"),
    [
        ("SIGKILL", "1", "process 0 of 2 cannot go on: process 1 is gone without giving a reason"),
        ("raise", "1", "ValueError: the sensor burnt through"),
    ],
)
def test_the_others_end_with_a_process_that_fails(tmp_path, fault, rank, told):
    began = time.monotonic()
    status, output = launch(tmp_path, "faulty", FAULT=fault, FAULT_RANK=rank)
    assert time.monotonic() - began < HANG_S
    assert status not in (0, 2), output
    assert told in output
    assert workers(tmp_path) == []
    after = record(tmp_path / "faulty")
    command = "torchrun --nproc-per-node 2 -m spikecore run --resume faulty"
    assert f"`{command}`" in output
    assert "run directory  faulty" in output
    assert after["status"] == "failed"
    assert re.match(r"ProcessError: process [01] of 2 ", after["error"]), after["error"]
    assert told in after["error"]
    assert last(tmp_path / "faulty").count == FAULT_AT  # what was saved before is whole


def test_a_run_whose_process_was_killed_resumes_to_the_same_bits(sound, tmp_path):
    """The command that the message names, in new processes."""
    status, output = launch(tmp_path, "faulty", FAULT="SIGKILL", FAULT_RANK="1")
    assert status not in (0, 2), output
    status, output = launch(tmp_path, "again")
    assert status == 0, output
    assert f"going on from checkpoint-{FAULT_AT:08d}" in output
    assert [resumption["after"] for resumption in record(tmp_path / "faulty")["resumes"]] == ["failed"]
    ours, whole = tmp_path / "faulty", sound / "mlp"
    assert (ours / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert record(ours)["metrics"] == record(whole)["metrics"]
    for key, value in last(whole).model.items():
        assert torch.equal(value, last(ours).model[key]), key


def test_the_sizes_of_the_splits_are_those_of_all_processes(sound):
    assert record(sound / "mlp")["samples"] == {"train": 1130, "val": 128, "test": 539}


# One process


def test_one_process_touches_no_torch_distributed(tmp_path):
    code = (
        "import sys, spikecore; from spikecore.run.config import resolve\n"
        f"spikecore.run(resolve(None, {[*SMALL, 'trainer.epochs=1']!r}), out={str(tmp_path / 'run')!r})\n"
        "import torch.distributed\n"
        "assert 'spikecore.run.connected' not in sys.modules\n"
        "assert not torch.distributed.is_initialized()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=HANG_S, capture_output=True)


def test_what_one_process_does_is_left_to_the_first(monkeypatch, tmp_path, capsys):
    """`torchrun -m spikecore eval`: the numbers are said once."""
    spikecore.run(resolve(None, [*SMALL, "trainer.epochs=1"]), out=tmp_path / "r")
    assert not is_left_to_another()
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "x"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        said.append(CliRunner().invoke(spike_command, ["eval", str(tmp_path / "r")]))
    assert [done.exit_code for done in said] == [0, 0]
    assert "test_accuracy" in said[0].output
    assert said[1].output == ""


def test_one_process_shares_nothing():
    net = nn.Linear(2, 2)
    context = Context(torch.device("cpu"), torch.float32, torch.Generator(), net)
    assert isinstance(context, RunContext)
    tensor, batch = torch.ones(3), torch.arange(5)
    assert (context.rank, context.world_size) == (0, 1)
    assert context.wrap(net) is net
    assert context.all_sum(tensor) is tensor
    assert context.rank_generator is context.generator
    shard = context.shard(batch)
    assert shard.index is batch
    assert shard.weight == 1.0
    assert "exchange" not in context.times()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 6, 8, 13])
def test_shards_are_the_batch(world_size, size):
    """The mean over processes of weighted means is the mean over the batch."""
    values = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    seen, means = [], []
    for rank in range(world_size):
        processes = Processes()
        processes.rank, processes.world_size = rank, world_size
        index, weight = processes.shard(torch.arange(size))
        assert len(index) > 0
        means.append(values[index].mean() * weight)
        seen += index.tolist() if weight else []
    assert seen == list(range(size))
    torch.testing.assert_close(torch.stack(means).mean(), values.mean())


def test_an_empty_batch_has_empty_shards():
    processes = Processes()
    processes.rank, processes.world_size = 1, 2
    assert processes.shard([]) == Shard([], 0.0)


def test_an_environment_without_an_address_is_refused(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=4, but lacks RANK, LOCAL_RANK, .*unset WORLD_SIZE"):
        is_one_of_several()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_one_of_several()
    with joined() as group:
        assert type(group) is Group


def test_an_address_where_nobody_is_is_told(monkeypatch):
    address = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in {**address, "SPIKE_PROCESS_TIMEOUT_S": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProcessError, match=r"process 1 of 2 could not reach the others at 127.0.0.1:9"), joined():
        pass


def test_a_timeout_that_is_none_is_refused(monkeypatch):
    address = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in {**address, "SPIKE_PROCESS_TIMEOUT_S": "soon"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ConfigError, match=r"SPIKE_PROCESS_TIMEOUT_S=soon: must be a number of seconds above 0"),
        joined(),
    ):
        pass


def test_a_gpu_of_its_own_for_each_process(monkeypatch):
    group = Group()
    group.world_size, group.rank, group.local_rank = 2, 1, 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, text in (
        ("auto", r"process 1 needs a GPU of its own.*has 1"),
        ("cuda:0", r"is one GPU, and 2 processes"),
    ):
        with use(Registry()), pytest.raises(ConfigError, match=text):
            prepare(resolve(None, [*SMALL, f"run.device={device}"]), processes=group)
