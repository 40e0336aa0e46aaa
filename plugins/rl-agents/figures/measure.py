"""`make figures-rl ALGORITHM=ppo`: trains spiking and ordinary agents, five seeds each, and writes one CSV.

    python plugins/rl-agents/figures/measure.py ppo --jobs 2 --spike .build/envs/plugins/bin/spike

Every run is one thread. It is measured by the checkpoint that its own evaluation selects, on 100 episodes from seeds
that neither training nor that evaluation began with. What is done is kept in `.build/figures-rl`: started again, it
goes on with what is missing, also within a run. `--allow-partial` writes what there is. Rows of the CSV that this call
does not measure (other seeds, nets and environments) stay as they are.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
KEPT = ROOT / ".build" / "figures-rl"
SEEDS = range(1, 6)
SOLVED = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "Pendulum-v1": -200.0}
HEAD = (
    *("algorithm", "environment", "net", "seed", "test_return", "solved", "best_val_return", "steps", "train_s"),
    *("steps_per_s", "spikes_per_decision", "energy_nj", "config", "overrides", "versions"),
)


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        algorithm: of the agent.
        config: its file.
        net: `spiking` or `ordinary`.
        seed: `run.seed`.
    """

    algorithm: str
    config: Path
    net: str
    seed: int

    @property
    def directory(self) -> Path:
        """Of the run."""
        return KEPT / self.config.stem / f"{self.net}-{self.seed}"

    @property
    def overrides(self) -> list[str]:
        """What differs from the file."""
        # A neuron's own options are not those of `relu`: the ordinary net has a file of its own beside.
        return [f"run.seed={self.seed}"]

    @property
    def file(self) -> Path:
        """The configuration of this net."""
        return self.config if self.net == "spiking" else self.config.with_name(f"{self.config.stem}-ordinary.toml")


def cells(algorithm: str, seeds: Iterable[int] = SEEDS) -> list[Cell]:
    """All runs of an algorithm: seed by seed, so that an early stop leaves something to compare."""
    files = sorted(path for path in HERE.glob(f"{algorithm}-*.toml") if not path.stem.endswith("-ordinary"))
    nets = ("spiking", "ordinary")
    return [Cell(algorithm, file, net, seed) for file in files for seed in seeds for net in nets]


def train(cell: Cell, spike: str) -> None:
    """Do what is missing of a run."""
    status = status_of(cell)
    check_settings(cell, begins=status is None)
    if status == "finished":
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if status is None:
        command = [spike, "run", str(cell.file), "--out", str(cell.directory)]
        for override in cell.overrides:
            command += ["--set", override]
    else:
        command = [spike, "run", "--resume", str(cell.directory)]
    log = cell.directory.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        done = subprocess.run(command, env=environment, stdout=file, stderr=file, cwd=ROOT)
    print(f"{cell.directory.relative_to(KEPT)}: {'done' if done.returncode == 0 else f'failed, see {log}'}", flush=True)


def check_settings(cell: Cell, begins: bool) -> None:
    """A run that is kept was trained by the file as it stands; one that begins leaves a copy of it."""
    copy, wanted = cell.directory.with_suffix(".toml"), cell.file.read_text()
    if begins:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(wanted)
    elif not copy.exists() or copy.read_text() != wanted:
        raise SystemExit(f"{cell.directory} was trained with other settings than {cell.file}: delete it, or go back")


def status_of(cell: Cell) -> str | None:
    """Of a run; None where it never began."""
    try:
        return str(json.loads((cell.directory / "run.json").read_text())["status"])
    except FileNotFoundError:
        return None


def row(cell: Cell, spike: str) -> dict[str, object]:
    """A line of the CSV; the net is played again, by its best checkpoint."""
    record = json.loads((cell.directory / "run.json").read_text())
    lines = [json.loads(line) for line in (cell.directory / "metrics.jsonl").read_text().splitlines()]
    kept = cell.directory / "best.json"
    if not kept.exists():
        command = [spike, "eval", str(cell.directory), "--checkpoint", "best", "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        kept.write_text(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    metrics = json.loads(kept.read_text())["metrics"]
    times = record["timings_s"]
    trained = times["rollout"] + times["learn"] if "rollout" in times else times["train"]
    name, steps = record["config"]["environment"]["name"], lines[-1]["steps"]
    versions = {plugin["distribution"]: plugin["version"] for plugin in record["plugins"]}
    return {
        "algorithm": cell.algorithm,
        "environment": name,
        "net": cell.net,
        "seed": cell.seed,
        "test_return": round(metrics["test_return"], 2),
        "solved": metrics["test_return"] >= SOLVED[name],
        "best_val_return": max(line["val_return"] for line in lines if "val_return" in line),
        "steps": steps,
        "train_s": round(times["total"], 1),
        "steps_per_s": round(steps / trained),
        "spikes_per_decision": round(metrics["test_spikes"], 2),
        "energy_nj": round(metrics["test_energy_nj"], 3),
        "config": str(cell.file.relative_to(ROOT)),
        "overrides": " ".join(cell.overrides),
        "versions": ", ".join(f"{key} {versions[key]}" for key in sorted(versions)),
    }


def merged(before: list[dict[str, str]], new: list[dict[str, object]]) -> list[dict[str, object]]:
    """All rows, each new one in the place of that of the same environment, net and seed; in the order of `cells`."""
    rows: dict[tuple[str, int, str], dict[str, object]] = {}
    for line in [*before, *new]:
        rows[str(line["environment"]), int(str(line["seed"])), str(line["net"])] = dict(line)
    return [rows[key] for key in sorted(rows, key=lambda key: (key[0], key[1], key[2] != "spiking"))]


def write(algorithm: str, done: list[Cell], spike: str) -> Path:
    """The CSV, whole or not at all."""
    path = ROOT / "docs" / "benchmarks" / f"rl-{algorithm}.csv"
    before = []
    if path.exists():
        with path.open(newline="") as file:
            before = list(csv.DictReader(file))
    rows = merged(before, [row(cell, spike) for cell in done])
    text = io.StringIO()
    writer = csv.DictWriter(text, HEAD, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    aside = path.with_suffix(".part")
    aside.write_text(text.getvalue())
    aside.replace(path)
    for name in sorted({(line["environment"], line["net"]) for line in rows}):
        returns = [float(str(line["test_return"])) for line in rows if (line["environment"], line["net"]) == name]
        solved = sum(value >= SOLVED[str(name[0])] for value in returns)
        mean = statistics.mean(returns)
        print(f"{name[0]} {name[1]}: mean return {mean:.1f}, {solved} of {len(returns)} seeds solve it")
    return path


def main() -> None:
    """Train, then write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithm", choices=("ppo", "a2c", "dqn", "td3"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--spike", default=str(Path(sys.executable).with_name("spike")))
    parser.add_argument("--only", default="", help="part of the configuration's name")
    parser.add_argument("--net", default="", help="spiking or ordinary")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="one run and one thread each")
    parser.add_argument("--allow-partial", action="store_true", help="train nothing; write what is finished")
    arguments = parser.parse_args()
    wanted = [
        cell
        for cell in cells(arguments.algorithm, arguments.seeds)
        if arguments.only in cell.config.stem and arguments.net in cell.net
    ]
    if not wanted:
        raise SystemExit(f"no {arguments.algorithm}-*.toml with {arguments.only!r} in {HERE}")
    if not arguments.allow_partial:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda cell: train(cell, arguments.spike), wanted))
    done = [cell for cell in wanted if status_of(cell) == "finished"]
    missing = [cell for cell in wanted if cell not in done]
    if not done:
        raise SystemExit("no run is finished: nothing is written")
    if missing and not arguments.allow_partial:
        raise SystemExit(f"{len(missing)} runs are not finished; start this again to go on with them")
    print(f"wrote {write(arguments.algorithm, done, arguments.spike).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
