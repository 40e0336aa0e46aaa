"""How slow this machine is, by the CPU time of a fixed piece of work.

Machines of clouds differ by a factor of three: budgets in seconds mean something on one of them only. The work is
what suites spend most on: processes of Python that import torch. Two of them run at a time, as suites do.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

WORK = "import torch"
REFERENCE_S = 3.5
"""CPU time of `WORK` on the machine that budgets are stated for: two cores of an AMD EPYC of family 25 (2021)."""
LEAST, MOST = 0.5, 4.0
"""A faster machine does not make budgets smaller, and a slower one not larger, than these shares of themselves."""
ROUNDS = 3


def slowness() -> float:
    """CPU time of this machine for what takes 1 s where budgets are stated; from `LEAST` to `MOST`."""
    times = [seconds for _ in range(ROUNDS) for seconds in _pair()]
    return min(MOST, max(LEAST, statistics.median(times) / REFERENCE_S))


def _pair() -> list[float]:
    """User and system time of two processes that run at once."""
    children = [subprocess.Popen([sys.executable, "-c", WORK]) for _ in range(2)]
    times = []
    for child in children:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, child.args)
        times.append(usage.ru_utime + usage.ru_stime)
    return times
