"""Nets of the zoos beside spikingjelly's own, with the same weights: `python tests/benchmarks/zoo.py`.

    inference   eval mode, no gradients: forward of T = 4 steps of 16 images of 32²
    training    train mode: forward, backward of the mean of the outputs' squares

CPU time of the process, one thread; the candidates take turns in every round, each in both memory formats.
`times_theirs` is the median over the rounds of their time divided by ours: above 1 ours is faster. Theirs is measured
in both formats, too; the faster one counts. Outputs are compared before anything is measured. `no neurons` is theirs
with every neuron taken out, also in both formats: the cost of its products and norms alone.
Written to docs/benchmarks/zoo.csv with the load of the machine, which disturbs caches even where CPU time is counted.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from table import write
from torch import Tensor

from spikecore import create, nn
from tests.peers.zoo import their_models

T, B, SIDE, CLASSES = 4, 16, 32, 10
ROUNDS = int(os.environ.get("ZOO_ROUNDS", "5"))
PEER, FORMATS = "spikingjelly", ("contiguous", "channels-last")
BOUND = "no neurons"
OPTIONS = {"tau": 2.0, "v_threshold": 0.5, "detach_reset": True}


def their_net(name: str) -> Any:
    """spikingjelly's net of a name of ours, in multi-step mode."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    module = their_models("sew_resnet" if name.startswith("sew") else "spiking_vgg")
    more = {"cnf": "ADD"} if name.startswith("sew") else {}
    net = getattr(module, name)(
        spiking_neuron=neuron.LIFNode, num_classes=CLASSES, surrogate_function=surrogate.ATan(), **more, **OPTIONS
    )
    for key, value in net.state_dict().items():
        # Its first weights suit an ANN and leave a net without norms silent.
        if value.dim() == 2 and name.startswith("spiking_vgg") and "classifier.6" not in key:
            value.normal_(0.0, (8 / value.shape[1]) ** 0.5)
        elif value.dim() == 4 and name.startswith("spiking_vgg") and key != "features.0.weight":
            value.mul_(4.0)
    functional.set_step_mode(net, "m")
    return net


def without_neurons(net: Any) -> Any:
    """A copy of spikingjelly's net in which values pass through the neurons unchanged."""
    from spikingjelly.activation_based import neuron

    bare = copy.deepcopy(net)
    places = [name for name, part in bare.named_modules() if isinstance(part, neuron.BaseNode)]
    for name in places:
        bare.set_submodule(name, torch.nn.Identity())
    assert places, "no neuron was taken out"
    return bare


def without_dropout(net: Any) -> None:
    """Train mode draws no random numbers, so that outputs can be compared."""
    for part in net.modules():
        if "Dropout" in type(part).__name__:
            part.p = 0.0


def settle(theirs: Any, x: Tensor) -> None:
    """Give the norms running statistics of this input: with their first ones a net in eval mode is silent."""
    from spikingjelly.activation_based import functional

    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        theirs.train()(x)
    functional.reset_net(theirs)


def firing_rate(net: Any, x: Tensor) -> float:
    """Mean over the neuron layers; none of them may be silent."""
    rates: list[float] = []
    neurons = [part for part in net.modules() if isinstance(part, nn.Neuron)]
    hooks = [part.register_forward_hook(lambda _, __, out: rates.append(out.mean().item())) for part in neurons]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    assert min(rates) > 0, f"a layer is silent: {rates}"
    return statistics.mean(rates)


def our_net(name: str, backend: str, products: str, theirs: Any) -> Any:
    """Ours with their weights."""
    net = create("model", name, lambda: nn.LIF(**OPTIONS, backend=backend), (3, SIDE, SIDE), CLASSES)
    net.load_state_dict(net.import_weights("spikingjelly", theirs.state_dict()))
    nn.set_products(net, products)
    return net


def channels_last(x: Tensor) -> Tensor:
    """`[T, B, C, H, W]` with the channels of a place beside each other, as convolutions take it."""
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def in_both_formats(nets: dict[str, Any], x: Tensor) -> dict[tuple[str, str], tuple[Any, Tensor]]:
    """`(who, format)` → net and input."""
    candidates = {}
    for who, net in nets.items():
        candidates[who, "contiguous"] = (net, x)
        moved = copy.deepcopy(net).to(memory_format=torch.channels_last)
        candidates[who, "channels-last"] = (moved, channels_last(x))
    return candidates


def measure(name: str, mode: str, nets: dict[str, Any], x: Tensor) -> list[dict[str, Any]]:
    """One row for each of our candidates."""
    from spikingjelly.activation_based import functional

    def infer(net: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = net(x)
        return out

    def train(net: Any, x: Tensor) -> Tensor:
        net.zero_grad()
        out: Tensor = net(x)
        out.square().mean().backward()  # type: ignore[no-untyped-call]
        return out.detach()

    call: Callable[[Any, Tensor], Tensor] = infer if mode == "inference" else train
    candidates = in_both_formats(nets, x)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in candidates}
    outputs = {}
    for key, (net, given) in candidates.items():
        without_dropout(net)
        net.train(mode == "training")
        outputs[key] = call(net, given)
        _forget(functional, net)
    for key, out in outputs.items():
        if key[0] == BOUND:
            continue
        # Sums in another order turn spikes over, also between the two formats of one net.
        differences = [(out - outputs[PEER, kind]).abs().max().item() for kind in FORMATS]
        assert min(differences) <= 1e-3, f"{name}: {key} differs from theirs by {differences} in {FORMATS}"
    for _ in range(ROUNDS):
        for key, (net, given) in candidates.items():
            start = time.process_time()
            call(net, given)
            times[key].append(time.process_time() - start)
            _forget(functional, net)
    best = min(((PEER, kind) for kind in FORMATS), key=lambda key: statistics.median(times[key]))
    rows = []
    for key, seconds in times.items():
        who, kind = key
        if who == PEER:
            continue
        ratio = statistics.median(other / own for other, own in zip(times[best], seconds, strict=True))
        row = {
            "net": name,
            "mode": mode,
            "ours": who,
            "format": kind,
            "cpu_ms_median": round(1e3 * statistics.median(seconds), 1),
            **{f"theirs_{other}_ms": round(1e3 * statistics.median(times[PEER, other]), 1) for other in FORMATS},
            "times_theirs": round(ratio, 2),
            "mean_firing_rate": "" if who == BOUND else round(firing_rate(*candidates[key]), 4),
            "rounds": ROUNDS,
            "load": round(os.getloadavg()[0], 1),
        }
        print(row, flush=True)
        rows.append(row)
    return rows


def _forget(functional: Any, net: Any) -> None:
    """Their nets keep state between calls; ours do not."""
    if not isinstance(net, nn.Model):
        functional.reset_net(net)


def main() -> None:
    """Measure both nets in both modes."""
    torch.set_num_threads(1)
    rows = []
    for name in ("sew_resnet18", "spiking_vgg11"):
        torch.manual_seed(0)
        theirs = their_net(name)
        x = torch.rand(T, B, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2
        settle(theirs, x)
        nets = {PEER: theirs, BOUND: without_neurons(theirs)}
        for backend, products in (("cpu", "dense"), ("torch", "dense"), ("cpu", "auto")):
            nets[f"{backend}, products={products}"] = our_net(name, backend, products, theirs)
        for mode in ("inference", "training"):
            rows += measure(name, mode, nets, x)
    write("zoo", rows, "torch", PEER)


if __name__ == "__main__":
    main()
