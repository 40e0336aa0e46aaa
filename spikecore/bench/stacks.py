"""Deep stacks of convolution, norm and neuron at given firing rates: what spike products are worth.

    stack 64       three blocks of 64 channels, 32×32, T = 4, B = 4                            inference, training step
    VGG-11         eight convolutions, five times max pooling, 32×32, T = 4, B = 8             inference
    SEW-ResNet18   conv, eight residual blocks that add their spikes, 32×32, T = 4, B = 4      inference

The shift of each norm is chosen so that the input of the next convolution has the wanted share of ones. All candidates
have the same weights and inputs. Spikes are compared block by block, each block with the same input: behind a spike
that rounding decides, an untrained deep net goes its own way, as channels-last goes another way than NCHW. The floor is
the CPU time of the dense convolutions alone times the share of ones that each of them meets: perfect skipping.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.bench.nets import PEER
from spikecore.nn import LIF, ConvBNNeuron, MaxPool2d, Sequential, optimize, set_products

RATES = (0.05, 0.1, 0.2)
DENSE, LAST, HALF, EVENTS, OPTIMIZED = "dense NCHW", "dense channels-last", "bfloat16 autocast", "events", "optimized"
INFERENCE, TRAINING = "inference", "training step"
FLIPS = 1e-5
"""The share of spikes that may differ from dense float32."""
VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


class SEWBlock(nn.Module):
    """Two blocks whose spikes are added to the input's: counts, which the next convolution multiplies densely."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = _block(before, channels, stride)
        self.second = _block(channels, channels)
        self.shortcut = _block(before, channels, stride, kernel=1) if stride > 1 or before != channels else None

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → the sum of both ways."""
        out: Tensor = self.second(self.first(x))
        return out + (x if self.shortcut is None else self.shortcut(x))


def _block(before: int, channels: int, stride: int = 1, kernel: int = 3) -> ConvBNNeuron:
    conv = nn.Conv2d(before, channels, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return ConvBNNeuron(conv, nn.BatchNorm2d(channels), LIF(detach_reset=True))


def _vgg() -> Sequential:
    parts: list[nn.Module] = []
    before = 3
    for entry in VGG11:
        if isinstance(entry, str):
            parts.append(MaxPool2d(2))
        else:
            parts.append(_block(before, entry))
            before = entry
    return Sequential(*parts)


def _sew() -> Sequential:
    parts: list[nn.Module] = [_block(3, 64)]
    before = 64
    for channels in (64, 128, 256, 512):
        parts += [SEWBlock(before, channels, 1 if channels == before else 2), SEWBlock(channels, channels, 1)]
        before = channels
    return Sequential(*parts)


@dataclass(frozen=True)
class Stack:
    """One stack.

    Args:
        shape: of the input, T first.
        build: makes it.
        measures: what is timed.
        takes_spikes: the input itself is spikes of the wanted rate.
    """

    shape: tuple[int, ...]
    build: Callable[[], Sequential]
    measures: tuple[str, ...]
    takes_spikes: bool = False


STACKS = {
    "stack 64": Stack(
        (4, 4, 64, 32, 32), lambda: Sequential(*(_block(64, 64) for _ in range(3))), (INFERENCE, TRAINING), True
    ),
    "VGG-11": Stack((4, 8, 3, 32, 32), _vgg, (INFERENCE,)),
    "SEW-ResNet18": Stack((4, 4, 3, 32, 32), _sew, (INFERENCE,)),
}


@dataclass
class Candidates:
    """What is timed for one stack, rate and measure.

    Args:
        runs: name → one call; it returns the output.
        rates: the share of ones (of values other than 0) in the input of each convolution behind the first.
        floor_ms: perfect skipping.
        rate: of the output.
        flips: spikes of all blocks that events change, each block fed as in the dense net.
        num_spikes: values that were compared for it.
    """

    runs: dict[str, Callable[[], Tensor]]
    rates: list[float]
    floor_ms: float
    rate: float
    flips: int
    num_spikes: int


def candidates_of(name: str, rate: float, measure: str, shape: Sequence[int] | None = None) -> Candidates:
    """Build a stack at a rate, with all that runs it here."""
    stack = STACKS[name]
    size = tuple(shape or stack.shape)
    torch.manual_seed(0)
    x = _input(stack, size, rate)
    net = stack.build()
    _calibrate(net, x, rate)
    rates, floor_ms = _floor(net, x, measure)
    with torch.no_grad():
        fires = float((net(x) != 0).double().mean())
    dense = copy.deepcopy(net)
    set_products(dense, "dense")
    if stack.takes_spikes:
        last = x.movedim(2, -1).contiguous().movedim(-1, 2)
    else:
        last = x[0].contiguous(memory_format=torch.channels_last).expand(size)
    run = _training if measure == TRAINING else _inference
    runs = {
        DENSE: run(dense, x),
        LAST: run(copy.deepcopy(dense), last),
        HALF: _autocast(run(copy.deepcopy(dense), last)),
        EVENTS: run(net, last),
    }
    if measure == INFERENCE:
        runs[OPTIMIZED] = run(optimize(net), last)
    return Candidates(runs, rates, floor_ms, fires, *_flips(dense, net, last))


def _input(stack: Stack, shape: tuple[int, ...], rate: float) -> Tensor:
    """Spikes of this rate, or images, the same at every step, as direct coding gives them."""
    return (torch.rand(shape) < rate).float() if stack.takes_spikes else torch.rand(shape[1:]).expand(shape)


def peer_of(name: str, rate: float, measure: str, shape: Sequence[int] | None = None) -> Callable[[], Tensor]:
    """The same stack in spikingjelly's layers.

    Raises:
        ImportError: it is not installed.
    """
    parts = ("functional", "layer", "neuron", "surrogate")
    functional, layer, neuron, surrogate = (import_module(f"{PEER}.activation_based.{p}") for p in parts)
    stack = STACKS[name]
    size = tuple(shape or stack.shape)
    torch.manual_seed(0)
    x = _input(stack, size, rate)
    net: Any = stack.build()
    _calibrate(net, x, rate)

    def converted(part: nn.Module) -> nn.Module:
        if isinstance(part, ConvBNNeuron):
            conv, norm = part.layer, part.norm
            assert isinstance(conv, nn.Conv2d)
            theirs = layer.Conv2d(
                conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=False
            )
            their_norm = layer.BatchNorm2d(conv.out_channels)
            theirs.load_state_dict(conv.state_dict())
            their_norm.load_state_dict(norm.state_dict())
            node = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True)
            return nn.Sequential(theirs, their_norm, node)
        if isinstance(part, MaxPool2d):
            pool: nn.Module = layer.MaxPool2d(2)
            return pool
        for child_name, child in part.named_children():
            setattr(part, child_name, converted(child))
        return part

    model = converted(net).eval()
    functional.set_step_mode(model, "m")
    run = (_training if measure == TRAINING else _inference)(model, x)

    def reset_and_run() -> Tensor:
        functional.reset_net(model)
        return run()

    return reset_and_run


def _inference(net: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    net.eval()

    def run() -> Tensor:
        with torch.no_grad():
            out: Tensor = net(x)
        return out

    return run


def _training(net: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    net.train()
    given = x.clone(memory_format=torch.preserve_format).requires_grad_()

    def run() -> Tensor:
        net.zero_grad()
        given.grad = None
        out: Tensor = net(given)
        out.mean().backward()  # type: ignore[no-untyped-call]
        return out.detach()

    return run


def _autocast(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def in_half() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    return in_half


def _calibrate(net: nn.Module, x: Tensor, rate: float) -> None:
    """Shift each norm so that what the next convolution meets has this share of ones; leaves the net in eval mode."""
    net.train()
    with torch.no_grad():
        net(x)
        net.eval()
        value = x
        parts = list(net.children())
        for index, part in enumerate(parts):
            following = parts[index + 1] if index + 1 < len(parts) else None
            pool = following if isinstance(following, MaxPool2d) else nn.Identity()
            if isinstance(part, SEWBlock):
                inner = value
                for block in (part.first, part.second):
                    _shift(block, inner, rate, nn.Identity())
                    inner = block(inner)
                if part.shortcut is not None:
                    _shift(part.shortcut, value, rate, nn.Identity())
            elif isinstance(part, ConvBNNeuron):
                _shift(part, value, rate, pool)
            value = part(value)


def _shift(block: ConvBNNeuron, x: Tensor, rate: float, pool: nn.Module) -> None:
    low, high = -4.0, 4.0
    bias = block.norm.bias
    assert isinstance(bias, Tensor)
    for _ in range(8):
        middle = (low + high) / 2
        bias.fill_(middle)
        if float(pool(block(x)).mean()) < rate:
            low = middle
        else:
            high = middle


def _flips(dense: nn.Module, events: nn.Module, x: Tensor) -> tuple[int, int]:
    """Spikes that differ, and how many were compared: every block gets the input that it has in the dense net."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Any:
        return lambda block, args, out: seen.update({name: (args[0], out)})

    blocks = {name: part for name, part in dense.named_modules() if isinstance(part, ConvBNNeuron)}
    hooks = [block.register_forward_hook(note(name)) for name, block in blocks.items()]
    was_training = dense.training, events.training
    flips = count = 0
    with torch.no_grad():
        dense.eval()(x)
        events.eval()
        for name, (given, right) in seen.items():
            flips += int((events.get_submodule(name)(given) != right).sum())
            count += right.numel()
    for hook in hooks:
        hook.remove()
    dense.train(was_training[0])
    events.train(was_training[1])
    return flips, count


def _floor(net: nn.Module, x: Tensor, measure: str) -> tuple[list[float], float]:
    """Rates at the convolutions behind the first of the net, and the time of all with perfect skipping."""
    rates: list[float] = []
    total = 0.0
    seen: list[tuple[nn.Conv2d, Tensor]] = []
    blocks = [part for part in net.modules() if isinstance(part, ConvBNNeuron)]

    def note(block: Any, args: Any) -> None:
        seen.append((block.layer, args[0].flatten(0, 1)))

    hooks = [block.register_forward_pre_hook(note) for block in blocks]
    with torch.no_grad():
        net(x)
        for hook in hooks:
            hook.remove()
        for conv, given in seen:
            best = float("inf")
            for form in (torch.contiguous_format, torch.channels_last):
                tensor = given.contiguous(memory_format=form)
                for _ in range(4):
                    start = time.process_time()
                    conv(tensor)
                    best = min(best, time.process_time() - start)
            is_stem = not bool(((given == 0) | (given == given.round())).all())
            share = 1.0 if is_stem else float((given != 0).double().mean())
            # Training: forward and the weight's gradient skip, the gradient of the input does not.
            total += best * (share if measure == INFERENCE else 2 * share + 1)
            if not is_stem:
                rates.append(share)
    return rates, 1000 * total
