"""Agents through `spike run`: they learn, resume to the same bits, show what they did, and refuse what does not fit."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import spikecore
from spikecore import nn
from spikecore.errors import ConfigError, ContractError, OptionError, PluginUnavailable, RunError
from spikecore.registry import Blocking, Registry, use
from spikecore.run.config import resolve
from spikecore.run.experiment import evaluate, resume
from spikecore.trainers import Optimizer
from spikecore_rl_agents import evaluation
from spikecore_rl_agents.agent import energy_table, operations_of
from spikecore_rl_agents.dqn import DQN
from spikecore_rl_agents.environments import EnvironmentConfig
from spikecore_rl_agents.evaluation import Decider, play
from spikecore_rl_agents.on_policy import OneStep
from spikecore_rl_agents.policy import Normalizer, Policy, restarted
from spikecore_rl_agents.population import PopulationMLP, PopulationReadout, ReceptiveFields
from spikecore_rl_agents.readout import Readout
from spikecore_rl_agents.spaces import inspect_environment
from spikecore_rl_agents.td3 import TD3
from spikecore_rl_agents.vector import fixed_seeds

DRAWN = "faulty_environments:test/Drawn-v0"
REACH = "spikecore_rl_agents:spikecore/Reach-v0"
LIVELY = {"neuron": {"name": "lif", "decay_input": False, "v_threshold": 0.5}, "backend": {"name": "torch"}}
SMALL = {"model": {"name": "mlp", "hidden": [32]}, "run": {"report": False, "seed": 3}}
QUICK = {"test_episodes": 20, "eval_episodes": 5, "animation": False}
PPO = {
    "environment": {"name": "CartPole-v1"},
    "trainer": {"name": "ppo", "iterations": 14, "passes": 6, "critic": "ordinary", "lr": 3e-3, **QUICK},
}
A2C = {
    "environment": {"name": "CartPole-v1"},
    "trainer": {"name": "a2c", "iterations": 400, "critic": "ordinary", "lr": 3e-3, "evaluate_every": 100, **QUICK},
}
DQN_REACH = {
    "environment": {**DQN.short_run["environment"], "options": ["discrete=True"]},
    "trainer": {"name": "dqn", **DQN.short_run["trainer"], "iterations": 8, "test_episodes": 50},
}
TD3_REACH = {
    "environment": {"name": REACH},
    "encoder": {"num_steps": 3},
    "trainer": {"name": "td3", **TD3.short_run["trainer"], "iterations": 8, "test_episodes": 50},
}


def merged(*tables):
    whole = {}
    for table in tables:
        for name, options in table.items():
            whole[name] = {**whole.get(name, {}), **options}
    return whole


def random_return(name, options=(), count=200):
    """Of uniformly random actions."""
    config = EnvironmentConfig(name=name, options=tuple(options))
    spaces = inspect_environment(config)
    generator = torch.Generator().manual_seed(0)

    class Random:
        def prepare(self, observations):
            return observations

        def __call__(self, observations):
            count = len(observations)
            if spaces.is_discrete:
                return torch.randint(spaces.num_actions, (count,), generator=generator)
            share = torch.rand(count, spaces.num_actions, generator=generator)
            return spaces.low + share * (spaces.high - spaces.low)

        def before(self, observations):
            return None

        def restart(self, over):
            pass

    return play(config, spaces, Random(), fixed_seeds(0, 9, count)).mean_return


@pytest.mark.parametrize("neuron", ["lif", "relu"])
def test_ppo_beats_random_play_by_40_steps(neuron, tmp_path):
    ordinary = {"neuron": {"name": "relu"}, "encoder": {"num_steps": 1}, "backend": {"name": "torch"}}
    result = spikecore.run(merged(SMALL, PPO, LIVELY if neuron == "lif" else ordinary), out=tmp_path / "run")
    guess = random_return("CartPole-v1")
    assert 15 < guess < 30
    assert result.metrics["test_return"] > guess + 40
    assert result.metrics["test_spikes"] > 1 if neuron == "lif" else result.metrics["test_spikes"] == 0


def test_a2c_beats_random_play_by_40_steps(tmp_path):
    result = spikecore.run(merged(SMALL, A2C, LIVELY), out=tmp_path / "run")
    assert result.metrics["test_return"] > random_return("CartPole-v1") + 40


@pytest.mark.parametrize(
    "options",
    [{}, {"double": False}, {"dueling": True, "num_steps": 3, "priority_alpha": 0.6}],
    ids=["double", "plain", "dueling, three steps, priorities"],
)
def test_dqn_loses_less_than_half_of_what_random_play_loses(options, tmp_path):
    table = merged(SMALL, DQN_REACH, LIVELY, {"trainer": options})
    result = spikecore.run(table, out=tmp_path / "run")
    assert result.metrics["test_return"] > 0.5 * random_return(REACH, ["discrete=True"])


def test_td3_loses_less_than_half_of_what_random_play_loses(tmp_path):
    model = {"model": {"name": "population_mlp", "gain": 1.0, "hidden": [32], "input_size": 8, "output_size": 6}}
    table = merged(LIVELY, TD3_REACH, model, {"run": SMALL["run"]})
    result = spikecore.run(table, out=tmp_path / "run")
    assert result.metrics["test_return"] > 0.5 * random_return(REACH)
    assert result.metrics["test_spikes"] > 1


SHORT = {
    "ppo": merged(PPO, {"trainer": {"iterations": 5, "passes": 2, "rollout_steps": 40, "evaluate_every": 2}}),
    "ppo carrying state": merged(
        PPO,
        {"trainer": {"iterations": 5, "passes": 2, "rollout_steps": 16, "state": "carry", "decoder": "last"}},
        {"trainer": {"critic": "same", "evaluate_every": 2}},
    ),
    "a2c carrying state": merged(
        A2C, {"trainer": {"iterations": 9, "state": "carry", "decoder": "max", "readout_tau": 0}}
    ),
    "dqn": merged(
        DQN_REACH, {"trainer": {"priority_alpha": 0.6, "num_steps": 2, "evaluate_every": 2, "iterations": 5}}
    ),
    "td3": merged(TD3_REACH, {"trainer": {"iterations": 5, "evaluate_every": 2}, "model": {"name": "population_mlp"}}),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_resumed_run_ends_in_the_same_bits(name, tmp_path, monkeypatch):
    table = merged(LIVELY, SMALL, SHORT[name], {"run": {"checkpoint_every_steps": 1}})
    if name == "td3":
        table["model"] = {"name": "population_mlp", "gain": 1.0, "hidden": [16], "input_size": 4, "output_size": 3}
    whole = spikecore.run(table, out=tmp_path / "whole")
    parts = tmp_path / "parts"
    from spikecore.run.context import Context

    original, passed = Context.checkpoint, []

    def stop_in_the_middle(self, score=None, weights=None):
        passed.append(score)
        self.stopping = len(passed) == 3
        original(self, score, weights)

    monkeypatch.setattr(Context, "checkpoint", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        spikecore.run(table, out=parts)
    monkeypatch.setattr(Context, "checkpoint", original)
    torch.manual_seed(99)
    resumed = resume(parts)
    assert resumed.metrics == whole.metrics
    assert (parts / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()
    for file in ("model", "state"):
        one, two = (load_file(newest(tmp_path / run) / f"{file}.safetensors") for run in ("whole", "parts"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


def newest(directory):
    return max((directory / "checkpoints").iterdir())


def test_the_replay_buffer_has_a_file_of_its_own(tmp_path):
    table = merged(LIVELY, SMALL, SHORT["dqn"], {"run": {"checkpoint_every_steps": 1}})
    spikecore.run(table, out=tmp_path / "run")
    held = sorted(path.parent.name for path in (tmp_path / "run" / "checkpoints").glob("*/large.safetensors"))
    assert held == [newest(tmp_path / "run").name], "older checkpoints give it up"
    replay = load_file(newest(tmp_path / "run") / "large.safetensors")
    # 5 iterations of 160 steps, and an end of an episode for every 10 steps, over 4 environments
    assert replay["replay.observations"].shape == (4, 220, 1)
    assert not [key for key in load_file(newest(tmp_path / "run") / "state.safetensors") if "replay" in key]


def test_a_run_tells_and_shows_what_became_of_it(tmp_path, capsys):
    table = merged(LIVELY, SMALL, PPO, {"trainer": {"iterations": 3, "rollout_steps": 32, "evaluate_every": 2}})
    table["trainer"]["animation"] = table["run"]["report"] = True
    spikecore.run(table, out=tmp_path / "run")
    directory = tmp_path / "run"
    lines = capsys.readouterr().err.splitlines()
    live = [line for line in lines if line.startswith("epoch ")]
    assert len(live) == 3
    assert all("train_return" in line and "steps/s" in line for line in live)
    assert (directory / "episode.gif").read_bytes().startswith(b"GIF89a")
    assert len(list((directory / "shown").glob("*.safetensors"))) == 3
    page = (directory / "report.html").read_text()
    assert "Energy per decision" in page
    assert "Greedy episode" in page
    record = json.loads((directory / "run.json").read_text())
    assert record["task"] == "environment"
    (net,) = record["nets"].values()
    assert (net["role"], net["input_shape"], net["num_outputs"]) == ("model", [4], 2)
    net = spikecore.load(directory)
    assert net(torch.zeros(4, 2, 4)).shape == (4, 2, 2)
    again = evaluate(directory, "last").metrics
    assert again == {name: record["metrics"][name] for name in again}
    assert evaluate(directory, "best").checkpoint <= newest(directory).name


def test_an_environment_that_is_not_deterministic_cannot_be_resumed(tmp_path):
    table = merged(LIVELY, SMALL, PPO, {"trainer": {"iterations": 1, "rollout_steps": 8}})
    table["environment"]["deterministic"] = False
    spikecore.run(table, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot be resumed"):
        resume(tmp_path / "run", overrides=["trainer.iterations=2"])


def test_a_failing_environment_ends_the_run_and_its_processes(tmp_path):
    import multiprocessing

    table = merged(
        LIVELY, SMALL, PPO, {"environment": {"processes": True, "num_envs": 2, "options": ["fault='raise'"]}}
    )
    table["environment"]["name"] = "faulty_environments:test/Faulty-v0"
    with pytest.raises(RunError, match="the pole is gone"):
        spikecore.run(table, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("trainer", "environment", "message"),
    [
        ("dqn", "Pendulum-v1", "'dqn' chooses among actions"),
        ("td3", "CartPole-v1", "'td3' gives numbers as actions"),
        ("td3", "faulty_environments:test/Odd-v0", "scales its actions to their bounds"),
    ],
)
def test_an_agent_that_cannot_act_there(trainer, environment, message, tmp_path):
    options = {"options": ["which='unbounded'"]} if "Odd" in environment else {}
    with pytest.raises(ConfigError, match=message):
        spikecore.run(
            {"trainer": {"name": trainer}, "environment": {"name": environment, **options}}, out=tmp_path / "r"
        )


def test_wrong_options():
    with pytest.raises(ConfigError, match=r"trainer\.readout_tau: must be above 1, or 0 for no leak, got 0\.5"):
        resolve({"trainer": {"name": "ppo", "readout_tau": 0.5}})
    with pytest.raises(ConfigError, match=r"environment\.num_envs"):
        resolve({"trainer": {"name": "ppo"}, "environment": {"num_envs": 0}})
    with pytest.raises(OptionError, match="low"):
        PopulationMLP(nn.LIF, (1,), 1, low=2.0, high=1.0)


# The parts


def test_decoders_on_a_sequence_by_hand():
    out = torch.tensor([1.0, -4.0, 0.5]).reshape(3, 1, 1)
    # v of the leaky readout, tau = 2: 0.5, -1.75, -0.625; without leak: 1, -3, -2.5
    wanted = {"rate": -2.5 / 3, "last": -0.625, "max": 0.5, "mean": -1.875 / 3, "max_abs": -1.75}
    for decoder, value in wanted.items():
        assert Readout(decoder, 2.0)(out).item() == pytest.approx(value), decoder
    assert Readout("last", 0)(out).item() == -2.5
    assert Readout("max", 0)(out).item() == 1.0


def test_rate_is_a_linear_readout_of_firing_rates():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), nn.LIF(v_threshold=0.2), torch.nn.Linear(8, 2))
    x = torch.randn(5, 6, 3)
    spikes = net[1](net[0](x))
    assert 0 < float(spikes.detach().mean()) < 1
    torch.testing.assert_close(Readout("rate")(net(x)), net[2](spikes.mean(0)))


def policy_of(net, decoder="last"):
    return Policy(net, nn.Direct(num_steps=3), Readout(decoder), torch.device("cpu"))


def test_carried_state_goes_on_and_is_at_rest_again_where_an_episode_is_over():
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), nn.LIF(v_threshold=0.3), torch.nn.Linear(16, 2))
    policy, seen = policy_of(net), torch.randn(4, 3, 2)
    with torch.no_grad():
        rest = policy.rest(seen[0], None)
        first, state = policy.carry(seen[0], rest, None)
        second, _ = policy.carry(seen[1], state, None)
        assert torch.equal(first, policy(seen[0]))
        assert not torch.equal(second, policy(seen[1])), "it went on"
        # Two decisions with carried state are one sequence of twice the length, decoded by its last step.
        steps = torch.cat([observations.expand(3, 3, 2) for observations in seen[:2]])
        torch.testing.assert_close(second, policy.readout(net(steps)))
        over = torch.tensor([True, False, True])
        third, _ = policy.carry(seen[1], restarted(state, rest, over), None)
        assert torch.equal(third[over], policy(seen[1])[over])
        assert torch.equal(third[~over], second[~over])


def test_evaluation_plays_every_seed_once_whatever_the_order():
    config = EnvironmentConfig(name="CartPole-v1")
    spaces = inspect_environment(config)

    def returns(seeds):
        torch.manual_seed(0)
        policy = policy_of(torch.nn.Sequential(torch.nn.Linear(4, 2)))
        decider = Decider(policy, lambda out: out.argmax(-1), lambda x: x, False, torch.Generator())
        return play(config, spaces, decider, seeds).returns

    seeds = list(range(40))  # more than are played together
    together = returns(seeds)
    assert len(set(together)) > 3
    assert list(together) == [returns([seed])[0] for seed in seeds]


def test_normalizer_against_numpy():
    normalizer, generator = Normalizer((3,)), torch.Generator().manual_seed(0)
    batches = [torch.randn(size, 3, generator=generator) * 5 + 2 for size in (4, 1, 7)]
    for batch in batches:
        normalizer.see(batch)
    whole = torch.cat(batches).double().numpy()
    wanted = (whole - whole.mean(0)) / whole.std(0)
    np.testing.assert_allclose(normalizer(torch.cat(batches)).numpy(), wanted, rtol=1e-5, atol=1e-6)
    other = Normalizer((3,))
    other.load_state_dict(normalizer.state_dict())
    assert torch.equal(other(batches[0]), normalizer(batches[0]))


def test_operations_counted_by_hand():
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), nn.IF(v_threshold=1.0), torch.nn.Linear(4, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0], [0.0, 0.0]]))
        net[0].bias.zero_()
    policy = policy_of(net, "rate")
    # x = (1, 0.25) for 3 steps: neuron 0 fires 3 times, neuron 2 once (0.5 + 0.5), the others never.
    operations = policy.count_operations(torch.tensor([[1.0, 0.25]]))
    first, second = operations.products
    assert (first.macs, first.acs, first.dense) == (24.0, 0.0, 3 * 8.0)  # 2 · 4 connections, 3 steps
    assert (second.macs, second.acs, second.dense) == (0.0, 12.0, 3 * 12.0)  # 4 spikes to 3 outputs
    assert operations.total("spikes") == 4.0
    assert operations.energy_pj() == pytest.approx(24 * 4.6 + 12 * 0.9)
    assert energy_table(operations).rows[-1] == (
        *("all", 24.0, 12.0, pytest.approx(0.1212), 20.0),
        pytest.approx(20 * 4.6 / 1000),
    )


def test_the_readout_of_populations_is_counted():
    readout = PopulationReadout(3, 4)
    policy = Policy(readout, OneStep(), Readout("rate"), torch.device("cpu"))
    spikes = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]])
    (layer,) = policy.count_operations(spikes).products
    assert (layer.acs, layer.macs, layer.dense) == (5.0, 0.0, 12.0)
    wanted = (spikes.reshape(3, 4) * readout.weight).sum(-1) + readout.bias
    torch.testing.assert_close(readout(spikes)[0], wanted)


def test_an_ordinary_net_has_no_spikes():
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), nn.ReLU(), torch.nn.Linear(4, 3))
    policy = Policy(net, OneStep(), Readout("rate"), torch.device("cpu"))
    operations = policy.count_operations(torch.randn(5, 2))
    assert operations.total("spikes") == 0
    assert operations.energy_pj() == pytest.approx(20 * 4.6)


def test_receptive_fields_by_hand():
    fields = ReceptiveFields(2, 3, -1.0, 1.0, 0.5)
    seen = fields(torch.tensor([[0.0, 1.0]]))
    far, near = np.exp(-2.0), 1.0
    torch.testing.assert_close(seen, torch.tensor([[far, near, far, np.exp(-8.0), far, near]], dtype=torch.float32))


def test_the_integrators_of_a_population_spike_in_proportion():
    torch.manual_seed(0)
    net = PopulationMLP(lambda: nn.LIF(), (1,), 1, hidden=(4,), input_size=5, std=1.0)
    spikes = net.integrator(net.fields(torch.full((100, 1, 1), 0.3)))
    activations = net.fields(torch.full((1, 1), 0.3))
    torch.testing.assert_close(spikes.mean(0), activations, atol=0.011, rtol=0)


def test_pictures_are_left_out_with_a_warning_where_they_cannot_be_drawn(tmp_path, monkeypatch):
    from spikecore_rl_agents import animation

    def missing(*_, **__):
        raise PluginUnavailable("no pygame", "pip install 'spikecore-rl-agents[render]'")

    monkeypatch.setattr(animation, "make_environment", missing)
    table = merged(LIVELY, SMALL, PPO, {"trainer": {"iterations": 1, "rollout_steps": 8, "animation": True}})
    with pytest.warns(UserWarning, match=r"no picture of an episode: .*\[render\]"):
        spikecore.run(table, out=tmp_path / "run")
    assert not (tmp_path / "run" / "episode.gif").exists()


@pytest.mark.parametrize("name", ["drawing='raise'", "drawing='nothing'", REACH])
def test_a_trained_run_is_not_lost_for_a_picture(name, tmp_path):
    """A renderer that raises, one that gives no picture, and an environment that takes no `render_mode`."""
    environment = {"name": name} if name == REACH else {"name": DRAWN, "options": [name]}
    table = merged(LIVELY, SMALL, PPO, {"trainer": {"iterations": 1, "rollout_steps": 8, "animation": True}})
    with pytest.warns(UserWarning, match="no picture of an episode: .* cannot be drawn here"):
        result = spikecore.run({**table, "environment": environment}, out=tmp_path / "run")
    assert "test_return" in result.metrics
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("table", [DQN_REACH, TD3_REACH], ids=["dqn", "td3"])
def test_learning_starts_once_a_next_observation_is_known(table, tmp_path):
    early = {"learning_starts": 1, "iterations": 1, "iteration_steps": 40, "test_episodes": 1, "eval_episodes": 1}
    spikecore.run(merged(SMALL, LIVELY, table, {"trainer": early, "model": table.get("model", {})}), out=tmp_path / "r")
    (line,) = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert "loss" in line


@pytest.mark.parametrize("table", [PPO, DQN_REACH, TD3_REACH], ids=["ppo", "dqn", "td3"])
def test_a_net_that_diverged_is_told_and_no_environment_is_blamed(table, tmp_path):
    wild = {"lr": 1e38, "optimizer": "sgd", "max_grad_norm": 0.0, "iterations": 2, "evaluate_every": 1, "passes": 1}
    if table is not PPO:
        del wild["passes"]
    with pytest.raises(RunError, match=r"not finite, so no action can be chosen: training has diverged; .*trainer\.lr"):
        spikecore.run(merged(SMALL, LIVELY, table, {"trainer": wild}), out=tmp_path / "r")


@dataclass(frozen=True)
class Forgetful(Optimizer):
    """An optimizer of another plugin, whose author forgot the return."""

    def __call__(self, parameters, lr):
        torch.optim.SGD(parameters, lr)


@pytest.mark.parametrize("tables", [PPO, DQN_REACH, TD3_REACH], ids=["ppo", "dqn", "td3"])
def test_an_optimizer_that_returns_nothing_is_named(tables, tmp_path):
    tables = merged(SMALL, tables, {"trainer": {"optimizer": "forgetful"}})
    says = r"optimizer .*\.Forgetful must return a torch\.optim\.Optimizer .*got None"
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("optimizer", "forgetful", Forgetful)
        with pytest.raises(ContractError, match=says):
            spikecore.run(tables, out=tmp_path / "r")


def carrying_decider(policy):
    return Decider(policy, lambda out: out.argmax(-1), lambda x: x, True, torch.Generator())


def test_spikes_of_carried_state_are_counted_from_that_state():
    """An episode with carried state is one long sequence: L decisions of T steps."""
    config = EnvironmentConfig(name="CartPole-v1")
    torch.manual_seed(2)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), nn.LIF(tau=8.0, v_threshold=0.4), torch.nn.Linear(16, 2))
    policy = policy_of(net)
    episodes = play(config, inspect_environment(config), carrying_decider(policy), [5])
    seen = torch.cat([kept.observations for kept in episodes.decisions])
    (length,) = episodes.lengths
    assert len(seen) == length > 8
    counted = operations_of(policy, episodes.decisions)
    with torch.no_grad():
        spikes = net[1](net[0](seen.repeat_interleave(3, 0).unsqueeze(1)))
    assert counted.total("spikes") == pytest.approx(float(spikes.sum()) / length)
    assert counted["2"].acs == pytest.approx(2 * float(spikes.sum()) / length)
    assert (counted.num_samples, counted.num_steps) == (length, 3)
    assert counted.total("spikes") > 1.1 * policy.count_operations(seen).total("spikes"), "at rest they are fewer"
    assert torch.equal(net[1](net[0](seen[:3].unsqueeze(1))), net[1](net[0](seen[:3].unsqueeze(1)))), (
        "it did not change"
    )


@pytest.mark.parametrize("count", [3, 40])
def test_decisions_are_kept_from_the_whole_length_of_the_episodes(count, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_KEPT", 64)
    config = EnvironmentConfig(name="faulty_environments:test/Faulty-v0", options=("episode=45",))
    policy = policy_of(torch.nn.Linear(2, 2))
    decider = Decider(policy, lambda out: out.argmax(-1), lambda x: x, False, torch.Generator())
    episodes = play(config, inspect_environment(config), decider, list(range(count)))
    steps = torch.cat([kept.observations for kept in episodes.decisions])[:, 0]
    assert 16 <= len(steps) <= 64
    # Steps 0 to 44; a sample of the first ones alone has a mean below 11.
    assert float(steps.mean()) == pytest.approx(22, abs=4)
    seeds = {float(seed) for kept in episodes.decisions for seed in kept.observations[:, 1]}
    assert len(seeds) >= min(count, 8)
