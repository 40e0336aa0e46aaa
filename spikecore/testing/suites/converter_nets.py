"""Small nets that a converter converts, and what both compute: shared by the checks of its suite.

Artificial nets decide differently from input to input, and are compared where their decision is clear. Spiking nets
have neurons at other values than the defaults.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikecore.errors import ConversionError, NetTraceError
from spikecore.interfaces.converter import ConversionReport
from spikecore.nn import Stateful, set_step_mode
from spikecore.testing.small_nets import SmallNet, small_nets
from spikecore.testing.suite import Suite

POOL, PER_CLASS = 400, 6
"""Inputs that are drawn, and how many of them are used for each decision: those where it is clearest."""
MARGIN = 0.4
"""A decision is clear where the best score leads the second by so many standard deviations of all scores."""
NUM_CALIBRATION = 4
REFUSALS = (ConversionError, NetTraceError)


class Opaque(nn.Module):
    """A layer that no converter knows."""

    def forward(self, x: Tensor) -> Tensor:
        """Sorts: not linear, not elementwise."""
        return x.sort(-1).values * x


class WithFunctions(nn.Module):
    """ReLU as a function and as a method, flatten as a method: what has no module must not be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 36, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 1, 6, 6]` → `[B, 4]`."""
        x = functional.relu(self.conv(x))
        return self.fc2(self.fc1(x.flatten(1)).relu())  # type: ignore[no-any-return]


class Residual(nn.Module):
    """One ReLU layer that is called three times, and an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 6]` → `[B, 4]`."""
        y = self.relu(self.fc1(x))
        y = self.relu(self.fc2(y) + y)
        return self.relu(self.fc3(y))  # type: ignore[no-any-return]


class Branching(nn.Module):
    """Does one of two things, by the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 6]` → `[B, 4]`."""
        y: Tensor = self.fc(x)
        return y.relu() if x.mean() > 0.5 else -y


class Sorting(nn.Module):
    """A function that no converter knows, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 6]` → `[B, 4]`."""
        return self.last(torch.sort(self.first(x).relu(), -1).values)  # type: ignore[no-any-return]


class ConvertedNets(Suite):
    """Converts small nets, and runs what comes of them."""

    kind: ClassVar[str] = "converter"

    def candidates(self) -> list[tuple[nn.Module, Tensor]]:
        """Artificial nets with example inputs `[B, ...]`; a converter of others names them in its subclass."""
        torch.manual_seed(0)
        flat = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
        image = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 9, 4)
        )
        x, pixels = torch.rand(2, 6), torch.rand(2, 1, 6, 6)
        nets = [(flat, x), (image, pixels), (WithFunctions(), pixels), (Residual(), x)]
        return [(_lively(net, example).eval(), example) for net, example in nets]

    def nets(self) -> list[tuple[nn.Module, Tensor]]:
        """Those of the candidates that the converter takes; one at least."""
        taken, refusals = [], []
        for net, x in self.candidates():
            try:
                self.convert(net, x)
            except (ConversionError, NetTraceError) as error:
                refusals.append(str(error))
            else:
                taken.append((net, x))
        assert taken, f"it takes none of the small nets ({'; '.join(refusals)}): override `candidates` in a subclass"
        return taken

    def data(self, net: nn.Module, x: Tensor) -> Tensor:
        """Inputs like the example on which the net decides clearly, and not always the same."""
        pool = inputs_like(x, POOL, seed=1)
        scores = self.scores(net, pool)
        best = scores.topk(2, -1).values
        margin, decided = (best[:, 0] - best[:, 1]) / scores.std(), scores.argmax(-1)
        chosen: list[Tensor] = []
        for label in torch.unique(decided):
            own = ((decided == label) & (margin > MARGIN)).nonzero().squeeze(1)
            if len(own):
                chosen.append(own[margin[own].argsort(descending=True)[:PER_CLASS]])
        assert len(chosen) > 1, (
            f"a {type(net).__name__} of `candidates` decides clearly for one class at most, over {POOL} random inputs, "
            "so nothing can be compared: give nets that tell inputs apart"
        )
        return pool[torch.cat(chosen)]

    def scores(self, net: nn.Module, x: Tensor, is_made: bool = False) -> Tensor:
        """`[B, ...]` → the output `[B, outputs]`; of the new net, and of one with state, its mean over `num_steps`."""
        net = copy.deepcopy(net).eval()
        has_steps = is_made or any(isinstance(part, Stateful) for part in net.modules())
        with torch.no_grad():
            if not has_steps:
                out: Tensor = net(x)
                return out.flatten(1)
            set_step_mode(net, "multi")
            sequence: Tensor = net(x.expand(self.capabilities.num_steps, *x.shape))
            return sequence.mean(0).flatten(1)

    def calibration(self, x: Tensor, scale: float = 1.0) -> list[Tensor]:
        """Batches like the example."""
        batches = inputs_like(x, NUM_CALIBRATION * 32, seed=2).reshape(NUM_CALIBRATION, 32, *x.shape[1:])
        return [batch.clone() for batch in batches * scale]

    def convert(
        self, net: nn.Module, x: Tensor, calibration: Iterable[Tensor] | None = None
    ) -> tuple[nn.Module, ConversionReport]:
        """With calibration batches."""
        batches = self.calibration(x) if calibration is None else calibration
        result: tuple[nn.Module, ConversionReport] = self.make().convert(net, x, batches)
        return result

    def spiking_nets(self) -> Iterator[tuple[SmallNet, nn.Module]]:
        """The nets with neurons that the converter takes, each with what it made of it."""
        for net in small_nets():
            batches = [net.input(seed, batch=8) for seed in range(10, 10 + NUM_CALIBRATION)]
            try:
                made, _ = self.make().convert(net.make(), net.input(), batches)
            except REFUSALS:
                continue
            set_step_mode(made, "multi")
            yield net, made.eval()


def inputs_like(x: Tensor, count: int, seed: int) -> Tensor:
    """`count` inputs like the example, uniform from 0 to 1."""
    return torch.rand((count, *x.shape[1:]), generator=torch.Generator().manual_seed(seed)).to(x.dtype)


def _lively(net: nn.Module, x: Tensor) -> nn.Module:
    """With weights so large, and biases such, that ReLUs are now on and now off and decisions differ."""
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight.mul_(2.0)
        last = [part for part in net.modules() if isinstance(part, nn.Linear)][-1]
        scores = net(inputs_like(x, POOL, seed=4))
        assert last.bias is not None
        last.bias.sub_(scores.mean(0))
        if (scores == 0).all(-1).any():  # the net ends with a ReLU
            last.bias.add_(scores.std())
    return net


def distance(scores: Tensor, right: Tensor) -> float:
    """Of the scores of both nets, up to one positive factor, relative to how far the right ones lie from their mean;
    infinite where they are zero, or have the opposite sign."""
    factor = (scores * right).sum() / (scores * scores).sum()
    if not factor > 0:  # not a number, where all scores are zero
        return float("inf")
    return float((factor * scores - right).norm() / (right - right.mean()).norm())
