"""Runs suites of tests.

    python -m tests.suites test              core; each plugin alone; the torch-free part on other Pythons
    python -m tests.suites check             wheels, examples, new plugins, other libraries, browser, plugins together
    python -m tests.suites check test        both in one pool
    python -m tests.suites run NAME [ARG]…   one suite, here and now, with further arguments of pytest
    python -m tests.suites bench             measures, with every plugin and other libraries

All but `run` and `bench` end with a closing pytest run that has one item per suite.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.suites import running, speed, table
from tests.suites.bench import bench
from tests.suites.places import RESULTS, ROOT
from tests.suites.pool import Job, Pool

ACTIONS = ("test", "check")


def run_all(actions: Sequence[str]) -> bool:
    """Run the suites of these actions in one pool; True when all passed."""
    chosen = [suite for suite in table.suites().values() if suite.action in actions]
    stretch = speed.slowness()
    print(f"this machine needs {stretch:.2f} times the CPU time that budgets are stated for", flush=True)
    jobs = []
    for suite in chosen:
        command = (sys.executable, "-m", "tests.suites", "run", suite.name)
        budget_s = None if suite.budget_s is None else stretch * suite.budget_s
        jobs.append(Job(suite.name, command, budget_s, table.ALL_THREADS.get(suite.name, "")))
    passed = Pool().run(jobs)
    return close([suite.name for suite in chosen]) and passed


def close(names: Sequence[str]) -> bool:
    """The closing pytest run over the results of these suites; its summary is the last output."""
    command = [sys.executable, "-m", "pytest", "tests/closing", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "SPIKE_RESULTS": str(RESULTS), "SPIKE_SUITES": ",".join(names)}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode == 0


def run_one(name: str, arguments: Sequence[str]) -> bool:
    """Run one suite and keep its result."""
    result = running.run(table.suites()[name], arguments)
    result.write()
    return result.ok


def main(arguments: list[str]) -> int:
    """0 when everything passed."""
    action, *rest = arguments or [""]
    if action == "run" and rest and rest[0] in table.suites():
        return 0 if run_one(rest[0], rest[1:]) else 1
    if action == "bench" and not rest:
        bench()
        return 0
    if arguments and set(arguments) <= set(ACTIONS):
        return 0 if run_all(arguments) else 1
    print(__doc__, file=sys.stderr)
    print("suites:", *table.suites(), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
