"""Peak memory of a training step of three 64-channel blocks: layers one by one, blocks, and blocks by events.

    python tests/benchmarks/product_memory.py [--batch N]

Each candidate has a process of its own, in which no memory is recycled; what counts is the peak of resident memory
above what was there before the step.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from spikecore.bench.stacks import STACKS
from spikecore.nn import LIF, BatchNorm2d, Conv2d, Sequential, configure_backend, set_products

CANDIDATES = ("one by one", "blocks, dense", "blocks, events")
GIVES_BACK = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"), "65536")
"""glibc keeps freed memory: with these it goes back at once."""


def make_net(candidate: str) -> torch.nn.Module:
    """The net, in training mode."""
    torch.manual_seed(0)
    if candidate == "one by one":
        parts: list[torch.nn.Module] = []
        for _ in range(3):
            parts += [Conv2d(64, 64, 3, padding=1, bias=False), BatchNorm2d(64), LIF(detach_reset=True)]
        net: torch.nn.Module = Sequential(*parts)
    else:
        net = STACKS["stack 64"].build()
    set_products(net, "event" if candidate.endswith("events") else "dense")
    return net


def make_input(steps: int, batch: int) -> torch.Tensor:
    """Spikes, channels last."""
    spikes = (torch.rand(steps, batch, 32, 32, 64, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    return spikes.movedim(-1, 2)


def resident_mib(name: str) -> float:
    """A figure of the kernel about this process."""
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024


def measure(candidate: str, batch: int) -> None:
    """Print the peak of one step."""
    torch.set_num_threads(1)
    configure_backend("cpu", recycle_mib=0)
    net = make_net(candidate)
    net(make_input(1, 1)).sum().backward()  # loads and compiles
    x = make_input(4, batch)
    net.zero_grad()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mib("VmRSS")
    net(x).sum().backward()
    print(f"{candidate:16} {resident_mib('VmHWM') - before:6.1f} MiB; the input is {x.nbytes / 2**20:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--candidate", choices=CANDIDATES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate:
        measure(options.candidate, options.batch)
        return
    for candidate in CANDIDATES:
        command = [sys.executable, __file__, "--batch", str(options.batch), "--candidate", candidate]
        subprocess.run(command, check=True, env={**os.environ, **GIVES_BACK})


if __name__ == "__main__":
    main()
