"""Milliseconds for a batch of CIFAR-10: read, augmented, mixed, normalised; beside a training step of a small net.

    python plugins/datasets-vision/benchmarks/images.py [--out docs/benchmarks/images.csv] [--batch 128] [--threads 1]

CPU time, median of eleven rounds in which all candidates take turns. Images are random, in files of CIFAR-10's size and
form. That a batch equals its samples read one by one is asserted first. `floor` is the least that every batch needs: to
copy its bytes from the mapped file and make float32 of them.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from spikecore import create
from spikecore.trainers.batches import assemble
from spikecore_datasets_vision.cifar import CIFAR10

ROUNDS = 11
CROP_FLIP = [{"name": "random_crop", "padding": 4}, "random_flip"]
AUGMENTS = {
    "none": [],
    "crop, flip": CROP_FLIP,
    "crop, flip, cutmix": [*CROP_FLIP, "cutmix"],
    "crop, flip, mixup": [*CROP_FLIP, "mixup"],
    "resized crop, flip": ["random_resized_crop", "random_flip"],
    "crop, flip, erasing": [*CROP_FLIP, "random_erasing"],
    "crop, flip, jitter": [*CROP_FLIP, "colour_jitter"],
    "crop, flip, rand_augment": [*CROP_FLIP, "rand_augment"],
}


def files(root: Path) -> Path:
    """Random records in the six files of the binary version."""
    rng = np.random.default_rng(0)
    for names in CIFAR10.files.values():
        for name in names:
            records = rng.integers(0, 256, (10_000, 3073), np.uint8)
            records[:, 0] %= 10
            (root / name).write_bytes(records.tobytes())
    return root


def candidates(root: Path, size: int) -> dict[str, Callable[[], object]]:
    """Name → one batch of it."""
    index = torch.randperm(50_000, generator=torch.Generator().manual_seed(0))[:size].tolist()
    made: dict[str, Callable[[], object]] = {}
    for name, augment in AUGMENTS.items():
        split = create("dataset", "cifar10", root=str(root), augment=augment, normalise="channels").split("train")
        together, alone = split.__getitems__(index[:8]), [split[i] for i in index[:8]]
        assert all(torch.allclose(a, b, atol=1e-5) for (a, _), (b, _) in zip(together, alone, strict=True))
        generator = torch.Generator().manual_seed(1)
        made[name] = lambda split=split, generator=generator: assemble(split, index, False, generator)
    plain = create("dataset", "cifar10", root=str(root), augment=CROP_FLIP, normalise="channels").split("train")
    made["crop, flip, one by one"] = lambda: torch.stack([plain[i][0] for i in index])
    images, chosen = plain.stored.images, np.array(index)
    made["floor"] = lambda: torch.from_numpy(images.take(chosen)).float()
    return {**made, "training step": step(assemble(plain, index, False))}


def step(batch: object) -> Callable[[], object]:
    """Forward, backward and update of core's small net of convolutions, four steps of time."""
    net = create("model", "convnet", lambda: create("neuron", "lif"), (3, 32, 32), 10)
    encoder, optimizer = create("encoder", "direct", num_steps=4), torch.optim.SGD(net.parameters(), lr=0.1)

    def once() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(encoder(batch.x)).mean(0), batch.label).backward()  # type: ignore[attr-defined]
        optimizer.step()

    return once


def measure(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """CPU milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if number:  # the first round warms up
                times[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as directory:
        times = measure(candidates(files(Path(directory)), given.batch))
    size = f"batch of {given.batch} of CIFAR-10, {given.threads} thread{'s' if given.threads > 1 else ''}"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy"))
    versions = f"Python {platform.python_version()}, {versions}"
    rows = [
        [name, "ms of CPU time", f"{value:.2f}", f"{value / times['training step']:.3f}", size, processor(), versions]
        for name, value in times.items()
    ]
    for row in rows:
        print(f"{row[0]:28} {row[2]:>9} ms  {row[3]:>7} of a training step")
    if given.out:
        with given.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["what", "unit", "value", "share of a training step", "size", "machine", "versions"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
