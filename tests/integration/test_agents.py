"""Agents of rl-agents with neurons, encoders and backends of other plugins."""

import json

import pytest
import torch

import spikecore

REACH = "spikecore_rl_agents:spikecore/Reach-v0"
SHORT = {"eval_episodes": 8, "test_episodes": 32, "animation": False}
PPO = {"name": "ppo", "iterations": 10, "rollout_steps": 32, "passes": 4, "critic": "ordinary", "lr": 3e-3, **SHORT}
TD3 = {
    "name": "td3",
    "iterations": 6,
    "iteration_steps": 80,
    "learning_starts": 80,
    "minibatch": 32,
    "critic_hidden": [32, 32],
    "target_rate": 0.05,
    "lr": 5e-3,
    "critic_lr": 5e-3,
    **SHORT,
}
POPULATION = {"name": "population_mlp", "gain": 1.0, "hidden": [16], "input_size": 6, "output_size": 16}
GROUPS = {"num_groups": 1, "group_size": 16}
RUNS = {
    "connected within the layer": {
        "trainer": TD3,
        "model": POPULATION,
        "neuron": {"name": "ilc_cuba_lif", **GROUPS},
    },
    "noisy": {
        "trainer": {**TD3, "noise": 0.0},
        "model": POPULATION,
        "neuron": {"name": "noisy_cuba_lif", "num_features": 16},
    },
    "noisy and connected": {
        "trainer": {**TD3, "noise": 0.0},
        "model": POPULATION,
        "neuron": {"name": "noisy_ilc_cuba_lif", **GROUPS},
    },
    "a population code that learns, the C backend": {
        "trainer": PPO,
        "encoder": {"name": "population", "num_steps": 4, "size": 6, "low": -11.0, "high": 11.0, "std": 1.5},
        "model": {"name": "mlp", "hidden": [16]},
        "neuron": {"name": "lif", "decay_input": False, "v_threshold": 0.5},
        "backend": {"name": "cpu"},
    },
}


@pytest.mark.parametrize("tables", RUNS.values(), ids=RUNS)
def test_an_agent_learns_and_repeats_itself(tables, tmp_path):
    whole = {"environment": {"name": REACH}, "run": {"report": False, "seed": 1}, "encoder": {"num_steps": 4}, **tables}
    result = spikecore.run(whole, out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    untrained = lines[0]["train_return"]
    assert result.metrics["test_return"] > 0.6 * untrained, "it loses little less than the first episodes did"
    assert result.metrics["test_spikes"] > 0.5
    state = torch.random.get_rng_state()
    again = spikecore.run(whole, out=tmp_path / "again")
    assert again.metrics == result.metrics
    torch.random.set_rng_state(state)
