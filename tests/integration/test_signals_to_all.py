"""SIGTERM to every process of a run, as batch systems, service managers and `timeout` send it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DIGITS = """
[run]
report = false
[dataset]
name = "digits"
[encoder]
num_steps = 2
[model]
name = "mlp"
hidden = [8]
[trainer]
name = "supervised"
epochs = 100000
batch_size = 4
workers = 2
"""
CARTPOLE = """
[run]
report = false
[environment]
name = "CartPole-v1"
num_envs = 2
processes = true
[model]
name = "mlp"
hidden = [8]
[trainer]
name = "ppo"
iterations = 100000
rollout_steps = 16
eval_episodes = 1
animation = false
"""


class Started:
    """`spike run` as the leader of a group of its own."""

    def __init__(self, folder: Path, config: str) -> None:
        self.out = folder / "run"
        (folder / "config.toml").write_text(config)
        command = [sys.executable, "-m", "spikecore", "run", str(folder / "config.toml"), "--out", str(self.out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True, env=environment)
        self.log = folder / "log"

    def wait_for_epoch(self) -> None:
        deadline = time.monotonic() + 240
        while "epoch " not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def wait_for_child(self, word: str) -> None:
        """Until a child's command line holds the word."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            for child in self.children():
                with contextlib.suppress(OSError):
                    if word in Path(f"/proc/{child}/cmdline").read_text():
                        return
            time.sleep(0.01)
        raise AssertionError(self.log.read_text())

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def begun_children(self) -> set[int]:
        """Such as have lived for a while, and so called `begin_worker`; readers come anew with every epoch."""
        begun: set[int] = set()
        deadline = time.monotonic() + 120
        while not begun and time.monotonic() < deadline:
            before = set(self.children())
            time.sleep(0.5)
            begun = before & set(self.children())
        return begun

    def members(self) -> list[int]:
        """Process ids of its group that still run; zombies do not count."""
        running = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, group = path.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    running.append(int(path.parent.name))
        return running

    def end(self) -> str:
        """What it said."""
        assert self.process.wait(timeout=120) is not None
        return self.log.read_text()

    @property
    def status(self) -> str:
        return str(json.loads((self.out / "run.json").read_text())["status"])


@pytest.fixture
def started(tmp_path):
    runs = []

    def start(config, until="epoch"):
        runs.append(Started(tmp_path, config))
        if until == "epoch":
            runs[-1].wait_for_epoch()
        else:
            runs[-1].wait_for_child(until)
        return runs[-1]

    yield start
    for run in runs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()


@pytest.mark.parametrize("config", [DIGITS, CARTPOLE], ids=["readers", "environments"])
def test_the_run_ends_at_its_next_safe_point_and_leaves_nobody(started, config):
    run = started(config)
    assert run.begun_children(), run.log.read_text()
    os.killpg(run.process.pid, signal.SIGTERM)
    said = run.end()
    assert "stopping at the next safe point" in said
    assert "interrupted: the last checkpoint is" in said
    assert "Traceback" not in said
    assert (run.process.returncode, run.status) == (130, "interrupted")
    deadline = time.monotonic() + 30
    while run.members() and time.monotonic() < deadline:  # multiprocessing's own helper ends once its pipe is closed
        time.sleep(0.05)
    assert not run.members()
    command = [sys.executable, "-m", "spikecore", "run", "--resume", str(run.out), "--dry-run"]
    assert subprocess.run(command, capture_output=True, timeout=240).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_environments_that_are_starting_are_not_killed(started, number):
    """Their processes import torch, for seconds, before they can leave their end to the run."""
    run = started(CARTPOLE, until="spawn_main")
    os.killpg(run.process.pid, number)
    said = run.end()
    assert "a process of its own ended" not in said
    assert (run.process.returncode, run.status) == (130, "interrupted"), said


def test_a_reader_that_is_killed_is_named(started):
    run = started(DIGITS)
    deadline = time.monotonic() + 120
    while run.process.poll() is None and time.monotonic() < deadline:
        for child in run.children():
            with contextlib.suppress(ProcessLookupError):  # of an epoch that has just ended
                os.kill(child, signal.SIGKILL)
        time.sleep(0.5)
    said = run.end()
    assert "spike: a process that reads samples is gone" in said, said
    assert "spike run --resume" in said
    assert run.status == "failed"
