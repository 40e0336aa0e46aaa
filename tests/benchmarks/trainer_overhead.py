"""What `supervised` costs over a loop written by hand with the same logging: CPU time of an epoch, interleaved.

    python tests/benchmarks/trainer_overhead.py [--rounds N] [--samples N]

The conv net of `spike bench --nets` (T = 8, batch 32, 1×28×28), direct encoding, AdamW, random images. Both sides have
the same weights, read the same batches in the same order, add up the loss on the device, evaluate once, and log one
line. In each round both train an epoch, in turn first; the overhead is the median over the rounds of their ratios. With
firing rates, only the trainer counts spikes.

The process starts itself again with settings of glibc's malloc under which large tensors stay in the process. Without
them an epoch takes up to a fifth longer or shorter, by when their pages go back to the system: on both sides, and when
the same side is compared with itself.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from spikecore_training.supervised import Supervised
from table import write
from torch import Tensor

from spikecore import nn
from spikecore.bench.nets import CLASSES, NETS
from spikecore.interfaces import Task
from spikecore.run.console import Mute
from spikecore.run.context import Context
from spikecore.trainers import assemble

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
NUM_STEPS, BATCH, *SHAPE = NETS["conv"].shape


class Images:
    """A split of random images."""

    def __init__(self, num: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(num, *SHAPE, generator=generator)
        self.labels = torch.randint(CLASSES, (num,), generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def by_hand(net: torch.nn.Module, train: Images, test: Images) -> list[float]:
    """An epoch: the loop that one would write."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.005)
    encoder, net = nn.Direct(num_steps=NUM_STEPS), net.train()
    total = torch.zeros((), dtype=torch.float64)
    for index in torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).split(BATCH):
        batch = assemble(train, index, False)
        loss = torch.nn.functional.cross_entropy(net(encoder(batch.x)).mean(0), batch.stacked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(index)
    line = [float(total) / len(train)]
    net.eval()
    right, losses = torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        for index in torch.arange(len(test)).split(BATCH):
            batch = assemble(test, index, False)
            scores = net(encoder(batch.x)).mean(0)
            right += (scores.argmax(1) == batch.stacked).sum()
            losses += torch.nn.functional.cross_entropy(scores, batch.stacked, reduction="sum")
    return [*line, float(right) / len(test), float(losses) / len(test)]


def by_trainer(net: torch.nn.Module, train: Images, test: Images, counts: bool) -> list[float]:
    """An epoch of `supervised`, with the context of a run that has no directory."""
    trainer = Supervised(epochs=1, batch_size=BATCH, lr=0.005, firing_rates=counts, decay="all")
    generator = torch.Generator().manual_seed(0)
    context = Context(torch.device("cpu"), torch.float32, generator, net, console=Mute())
    task = Task(net, nn.Direct(num_steps=NUM_STEPS), train, test, CLASSES)
    return list(trainer.fit(dataclasses.replace(task), context).values())


def timed(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--samples", type=int, default=640)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = Images(options.samples), Images(BATCH)
    torch.manual_seed(0)
    net = NETS["conv"].build(nn, lambda: nn.LIF(tau=1.5))
    rows = []
    for counts in (False, True):
        # A step on each side, which also warms up both: rounding alone tells them apart.
        trained = copy.deepcopy(net), copy.deepcopy(net)
        by_hand(trained[0], test, test)
        by_trainer(trained[1], test, test, counts)
        for ours, theirs in zip(*(side.state_dict().values() for side in trained), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
        hands, trainers = [], []
        for number in range(options.rounds):
            pair = [
                (hands, lambda: by_hand(copy.deepcopy(net), train, test)),
                (trainers, lambda: by_trainer(copy.deepcopy(net), train, test, counts)),  # noqa: B023
            ]
            for times, run in reversed(pair) if number % 2 else pair:
                times.append(timed(run))
        ratios = [ours / theirs for ours, theirs in zip(trainers, hands, strict=True)]
        row = {
            "what": "with firing rates" if counts else "training and evaluation",
            "by_hand_cpu_s_median": round(statistics.median(hands), 4),
            "trainer_cpu_s_median": round(statistics.median(trainers), 4),
            "overhead_median": round(statistics.median(ratios) - 1, 4),
            "overhead_min": round(min(ratios) - 1, 4),
            "overhead_max": round(max(ratios) - 1, 4),
            "samples": options.samples,
            "rounds": options.rounds,
        }
        rows.append(row)
        print(*row.values(), flush=True)
    print(write("trainer_overhead", rows, "spikecore-training", "spikecore-cpu-backend"))


if __name__ == "__main__":
    if not MALLOC.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    main()
