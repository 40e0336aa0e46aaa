"""`make fuzz`: every target in turn under atheris, within a budget of time; goes on where the last call stopped.

First every target gets 10⁶ inputs in all, then those that are fast enough get 10⁷. What a target leaves of its share
of the time goes to the targets after it. The inputs that reach new code are kept in .build/fuzz/TARGET, the sums of all
calls in docs/benchmarks/fuzz.csv. An input that makes a parser raise anything but an error of ours stays as
.build/fuzz/TARGET-crash-…, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import csv
import re
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.targets import CORPUS, LIBRARIES, scratch, targets

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".build" / "fuzz"
TABLE = ROOT / "docs" / "benchmarks" / "fuzz.csv"
HEAD = ("target", "inputs", "cpu_s", "slowest_s", "most_rss_mib", "branches", "findings")
GOALS = (10**6, 10**7)
"""Of inputs, for a target; the second where it takes `LEAST_RATE` a second."""
LEAST_RATE = 5000
STATISTICS = {"inputs": "number_of_executed_units", "slowest_s": "slowest_unit_time_sec", "most_rss_mib": "peak_rss_mb"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="in all, shared evenly")
    parser.add_argument("--target", action="append", help="only these")
    arguments = parser.parse_args()
    names = arguments.target or [name for name in targets(scratch()) if is_readable(name)]
    end = time.monotonic() + arguments.seconds
    rows = read_table()
    num_findings = 0
    for goal in GOALS:
        waiting = [name for name in names if num_inputs(rows.get(name)) < goal and is_fast_enough(rows.get(name), goal)]
        while waiting and end - time.monotonic() >= 1:
            name = waiting.pop(0)
            seconds = max(1, int((end - time.monotonic()) / (len(waiting) + 1)))
            row = fuzz(name, seconds, goal - num_inputs(rows.get(name)))
            num_findings += int(row["findings"])
            rows[name] = added(rows.get(name), row)
            write_table(rows)
            print(", ".join(f"{key} {value}" for key, value in rows[name].items()), flush=True)
    return int(num_findings > 0)


def is_readable(name: str) -> bool:
    """The library is there, without which the target would refuse everything."""
    library = LIBRARIES.get(name)
    if library is None or find_spec(library):
        return True
    print(f"{name} is left out: {library} is not installed", file=sys.stderr)
    return False


def num_inputs(row: dict[str, str] | None) -> int:
    return int(row["inputs"]) if row else 0


def is_fast_enough(row: dict[str, str] | None, goal: int) -> bool:
    """Whether a target may go on to a goal above the first: 5000 inputs in a second of CPU time."""
    return goal == GOALS[0] or num_inputs(row) >= LEAST_RATE * max(1, int(row["cpu_s"] if row else 0))


def fuzz(name: str, seconds: int, most_inputs: int) -> dict[str, str]:
    """Run a target for a while; its row of the table.

    Raises:
        SystemExit: the fuzzer did not start.
    """
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-runs={most_inputs}"]
    limits += ["-timeout=20", "-rss_limit_mb=2048", "-max_len=36000"]
    command = [sys.executable, "-m", "tests.fuzz.one", name, *limits, "-print_final_stats=1"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    places = [f"-artifact_prefix={BUILD}/{name}-", str(folder), str(CORPUS / name)]
    done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, errors="replace")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stdout + done.stderr
    if "INFO: Seed" not in said:  # libFuzzer's first line
        raise SystemExit(f"the fuzzer of {name} did not start: {said[-3000:]}")
    branches = re.findall(r"\bcov: (\d+)", said)
    if not branches:
        raise SystemExit(f"{name} is fuzzed blindly: none of its modules is instrumented, see tests/fuzz/one.py")
    row = {"target": name, "findings": "0"}
    for column, statistic in STATISTICS.items():
        number = re.search(rf"stat::{statistic}:\s+(\d+)", said)
        row[column] = number[1] if number else "0"
    row["branches"] = branches[-1]
    row["cpu_s"] = f"{after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.0f}"
    if done.returncode:
        row["findings"] = "1"
        print(said[-3000:], file=sys.stderr)
    return row


def added(old: dict[str, str] | None, new: dict[str, str]) -> dict[str, str]:
    """Sums and maxima of what was measured before and now; findings are those of now."""
    if old is None:
        return {key: new[key] for key in HEAD}
    sums = {key: str(int(old[key]) + int(new[key])) for key in ("inputs", "cpu_s")}
    most = {key: str(max(int(old[key]), int(new[key]))) for key in ("slowest_s", "most_rss_mib", "branches")}
    row = {**new, **sums, **most}
    return {key: row[key] for key in HEAD}


def read_table() -> dict[str, dict[str, str]]:
    """Target → its row."""
    if not TABLE.is_file():
        return {}
    with TABLE.open(newline="") as file:
        return {row["target"]: row for row in csv.DictReader(file)}


def write_table(rows: dict[str, dict[str, str]]) -> None:
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEAD, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


if __name__ == "__main__":
    sys.exit(main())
