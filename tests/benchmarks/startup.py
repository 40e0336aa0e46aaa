"""CPU time of `import spikecore` and of `spike list-plugins` with 200 more distributions, each beside bare Python.

    python tests/benchmarks/startup.py

User plus system time of whole processes, the candidates taking turns, medians of 15.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from table import write

from spikecore.testing.distributions import fake_distribution

ROUNDS = 15
DISTRIBUTIONS = 200
CANDIDATES = {
    "bare python": ["-c", "pass"],
    "python with click": ["-c", "import click"],
    "import spikecore": ["-c", "import spikecore"],
    "spike list-plugins": ["-m", "spikecore", "list-plugins"],
}


def cpu_seconds(arguments: list[str], site: str) -> float:
    """User and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": site}
    subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for index in range(DISTRIBUTIONS):
            groups = {
                "spikecore.plugins": {f"p{index}": f"p{index}"},
                "spikecore.neurons": {f"n{index}": f"p{index}:N"},
            }
            fake_distribution(Path(folder), f"spikecore-p{index}", groups, requires=("spikecore>=0.1,<1", "numpy>=1.2"))
        times: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        for _ in range(ROUNDS):
            for name, arguments in CANDIDATES.items():
                times[name].append(cpu_seconds(arguments, folder))
    floor = statistics.median(times["bare python"])
    rows = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        rows.append(
            {
                "what": name,
                "distributions": DISTRIBUTIONS,
                "cpu_ms_median": round(1000 * median, 1),
                "cpu_ms_min": round(1000 * min(seconds), 1),
                "above_bare_python_ms": round(1000 * (median - floor), 1),
                "rounds": ROUNDS,
            }
        )
        print(f"{name:20s} {1000 * median:6.1f} ms of CPU, {1000 * (median - floor):6.1f} above bare Python")
    print(write("startup", rows, "click", "pluggy"))


if __name__ == "__main__":
    main()
