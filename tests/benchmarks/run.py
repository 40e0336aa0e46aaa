"""`spike run` from beginning to end, on every backend that can be used here, in turns: docs/benchmarks/run.csv.

The default configuration: a small spiking net on handwritten digits. Medians of what each run's record says.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from table import write

from spikecore.bench.candidates import backends

ROUNDS = 5
PARTS = ("forward", "backward", "total")


def one_run(backend: str, folder: Path) -> dict[str, float]:
    """Seconds by part; the run must have been executed by this backend."""
    command = [sys.executable, "-m", "spikecore", "run", "--set", f"backend.name={backend}", "--out", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    record = json.loads((folder / "run.json").read_text())
    ran = {choice["ran"] for choice in record["backends"].values()}
    if ran != {backend}:
        raise SystemExit(f"asked for {backend}, ran on {ran}")
    return {part: record["timings_s"][part] for part in PARTS}


def main() -> None:
    usable, reasons = backends()
    for name, reason in reasons.items():
        print(f"{name} is left out: {reason}")
    names = [candidate.name for candidate in usable]
    runs_by_name: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            for name in names:
                runs_by_name[name].append(one_run(name, Path(folder, f"{name}-{turn}")))
    medians = {
        n: {part: statistics.median(run[part] for run in runs) for part in PARTS} for n, runs in runs_by_name.items()
    }
    rows = []
    for name, parts in medians.items():
        row: dict[str, object] = {"backend": name, "rounds": ROUNDS}
        for part, seconds in parts.items():
            row[f"{part}_s"] = round(seconds, 3)
            row[f"{part}_times_faster"] = round(medians["torch"][part] / seconds, 2)
        rows.append(row)
        print(row)
    print(write("run", rows, "torch"))


if __name__ == "__main__":
    main()
