"""Peak memory of one call, minus the memory before it.

On the CPU a forked child makes the call and the kernel counts its resident pages. That covers every allocator,
including memory that a backend or a pool takes from the system, and is precise to about 1 MiB. The child starts with
its parent's memory, so the parent must run one thread. On an accelerator, torch's own allocator counts.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

Run = Callable[[], object]
MIB = 1 << 20
CHILD_TIMEOUT_S = 120


def peak_mib(make: Callable[[], Run], device: torch.device, warm_up: Run = lambda: None) -> float:
    """MiB at the peak of one call of what `make` gives; inputs that `make` creates are not counted.

    Args:
        make: everything up to the call.
        device: where it runs.
        warm_up: called before; touches the code that the call will run, so that its pages are not counted.

    Raises:
        RuntimeError: it cannot be measured here, or the call failed.
    """
    if device.type == "cpu":
        return in_child(lambda: _peak_resident(make, warm_up)) / MIB
    run = make()
    run()
    torch.accelerator.synchronize(device)
    torch.accelerator.reset_peak_memory_stats(device)
    before = torch.accelerator.memory_allocated(device)
    run()
    torch.accelerator.synchronize(device)
    return (torch.accelerator.max_memory_allocated(device) - before) / MIB


def _peak_resident(make: Callable[[], Run], warm_up: Run) -> float:
    """Bytes. Only for a child that ends afterwards, because freed memory may stay with the process."""
    warm_up()
    run = make()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak so far
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(which: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))


def in_child(work: Callable[[], float]) -> float:
    """A number computed in a forked process.

    Raises:
        RuntimeError: not Linux, or the child failed.
    """
    if sys.platform != "linux":
        raise RuntimeError("memory on the CPU is measured on Linux only")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            signal.alarm(CHILD_TIMEOUT_S)  # a candidate that does not survive the fork may hang
            try:
                answer: object = work()
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(write, json.dumps(answer).encode())
            status = 0
        finally:
            os._exit(status)  # whatever happens: a child that returned would go on as a second parent
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    result = json.loads(text) if text else f"the child ended with status {status}"
    if isinstance(result, str):
        raise RuntimeError(f"memory: {result}")
    return float(result)
