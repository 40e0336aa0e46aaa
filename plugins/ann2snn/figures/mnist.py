"""Accuracy of converted nets on the 10 000 test images of MNIST; writes docs/benchmarks/ann2snn_mnist.csv.

python plugins/ann2snn/figures/mnist.py             needs the dataset mnist of the plugin datasets-vision, and its
                                                    files in $SPIKECORE_DATA/mnist; seeded
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikecore import create
from spikecore_ann2snn import Ann2SNN, with_quantized_relus

OUT = Path(__file__).resolve().parents[3] / "docs/benchmarks/ann2snn_mnist.csv"
EPOCHS, BATCH, RATE, LEVELS, STEPS = 6, 128, 2e-3, 4, (8, 16, 32)


def whole(name: str) -> tuple[Tensor, Tensor]:
    split = create("dataset", "mnist").split(name)
    samples = [split[index] for index in range(len(split))]
    return torch.stack([sample[0] for sample in samples]), torch.tensor([int(sample[1]) for sample in samples])


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def train(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
    num_batches = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * num_batches)
    generator = torch.Generator().manual_seed(0)
    net.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator)[: num_batches * BATCH].split(BATCH):
            loss = F.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def main() -> None:
    (train_x, train_y), (test_x, test_y) = whole("train"), whole("test")
    rows: list[dict[str, object]] = []
    for name, recipes in (("ReLU", ("threshold_balancing", "percentile", "max")), (f"QCFS {LEVELS}", ("qcfs",))):
        torch.manual_seed(0)
        net = make_net() if name == "ReLU" else with_quantized_relus(make_net(), LEVELS, 2.0)
        train(net, train_x, train_y)
        with torch.no_grad():
            given = float((torch.cat([net(part) for part in test_x.split(500)]).argmax(-1) == test_y).double().mean())
        for recipe in recipes:
            snn, _ = Ann2SNN(recipe=recipe, measure=0).convert(net, train_x[:1], train_x[:2048].split(256))
            right = dict.fromkeys(STEPS, 0)
            with torch.no_grad():
                for part, label in zip(test_x.split(250), test_y.split(250), strict=True):
                    out = snn(part.expand(max(STEPS), *part.shape))
                    for steps in STEPS:
                        right[steps] += int((out[:steps].sum(0).argmax(-1) == label).sum())
            for steps in STEPS:
                value = right[steps] / len(test_y)
                rows.append(
                    {
                        "net": name,
                        "recipe": recipe,
                        "T": steps,
                        "given": given,
                        "accuracy": value,
                        "loss_points": f"{100 * (given - value):.2f}",
                    }
                )
                print(rows[-1], flush=True)
    with open(OUT, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
