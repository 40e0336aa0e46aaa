"""Steps per second of spiking PPO beside ordinary PPO, and of the backend `cpu` beside `torch`, all in one process.

    OMP_NUM_THREADS=1 python plugins/rl-agents/figures/speed.py

The agent around the net: steps per second of rollouts after the time inside the nets is taken off, spiking over
ordinary. The backends: rollouts and updates at T = 16. Seconds are CPU time of the one thread, and the variants take
turns, each round in another order, so that neither load of the machine nor the variant before matters much; the median
of the rounds is kept. It writes `docs/benchmarks/rl-speed.csv`.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import spikecore
from spikecore_rl_agents.on_policy import OnPolicy
from spikecore_rl_agents.ppo import PPO

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docs" / "benchmarks" / "rl-speed.csv"
NUM_ENVS, STEPS, ITERATIONS = 4, 128, 4
LIF = {"name": "lif", "decay_input": False, "v_threshold": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "ordinary": {"neuron": {"name": "relu"}, "encoder": {"num_steps": 1}, "backend": {"name": "torch"}},
    "spiking, T = 4, cpu": {"neuron": LIF, "encoder": {"num_steps": 4}, "backend": {"name": "cpu"}},
    "spiking, T = 4, torch": {"neuron": LIF, "encoder": {"num_steps": 4}, "backend": {"name": "torch"}},
    "spiking, T = 16, cpu": {"neuron": LIF, "encoder": {"num_steps": 16}, "backend": {"name": "cpu"}},
    "spiking, T = 16, torch": {"neuron": LIF, "encoder": {"num_steps": 16}, "backend": {"name": "torch"}},
}
HEAD = (
    "variant",
    "steps_per_s",
    "steps_per_s_without_nets",
    "agent_ratio",
    "rollout_s",
    "nets_s",
    "learn_s",
    "total_s",
)


class Watch:
    """Time of the rollouts, of the nets inside them, and of the updates."""

    def __init__(self) -> None:
        self.rollout_s = self.nets_s = self.learn_s = 0.0
        self._original: Callable[..., Any] = OnPolicy.collect
        self._learn: Callable[..., Any] = PPO.learn

    def __enter__(self) -> Watch:
        watch, original, original_learn = self, self._original, self._learn

        def collect(agent: OnPolicy, *arguments: Any) -> Any:
            nets = [agent.actor_brain.policy.net, agent.critic_brain.policy.net]
            handles = [net.register_forward_pre_hook(watch._enter) for net in nets]
            handles += [net.register_forward_hook(watch._leave) for net in nets]
            begin = time.process_time()
            rollout = original(agent, *arguments)
            watch.rollout_s += time.process_time() - begin
            for handle in handles:
                handle.remove()
            return rollout

        def learn(agent: PPO, *arguments: Any) -> Any:
            begin = time.process_time()
            metrics = original_learn(agent, *arguments)
            watch.learn_s += time.process_time() - begin
            return metrics

        OnPolicy.collect = collect  # type: ignore[method-assign]
        PPO.learn = learn  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        OnPolicy.collect = self._original  # type: ignore[method-assign]
        PPO.learn = self._learn  # type: ignore[method-assign]

    def _enter(self, *_: object) -> None:
        self._begin = time.process_time()

    def _leave(self, *_: object) -> None:
        self.nets_s += time.process_time() - self._begin


def measure(name: str, directory: Path) -> dict[str, float]:
    """One short run of a variant."""
    trainer = {
        "name": "ppo",
        "iterations": ITERATIONS,
        "rollout_steps": STEPS,
        "critic": "ordinary",
        "animation": False,
    }
    tables = {
        **VARIANTS[name],
        "environment": {"name": "CartPole-v1", "num_envs": NUM_ENVS},
        "model": {"name": "mlp", "hidden": [64, 64]},
        "trainer": {**trainer, "evaluate_every": ITERATIONS, "eval_episodes": 1, "test_episodes": 1},
        "run": {"report": False},
    }
    with Watch() as watch:
        spikecore.run(tables, out=directory)
    steps = ITERATIONS * STEPS * NUM_ENVS
    return {
        "steps_per_s": steps / watch.rollout_s,
        "steps_per_s_without_nets": steps / (watch.rollout_s - watch.nets_s),
        "rollout_s": watch.rollout_s,
        "nets_s": watch.nets_s,
        "learn_s": watch.learn_s,
        "total_s": watch.rollout_s + watch.learn_s,
    }


def main() -> None:
    """Measure in turns, write, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as place:
        # The first round warms up and is not counted.
        for number in range(rounds + 1):
            names = list(VARIANTS)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                numbers = measure(name, Path(place) / f"{number}-{names.index(name)}")
                if number:
                    measured[name].append(numbers)
    rows = []
    for name, runs in measured.items():
        # Ratios are of the same round, under the same load.
        pairs = zip(runs, measured["ordinary"], strict=True)
        ratios = [run["steps_per_s_without_nets"] / other["steps_per_s_without_nets"] for run, other in pairs]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append({"variant": name, "agent_ratio": statistics.median(ratios), **middle})
    text = io.StringIO()
    writer = csv.DictWriter(text, HEAD, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: value if isinstance(value, str) else f"{value:.4g}" for key, value in row.items()})
        print(f"{row['variant']}: {row['steps_per_s_without_nets']:.0f} steps/s, {row['agent_ratio']:.2f} of ordinary")
    for num_steps in (4, 16):
        pairs = zip(
            measured[f"spiking, T = {num_steps}, torch"], measured[f"spiking, T = {num_steps}, cpu"], strict=True
        )
        ratio = statistics.median(slow["total_s"] / fast["total_s"] for slow, fast in pairs)
        print(f"T = {num_steps}: the backend cpu is {ratio:.2f} times as fast as torch")
    aside = FILE.with_suffix(".part")
    aside.write_text(text.getvalue())
    aside.replace(FILE)
    print(f"wrote {FILE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
