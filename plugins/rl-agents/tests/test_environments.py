"""Environments: seeds and ends of episodes, playing episodes again, processes, and everything that may go wrong."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from spikecore.errors import ConfigError, PluginUnavailable, RunError
from spikecore_rl_agents import environments as module
from spikecore_rl_agents.environments import EnvironmentConfig, make_environment, makers
from spikecore_rl_agents.spaces import Spaces, inspect_environment
from spikecore_rl_agents.td3 import scaled
from spikecore_rl_agents.vector import Environments, fixed_seeds

FAULTY = "faulty_environments:test/Faulty-v0"


def config(*options, **others):
    return EnvironmentConfig(**{"name": FAULTY, "options": options, "num_envs": 2, **others})


def started(made, training=True):
    spaces = inspect_environment(made)
    environments = Environments(made, spaces, made.num_envs, training=training)
    environments.begin(list(range(10, 10 + made.num_envs)))
    return environments


def counter(start=100):
    numbers = iter(range(start, start + 1000))
    return lambda: next(numbers)


@pytest.mark.parametrize("processes", [False, True])
def test_an_episode_ends_and_the_next_begins_in_the_same_step(processes):
    made = config("episode=3", processes=processes)
    with started(made) as environments:
        next_seed = counter()
        for _ in range(2):
            moves = environments.step(torch.zeros(2, dtype=torch.int64), next_seed)
            assert not moves.over.any()
        moves = environments.step(torch.zeros(2, dtype=torch.int64), next_seed)
        assert moves.terminated.all()
        assert not moves.truncated.any()
        assert moves.followed[:, 0].tolist() == [3.0, 3.0], "the last observation of the old episode"
        assert environments.observations[:, 0].tolist() == [0.0, 0.0], "the first one of the new"
        assert environments.seeds == [100, 101]
        assert moves.returns == (3.0, 3.0)
        assert moves.lengths == (3, 3)


def test_a_cut_is_no_end():
    with started(config("episode=3", "cut=True")) as environments:
        for _ in range(3):
            moves = environments.step(torch.zeros(2, dtype=torch.int64), counter())
        assert moves.truncated.all()
        assert not moves.terminated.any()
    with started(config("episode=40", max_episode_steps=4)) as environments:
        for _ in range(4):
            moves = environments.step(torch.zeros(2, dtype=torch.int64), counter())
        assert moves.truncated.all()
        assert not moves.terminated.any()


def test_rewards_are_scaled_and_returns_are_not():
    with started(config("episode=2", reward_scale=0.25)) as environments:
        for _ in range(2):
            moves = environments.step(torch.zeros(2, dtype=torch.int64), counter())
    assert moves.rewards.tolist() == [0.25, 0.25]
    assert moves.returns == (2.0, 2.0)


def play_on(environments):
    for _ in range(4):
        environments.step(torch.zeros(2, dtype=torch.int64), counter())


def steps_of(name, num_steps, processes, resume_at=None):
    """Observations and rewards of random play; at `resume_at` other environments take over from the saved state."""
    made = EnvironmentConfig(name=name, num_envs=3, processes=processes)
    generator, next_seed = torch.Generator().manual_seed(4), counter()
    environments, seen = started(made), []
    try:
        for step in range(num_steps):
            if step == resume_at:
                state = environments.state_dict()
                environments.close()
                environments = started(made)
                environments.load_state_dict(state)
            if environments._spaces.is_discrete:
                actions = torch.randint(environments._spaces.num_actions, (3,), generator=generator)
            else:
                actions = torch.rand(3, 1, generator=generator) * 4 - 2
            moves = environments.step(actions, next_seed)
            seen.append((moves.followed, moves.rewards, moves.over, environments.observations))
        return seen, environments.state_dict()
    finally:
        environments.close()


@pytest.mark.parametrize(
    ("name", "processes"),
    [("CartPole-v1", False), ("Pendulum-v1", False), ("FrozenLake-v1", False), ("CartPole-v1", True)],
)
def test_episodes_played_again_are_the_same_to_the_last_bit(name, processes):
    whole, state = steps_of(name, 60, processes)
    resumed, other = steps_of(name, 60, processes, resume_at=37)
    for before, after in zip(whole, resumed, strict=True):
        assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert state["seeds"] == other["seeds"]
    assert state["returns"] == other["returns"]


def test_an_environment_that_does_not_repeat_itself_is_found_out():
    made = config("fault='unrepeatable'")
    environments = started(made)
    state = environments.state_dict()
    time.sleep(0.01)
    with environments, pytest.raises(RunError, match=r"did not come back .* environment\.deterministic = false"):
        environments.load_state_dict(state)


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", r"raised ValueError in step\(\), at step 3 of its longest running episode: the pole is gone"),
        ("read", r"raised FileNotFoundError in step\(\), at step 3 of its longest running episode: level\.dat"),
        ("large reward", r"returned a reward of size 1e\+30, .* choose a smaller reward_scale"),
        ("nan reward", r"returned the reward nan: number 0, at step 3 of the episode that began with seed 10"),
        ("nan observation", r"returned an observation with a number that is not finite: number 0, at step 3"),
    ],
)
def test_faults_are_told(fault, message, processes):
    before = set(multiprocessing.active_children())
    environments = started(config(f"fault={fault!r}", processes=processes))
    with pytest.raises(RunError, match=message), environments:
        play_on(environments)
    assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize(
    ("fault", "message"), [("die", "one of its processes died"), ("hang", r"did not answer step\(\) within .* = 1 s")]
)
def test_a_process_that_dies_or_hangs_leaves_no_orphan_and_no_deadlock(fault, message):
    made = config(f"fault={fault!r}", processes=True, timeout_s=1.0 if fault == "hang" else 60.0)
    begin = time.monotonic()
    environments = started(EnvironmentConfig(**{**vars(made), "timeout_s": 60.0}))
    environments._config = made  # starting a process may take longer than the step that is to time out
    processes = list(environments._envs.processes)
    with pytest.raises(RunError, match=message), environments:
        play_on(environments)
    assert not any(process.is_alive() for process in processes)
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("fault", ["slow start of 0", "slow start of 1", "forking start"])
def test_a_failed_start_does_not_wait_for_the_slow(fault):
    before = set(multiprocessing.active_children())
    made = config(f"fault={fault!r}", processes=True)
    begin = time.monotonic()
    with pytest.raises(RunError, match="a process of its own ended while it started; see above what it says of it"):
        Environments(made, inspect_environment(config()), 2, training=True)
    assert time.monotonic() - begin < 120
    assert set(multiprocessing.active_children()) == before


def tell_handlers(made, pipe):
    environment = makers(made, 1, training=True)[0]()
    pipe.send((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
    environment.close()


def test_a_run_in_a_child_process_keeps_its_handlers():
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=tell_handlers, args=(config(), there))
    child.start()
    assert here.poll(60)
    assert here.recv() == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    child.join()


def test_processes_end_with_the_one_that_started_them():
    """Also when it is killed, and so closes nothing."""
    text = (
        "import os, signal, sys\n"
        "from spikecore_rl_agents.environments import EnvironmentConfig\n"
        "from spikecore_rl_agents.spaces import inspect_environment\n"
        "from spikecore_rl_agents.vector import Environments\n"
        "if __name__ == '__main__':\n"
        "    made = EnvironmentConfig(num_envs=2, processes=True)\n"
        "    environments = Environments(made, inspect_environment(made), 2, training=True)\n"
        "    environments.begin([1, 2])\n"
        "    print(*(process.pid for process in environments._envs.processes), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in pids)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def test_a_script_without_a_main_guard_is_told_what_it_lacks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from spikecore_rl_agents.environments import EnvironmentConfig\n"
        "from spikecore_rl_agents.spaces import inspect_environment\n"
        "from spikecore_rl_agents.vector import Environments\n"
        "made = EnvironmentConfig(num_envs=1, processes=True)\n"
        "Environments(made, inspect_environment(made), 1, training=True)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert "RunError" in done.stderr.splitlines()[-1]
    assert "if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def test_an_environment_whose_constructor_or_module_fails(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="cannot be made: ValueError: there is no such table"):
        inspect_environment(config("fault='no table'"))
    with pytest.raises(ConfigError, match="cannot be made: ImportError: The mujoco v2 and v3"):
        inspect_environment(EnvironmentConfig(name="HalfCheetah-v2"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lacking_module.py").write_text("import no_such_dependency\n")
    with pytest.raises(ConfigError, match="needs the module 'no_such_dependency', which is not installed"):
        inspect_environment(EnvironmentConfig(name="lacking_module:Thing-v0"))
    (tmp_path / "broken_module.py").write_text("x = (\n")
    with pytest.raises(ConfigError, match="cannot be made: SyntaxError"):
        inspect_environment(EnvironmentConfig(name="broken_module:Thing-v0"))


def test_an_unknown_environment_names_the_nearest_ones():
    with pytest.raises(ConfigError, match=r"knows no 'CartPol-v1'; the nearest names are .*CartPole-v1"):
        inspect_environment(EnvironmentConfig(name="CartPol-v1"))
    with pytest.raises(ConfigError, match="asks for the module 'no_such_module'.*PYTHONPATH"):
        inspect_environment(EnvironmentConfig(name="no_such_module:Thing-v0"))


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    def missing(name, **keywords):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed, run `pip install gymnasium[mujoco]`")

    monkeypatch.setattr(module.gymnasium, "make", missing)
    with pytest.raises(PluginUnavailable, match=r"pip install 'spikecore-rl-agents\[mujoco\]'"):
        inspect_environment(EnvironmentConfig(name="HalfCheetah-v5"))
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(PluginUnavailable, match=r"'ale_py' .*spikecore-rl-agents\[atari\]"):
        inspect_environment(EnvironmentConfig(name="ALE/Pong-v5"))


@pytest.mark.parametrize(
    ("which", "message"),
    [("dict", "observations of .* an agent takes a Box"), ("multi", "actions of .* MultiDiscrete")],
)
def test_spaces_that_cannot_be_used(which, message):
    with pytest.raises(ConfigError, match=message):
        inspect_environment(config(f"which={which!r}", name="faulty_environments:test/Odd-v0"))


def test_episodes_that_might_never_end():
    with pytest.raises(ConfigError, match=r"might never end: set environment\.max_episode_steps"):
        inspect_environment(config(name="faulty_environments:test/Endless-v0"))
    inspect_environment(config(name="faulty_environments:test/Endless-v0", max_episode_steps=7))


@pytest.mark.parametrize(
    ("option", "message"),
    [("fault", "must be 'name=value'"), ("fault=x", "must be 'name=value'"), ("wings=2", "does not take")],
)
def test_wrong_options(option, message):
    with pytest.raises(ConfigError, match=message):
        inspect_environment(config(option))


def test_observations_and_actions_as_tensors():
    spaces = inspect_environment(EnvironmentConfig(name="FrozenLake-v1"))
    assert spaces.shape == (16,)
    assert spaces.observe(np.array([0, 3])).argmax(1).tolist() == [0, 3]
    spaces = inspect_environment(EnvironmentConfig(name="Pendulum-v1"))
    assert spaces.act(torch.tensor([[5.0], [-0.5]])).tolist() == [[2.0], [-0.5]]


def test_an_observation_that_is_one_number_without_an_axis():
    made = config("episode=3", name="faulty_environments:test/Drawn-v0")
    with started(made) as environments:
        assert environments.observations.tolist() == [[0.0], [0.0]]
        moves = environments.step(torch.zeros(2, dtype=torch.int64), counter())
        assert moves.followed.tolist() == [[pytest.approx(0.1)], [pytest.approx(0.1)]]


def test_actions_scaled_to_bounds():
    low, high = np.array([0.0, -3.0, -3e38], np.float32), np.array([10.0, -1.0, 3e38], np.float32)
    bounded = Spaces(gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Box(low, high))
    actions = torch.tensor([[-1.0, -1.0, -1.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]])
    wanted = low.astype(np.float64) + (actions.double().numpy() + 1) / 2 * (high.astype(np.float64) - low)
    np.testing.assert_allclose(scaled(actions, bounded).numpy(), wanted, rtol=1e-6)


def test_seeds_of_evaluations_differ_from_each_other_and_repeat():
    first, second = fixed_seeds(3, 1, 50), fixed_seeds(3, 2, 50)
    assert first == fixed_seeds(3, 1, 50)
    assert len({*first, *second}) == 100
    assert not {*first} & {*fixed_seeds(4, 1, 50)}


@pytest.mark.skipif("ALE" not in os.environ.get("SPIKE_RL_EXTRAS", ""), reason="SPIKE_RL_EXTRAS=ALE,MuJoCo was not set")
def test_atari():
    environment = make_environment(EnvironmentConfig(name="ALE/Pong-v5"), training=True)
    raw, _ = environment.reset(seed=1)
    assert np.asarray(raw).shape == (4, 84, 84)
    assert np.asarray(raw).dtype == np.uint8


@pytest.mark.skipif(
    "MuJoCo" not in os.environ.get("SPIKE_RL_EXTRAS", ""), reason="SPIKE_RL_EXTRAS=ALE,MuJoCo was not set"
)
def test_mujoco():
    assert inspect_environment(EnvironmentConfig(name="HalfCheetah-v5")).num_actions == 6
