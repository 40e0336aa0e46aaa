"""Threads that share one net: `python tests/benchmarks/threads.py [--seconds 120] [--threads 8] [--backend cpu]`.

Every thread sends batches of eight sizes through the same net, forwards and backwards, and compares spikes and
gradients of the input with those that one thread alone computed. Prints calls, wrong ones, and the memory after a tenth
of the time and at the end, and with --record appends them to docs/benchmarks/threads.csv. It exits with 1 where a call
was wrong or memory grew by more than 32 MiB.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from spikecore.nn import LIF

SIZES = (1, 2, 3, 5, 8, 13, 21, 34)
MOST_GROWTH_MIB = 32.0
TABLE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "threads.csv"


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def outcome(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes and the gradient of the input; parameters are left alone, as threads share their gradients."""
    given = x.clone().requires_grad_()
    spikes = net(given)
    (gradient,) = torch.autograd.grad(spikes.square().sum(), given)
    return spikes.detach(), gradient


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--record", action="store_true", help="into docs/benchmarks/threads.csv")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = nn.Sequential(
        LIF(tau=1.7, backend=arguments.backend), LIF(tau=2.3, v_threshold=0.5, backend=arguments.backend)
    )
    inputs = [torch.rand(6, size, 64) * 4 for size in SIZES]
    wanted = [outcome(net, x) for x in inputs]
    assert all(0.05 < spikes.mean() < 0.95 for spikes, _ in wanted[3:])
    calls, wrong = [0] * arguments.threads, [0] * arguments.threads
    start = time.monotonic()

    def work(number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        while time.monotonic() - start < arguments.seconds:
            place = int(torch.randint(len(SIZES), (), generator=generator))
            spikes, gradient = outcome(net, inputs[place])
            calls[number] += 1
            wrong[number] += not (torch.equal(spikes, wanted[place][0]) and torch.equal(gradient, wanted[place][1]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(arguments.threads)]
    for thread in threads:
        thread.start()
    time.sleep(arguments.seconds / 10)
    early = resident_mib()
    for thread in threads:
        thread.join()
    late = resident_mib()
    print(
        f"{arguments.threads} threads, {arguments.seconds:.0f} s, backend {arguments.backend}: {sum(calls)} calls, "
        f"{sum(wrong)} wrong, {early:.0f} -> {late:.0f} MiB"
    )
    if arguments.record:
        figures = [arguments.threads, f"{arguments.seconds:.0f}", arguments.backend, sum(calls), sum(wrong)]
        figures += [f"{early:.0f}", f"{late:.0f}", datetime.date.today().isoformat(), torch.__version__]
        with TABLE.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(figures)
    return int(sum(wrong) > 0 or min(calls) == 0 or late - early > MOST_GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
