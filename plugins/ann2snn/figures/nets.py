"""Exactness and cost of conversion on larger nets; writes docs/benchmarks/ann2snn_nets.csv.

few_spike              a ResNet-18 for 32² with QCFS activations of 8 levels, T = 8: distance of the mean outputs from
                       those of the quantized net, in float64 and float32
temporal_difference    a pre-norm transformer block (64 tokens of 128, 4 heads): the same
cost                   CPU time of converting a ReLU ResNet-18 with 512 images, over that of a plain forward pass: the
                       median of three conversions, each over the mean of the passes before and after it

python plugins/ann2snn/figures/nets.py              random weights, norms with statistics of the data; seeded
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikecore_ann2snn import QCFS, Ann2SNN

OUT = Path(__file__).resolve().parents[3] / "docs/benchmarks/ann2snn_nets.csv"
LEVELS = 8
Activation = Callable[[], nn.Module]


class Block(nn.Module):
    """Two convolutions and a shortcut; activations after the norm and after the sum."""

    def __init__(self, width_in: int, width: int, stride: int, act: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2, self.act1, self.act2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width), act(), act()
        self.short = nn.Sequential()
        if stride != 1 or width_in != width:
            self.short = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        out: Tensor = self.act2(y + self.short(x))
        return out


def resnet18(act: Activation) -> nn.Sequential:
    """For 32²: stem 3×3, stages of 64, 128, 256 and 512 channels with two blocks each, 10 outputs."""
    blocks: list[nn.Module] = []
    width_in = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for index in range(2):
            blocks.append(Block(width_in, width, 2 if stage and not index else 1, act))
            width_in = width
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        act(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


class TransformerBlock(nn.Module):
    """Pre-norm attention and a gated feed-forward part."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate, self.up, self.down = nn.Linear(width, 256), nn.Linear(width, 256), nn.Linear(256, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(attended)
        y = self.norm2(x)
        out: Tensor = x + self.down(F.silu(self.gate(y)) * F.gelu(self.up(y)))
        return out


def settle(net: nn.Module, x: Tensor) -> nn.Module:
    """Norms take the statistics of the data."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        net.train()(x)
    return net.eval()


def distance(net: nn.Module, x: Tensor, recipe: str, num_steps: int) -> tuple[float, float]:
    """Largest distance of the mean output from the given net's, and the deviation of the latter."""
    made, _ = Ann2SNN(recipe=recipe, T=(num_steps,), measure=0).convert(net, x[:1])
    with torch.no_grad():
        right, out = net(x), made(x.expand(num_steps, *x.shape)).mean(0)
    return float((out - right).abs().max()), float(right.std())


def cpu_seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def ratio_of_times(plain: Callable[[], object], action: Callable[[], object]) -> float:
    """Median over three turns: a busy machine slows down whatever runs at the time."""
    ratios: list[float] = []
    before = cpu_seconds(plain)
    for _ in range(3):
        spent, after = cpu_seconds(action), cpu_seconds(plain)
        ratios.append(spent / ((before + after) / 2))
        before = after
    return statistics.median(ratios)


def main() -> None:
    torch.manual_seed(0)
    rows: list[dict[str, object]] = []

    def add(what: str, value: float, unit: str, of: str) -> None:
        rows.append({"what": what, "value": f"{value:.4g}", "unit": unit, "of": of, "torch": torch.__version__})
        print(what, f"{value:.4g}", unit, of, flush=True)

    images = torch.randn(64, 3, 32, 32)
    quantized = settle(resnet18(lambda: QCFS(levels=LEVELS, v_threshold=3.0, step_mode="single")), images)
    for dtype in (torch.float64, torch.float32):
        worst, deviation = distance(quantized.to(dtype), images[:4].to(dtype), "few_spike", LEVELS)
        add("ResNet-18, few_spike, T = 8", worst, "largest distance", f"{dtype}, deviation {deviation:.3g}")
    block = TransformerBlock().eval()
    for dtype in (torch.float64, torch.float32):
        worst, deviation = distance(block.to(dtype), torch.randn(4, 64, 128, dtype=dtype), "temporal_difference", 8)
        add(
            "transformer block, temporal_difference, T = 8",
            worst,
            "largest distance",
            f"{dtype}, deviation {deviation:.3g}",
        )
    ann = settle(resnet18(nn.ReLU), images)
    batches = torch.randn(512, 3, 32, 32).split(64)

    def plain() -> None:
        with torch.no_grad():
            for batch in batches:
                ann(batch)

    plain()
    for recipe, per in (
        ("max", "channel"),
        ("percentile", "channel"),
        ("percentile", "layer"),
        ("threshold_balancing", "channel"),
    ):
        converter = Ann2SNN(recipe=recipe, per=per, measure=0)
        add(
            f"converting ResNet-18 with 512 images, {recipe} per {per}",
            ratio_of_times(plain, lambda converter=converter: converter.convert(ann, images[:1], batches)),
            "times a plain forward pass",
            f"CPU time, {torch.get_num_threads()} thread, median of 3, without the report's measurement",
        )
    converter = Ann2SNN(recipe="max")
    shown = f"{converter.config.measure} images, {max(converter.config.T)} steps"
    add(
        "converting ResNet-18 with 512 images, max per channel",
        ratio_of_times(plain, lambda: converter.convert(ann, images[:1], batches)),
        "times a plain forward pass",
        f"CPU time, median of 3, with the report's measurement: {shown}",
    )
    with open(OUT, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
