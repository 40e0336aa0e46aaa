"""Returns of stable-baselines3's agents on the environments of the other figures, with as many steps and as large nets.

    pip install -c constraints.txt stable-baselines3==2.9.2      # into an environment of its own
    OMP_NUM_THREADS=1 python plugins/rl-agents/figures/reference.py ppo --seeds 1 2

The settings are those of `figures/*-ordinary.toml` where the library has them; observations are not normalized, and the
last net is measured, on 100 fresh episodes. `docs/benchmarks/rl-reference.csv` keeps the rows of other calls.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3 as peer
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docs" / "benchmarks" / "rl-reference.csv"
HEAD = ("algorithm", "environment", "seed", "test_return", "test_std", "steps", "train_s", "library")
EPISODES = 100
SMALL: dict[str, Any] = {"net_arch": [64, 64]}
AGENTS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "ppo": (
        *("CartPole-v1", 4, 76_800),
        {"n_steps": 128, "batch_size": 128, "n_epochs": 10, "learning_rate": 1e-3, "policy_kwargs": SMALL},
    ),
    "dqn": (
        *("CartPole-v1", 1, 25_000),
        {
            "learning_rate": 3e-4,
            "batch_size": 128,
            "train_freq": 1,
            "learning_starts": 1000,
            "tau": 0.005,
            "buffer_size": 50_000,
            "target_update_interval": 1,
            "exploration_fraction": 0.2,
            "exploration_final_eps": 0.02,
            "policy_kwargs": SMALL,
        },
    ),
    "td3": (
        *("Pendulum-v1", 1, 10_000),
        {
            "learning_rate": 1e-3,
            "batch_size": 128,
            "learning_starts": 1000,
            "train_freq": 1,
            "action_noise": "0.1",
            "policy_kwargs": {"net_arch": {"pi": [64, 64], "qf": [128, 128]}},
        },
    ),
}
"""Algorithm → environment, how many of them, steps of all together, options."""


def train(algorithm: str, seed: int) -> dict[str, object]:
    """One agent, measured on fresh episodes."""
    environment, num_envs, steps, options = AGENTS[algorithm]
    options = dict(options)
    if "action_noise" in options:
        deviation = float(options["action_noise"]) * np.ones(1)
        options["action_noise"] = peer.common.noise.NormalActionNoise(np.zeros(1), deviation)
    begin = time.perf_counter()
    agent = getattr(peer, algorithm.upper())(
        "MlpPolicy", make_vec_env(environment, num_envs, seed=seed), seed=seed, device="cpu", **options
    )
    agent.learn(steps)
    train_s = time.perf_counter() - begin
    returns, _ = evaluate_policy(
        agent, make_vec_env(environment, 1, seed=10_000 + seed), EPISODES, return_episode_rewards=True
    )
    return {
        "algorithm": algorithm,
        "environment": environment,
        "seed": seed,
        "test_return": round(float(np.mean(returns)), 2),
        "test_std": round(float(np.std(returns)), 2),
        "steps": steps,
        "train_s": round(train_s, 1),
        "library": f"stable-baselines3 {peer.__version__}, gymnasium {gymnasium.__version__}",
    }


def write(new: dict[str, object]) -> None:
    """Put a row into the file, in the place of an older one."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    if FILE.exists():
        with FILE.open(newline="") as file:
            rows = {(line["algorithm"], line["seed"]): dict(line) for line in csv.DictReader(file)}
    rows[str(new["algorithm"]), str(new["seed"])] = new
    text = io.StringIO()
    writer = csv.DictWriter(text, HEAD, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[key] for key in sorted(rows))
    aside = FILE.with_suffix(".part")
    aside.write_text(text.getvalue())
    aside.replace(FILE)


def main() -> None:
    """Train one agent after the other; each is written when it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithm", choices=sorted(AGENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        done = train(arguments.algorithm, seed)
        write(done)
        print(f"{done['algorithm']} {done['environment']} seed {seed}: {done['test_return']} in {done['train_s']} s")


if __name__ == "__main__":
    main()
