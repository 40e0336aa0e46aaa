"""Accuracy of converted nets over 5-fold cross-validation of all 1797 digits: docs/benchmarks/ann2snn_digits.csv.

ANN               a small convolutional net with ReLUs
balancing         converted by recipe threshold_balancing (and max, percentile), T = 8 ... 64
QCFS              the same net trained with QCFS activations of 8 levels, converted by recipe qcfs, T = 4 ... 32

python plugins/ann2snn/figures/digits.py            every fold and net is seeded; no option changes the numbers
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikecore import create
from spikecore_ann2snn import Ann2SNN, with_quantized_relus

FOLDS, EPOCHS, BATCH, RATE, LEVELS = 5, 40, 64, 2e-3, 8
STEPS = (4, 8, 16, 32, 64)
OUT = Path(__file__).resolve().parents[3] / "docs/benchmarks/ann2snn_digits.csv"


def all_digits() -> tuple[Tensor, Tensor]:
    """All images `[1797, 1, 8, 8]` from 0 to 1, and their labels, shuffled by a seed."""
    dataset = create("dataset", "digits")
    samples = [dataset.split(name)[index] for name in ("train", "test") for index in range(len(dataset.split(name)))]
    x, y = torch.stack([sample[0] for sample in samples]), torch.tensor([int(sample[1]) for sample in samples])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x.reshape(len(x), 1, 8, 8)[order], y[order]


def make_net() -> nn.Module:
    """A small convolutional net with batch norms, average pooling, and functional and module ReLUs."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(net: nn.Module, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """Adam with a cosine schedule; images shifted by up to one pixel."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
    num_batches = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * num_batches)
    net.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for index in range(num_batches):
            rows = order[index * BATCH : (index + 1) * BATCH]
            dx, dy = torch.randint(-1, 2, (2,), generator=generator).tolist()
            images = torch.roll(x[rows], (dx, dy), (2, 3))
            loss = F.cross_entropy(net(images), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(-1) == y).double().mean())


def accuracies(net: nn.Module, x: Tensor, y: Tensor) -> dict[int, float]:
    """After 4, 8, ... steps of one sequence."""
    with torch.no_grad():
        outs = torch.cat([net(part.expand(max(STEPS), *part.shape)) for part in x.split(64)], 1)
    return {steps: float((outs[:steps].sum(0).argmax(-1) == y).double().mean()) for steps in STEPS}


def one_fold(fold: int, x: Tensor, y: Tensor) -> list[dict[str, object]]:
    held = torch.arange(len(x)) % FOLDS == fold
    train_x, train_y, test_x, test_y = x[~held], y[~held], x[held], y[held]
    torch.manual_seed(fold)
    ann = train(make_net(), train_x, train_y, fold)
    rows: list[dict[str, object]] = []

    def add(net: str, recipe: str, given: float, by_steps: dict[int, float], correlation: float | str) -> None:
        for steps, value in by_steps.items():
            rows.append(
                {
                    "fold": fold,
                    "net": net,
                    "recipe": recipe,
                    "T": steps,
                    "given": given,
                    "accuracy": value,
                    "loss_points": 100 * (given - value),
                    "least_correlation_T64": correlation if steps == 64 else "",
                }
            )

    batches = train_x[:512].split(64)
    given = accuracy(ann, test_x, test_y)
    for recipe, options in (
        ("threshold_balancing", {}),
        ("threshold_balancing", {"per": "layer"}),
        ("percentile", {}),
        ("max", {}),
    ):
        snn, report = Ann2SNN(recipe=recipe, T=(64,), measure=32, **options).convert(ann, train_x[:1], batches)
        worst = min(layer.correlation[-1] for layer in report.layers if layer.correlation)
        add("ReLU", " ".join([recipe, *options.values()]), given, accuracies(snn, test_x, test_y), worst)
    torch.manual_seed(fold)
    quantized = train(with_quantized_relus(make_net(), LEVELS, 1.0), train_x, train_y, fold)
    given = accuracy(quantized, test_x, test_y)
    snn, report = Ann2SNN(recipe="qcfs", T=(64,), measure=32).convert(quantized, train_x[:1], batches)
    worst = min(layer.correlation[-1] for layer in report.layers if layer.correlation)
    add(f"QCFS {LEVELS}", "qcfs", given, accuracies(snn, test_x, test_y), worst)
    return rows


def main() -> None:
    x, y = all_digits()
    rows: list[dict[str, object]] = []
    for fold in range(FOLDS if len(sys.argv) < 2 else int(sys.argv[1])):
        rows += one_fold(fold, x, y)
    keys = sorted({(row["net"], row["recipe"], row["T"]) for row in rows}, key=str)
    for key in keys:
        own = [row for row in rows if (row["net"], row["recipe"], row["T"]) == key]
        means = {name: sum(float(row[name]) for row in own) / len(own) for name in ("given", "accuracy", "loss_points")}  # type: ignore[arg-type]
        worst = [float(row["least_correlation_T64"]) for row in own if row["least_correlation_T64"] != ""]  # type: ignore[arg-type]
        rows.append(
            {
                "fold": "mean",
                "net": key[0],
                "recipe": key[1],
                "T": key[2],
                **means,
                "least_correlation_T64": min(worst) if worst else "",
            }
        )
        print(*key, {name: round(value, 4) for name, value in means.items()}, min(worst) if worst else "")
    with open(OUT, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
