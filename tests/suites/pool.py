"""Runs suites two at a time, each in a process of its own, as a rule with one thread, and measures their CPU time.

Budgets are CPU time, so that a busy machine fails nothing, stretched on a slow one (see `speed.py`). The output of a
suite is printed whole when the suite ends. A suite that hangs uses no CPU time: it is killed after `WALL_LIMIT_S`, long
after pytest's own limit for one test (`faulthandler_timeout`) should have shown where it waits; the reason of its
failure names that test. What a suite leaves running is killed too.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.suites.places import RESULTS, ROOT
from tests.suites.results import Result, clear, read

WIDTH = 2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""torch takes its number of threads from the first."""
WALL_LIMIT_S = 3600.0
"""The longest that a suite may take, its environment included; several times what the longest needs."""


@dataclass(frozen=True)
class Job:
    """A suite as the pool sees it.

    Args:
        name: of the suite.
        command: runs it and writes its `Result`.
        budget_s: the most CPU time its tests may take; None for no budget.
        all_threads: why it has all threads of the machine; "" when it has one.
    """

    name: str
    command: tuple[str, ...]
    budget_s: float | None = None
    all_threads: str = ""


@dataclass
class Pool:
    """Runs jobs.

    Args:
        results: the directory where jobs write their results, and where their output is kept.
        wall_limit_s: the longest that a job may take; it is killed then, and has failed.
    """

    results: Path = RESULTS
    wall_limit_s: float = WALL_LIMIT_S
    _start: float = field(default_factory=time.monotonic)
    _running: dict[int, Job] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, jobs: Sequence[Job]) -> bool:
        """Run all; True when every one passed within its budget."""
        self.results.mkdir(parents=True, exist_ok=True)
        clear([job.name for job in jobs], self.results)
        # The longest first: a long job that starts last would run alone.
        ordered = sorted(jobs, key=lambda job: -(job.budget_s or 0.0))
        workers = ThreadPoolExecutor(WIDTH)
        try:
            futures = [workers.submit(self._run, job) for job in ordered]
            passed = [future.result() for future in futures]
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)  # waiting suites must not start
            self._stop()
            raise
        workers.shutdown()
        return all(passed)

    def _run(self, job: Job) -> bool:
        log = self.results / f"{job.name}.log"
        environment = dict(os.environ) if job.all_threads else {**os.environ, **ONE_THREAD}
        start = time.monotonic()
        self._say(f"=== {job.name} starts, {start - self._start:.0f} s after the first")
        with log.open("wb") as output:
            process = subprocess.Popen(
                job.command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all of it can be stopped at once
            )
            self._running[process.pid] = job
            late = threading.Event()

            def stop_late(group: int = process.pid) -> None:
                late.set()
                _kill(group)

            watch = threading.Timer(self.wall_limit_s, stop_late)
            watch.start()
            _, status, usage = os.wait4(process.pid, 0)
            watch.cancel()
            del self._running[process.pid]
            _kill(process.pid)  # children that outlived it
        process.returncode = os.waitstatus_to_exitcode(status)
        result = read(job.name, self.results)
        if result is None and late.is_set():
            result = Result(job.name, False, f"killed: it did not end within {self.wall_limit_s:g} s")
        elif result is None:
            result = Result(job.name, False, f"ended with status {process.returncode} and left no result")
        if not result.ok and not any(result.counts.values()) and (names := _hanging_tests(log)):
            result.reason += f", in {', '.join(names)}"
        result.wall_s = time.monotonic() - start
        result.cpu_s = usage.ru_utime + usage.ru_stime - result.setup_cpu_s
        result.budget_s = job.budget_s
        result.write(self.results)
        self._show(job, result, log.read_bytes())
        return result.ok and process.returncode == 0 and not result.is_past_budget()

    def _show(self, job: Job, result: Result, output: bytes) -> None:
        verdict = "passed" if result.ok else f"FAILED: {result.reason}"
        with self._lock:
            sys.stdout.write(f"\n=== {job.name}\n")
            sys.stdout.write(output.decode(errors="replace"))
            sys.stdout.write(f"=== {job.name}: {verdict} ({result.cpu_s:.0f} s of CPU in {result.wall_s:.0f} s)\n")
            sys.stdout.flush()

    def _say(self, line: str) -> None:
        with self._lock:
            print(line, flush=True)

    def _stop(self) -> None:
        for pid in list(self._running):
            _kill(pid)


def _hanging_tests(log: Path) -> list[str]:
    """The tests that were running when pytest showed where every thread is, which it does at its limit for one test."""
    output = log.read_text(encoding="utf-8", errors="replace")
    return list(dict.fromkeys(re.findall(r'^  File ".*", line \d+ in (test_\w+)$', output, re.MULTILINE)))


def _kill(group: int) -> None:
    """Kill the processes of a group, if there are any left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
