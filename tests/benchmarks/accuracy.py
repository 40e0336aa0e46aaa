"""Test accuracy of the trainer `supervised` over seeds: docs/benchmarks/accuracy_NAME.csv.

    SPIKECORE_DATA=FOLDER python tests/benchmarks/accuracy.py [NAME ...]

`digits`, `ndigits` and `moving-bars` come with the plugins; MNIST is taken from the data folder where it lies there.
A row is the run of one seed; its configuration is in the row, so that `spike run` with these changes repeats it.
Training stops at its last epoch: the test split chooses nothing. One thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from table import write

import spikecore

SUPERVISED = {"name": "supervised", "val_share": 0.0}
FRAMES = {"name": "frames", "num_steps": 6}
CONFIGS: dict[str, tuple[tuple[int, ...], dict[str, dict[str, Any]]]] = {
    "digits": ((0, 1, 2, 3, 4), {"dataset": {"name": "digits"}, "trainer": SUPERVISED}),
    "ndigits": (
        (0, 1, 2, 3, 4),
        {
            "dataset": {
                "name": "ndigits",
                "representation": FRAMES,
                "transforms": [{"name": "downsample", "factor": 2}],
            },
            "model": {"name": "convnet", "channels": [32, 64]},
            "trainer": {**SUPERVISED, "batch_size": 16},
        },
    ),
    "moving-bars": ((0, 1, 2, 3, 4), {"dataset": {"name": "moving-bars"}, "trainer": SUPERVISED}),
    "mnist": (
        (0, 1, 2),
        {
            "dataset": {"name": "mnist"},
            "trainer": {**SUPERVISED, "epochs": 3, "batch_size": 100},
        },
    ),
}
"""Name → seeds, and the tables of the configuration."""


def row(name: str, seed: int, tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One run."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = {**tables, "run": {"seed": seed, "device": "cpu", "report": False}}
        result = spikecore.run(config, out=Path(folder) / "run")
    return {
        "dataset": name,
        "seed": seed,
        "test_accuracy": round(result.metrics["test_accuracy"], 5),
        "test_loss": round(result.metrics["test_loss"], 5),
        "seconds": round(time.perf_counter() - start, 1),
        "changes": " ".join(_changes(tables)),
    }


def _changes(tables: dict[str, dict[str, Any]]) -> list[str]:
    return [f"--set '{table}.{key}={_toml(value)}'" for table, keys in tables.items() for key, value in keys.items()]


def _toml(value: Any) -> str:
    """On one line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}={_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_toml, value)) + "]"
    return json.dumps(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*CONFIGS, []])
    names = parser.parse_args().names or list(CONFIGS)
    torch.set_num_threads(1)
    for name in names:
        seeds, tables = CONFIGS[name]
        rows = [row(name, seed, tables) for seed in seeds]
        print(name, [one["test_accuracy"] for one in rows], flush=True)
        write(f"accuracy_{name}", rows, "torch", "spikecore-training")


if __name__ == "__main__":
    main()
