"""What a fused neuron is worth inside nets: a part of `make bench-gpu`, written to docs/benchmarks/gpu-nets.csv.

    sew_resnet18     training step (SGD, autocast to bfloat16), T = 4, B = 32, images 3×224²; by its registered
                     name, compared with spikingjelly's own
    conv, neuron     forward + backward, channels-last, eager and under `torch.compile(fullgraph=True)`
    norm, neuron     forward + backward of batch norm and LIF: in one call, and one after the other
    exponential      forward + backward of a neuron whose step has an exponential, exact and with `fast_exp`; how many
                     spikes differ from eager torch's is counted

A candidate is compared with eager torch (`torch`) before it is timed; then all of them take turns. `--tiny` runs the
same code on small sizes, on any device: it shows that everything works, its times say nothing.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikecore import create
from spikecore.bench import rows as table
from spikecore.bench import timing
from spikecore.bench.rows import FAILED, UNAVAILABLE, Row, fill
from spikecore.errors import SpikeError
from spikecore.nn import LIF, configure_backend, layers
from spikecore.nn.batch_statistics import BatchStatistics
from spikecore.registry import Registry, use

REFERENCE = "torch"
PEER = "spikingjelly"
MODEL = "sew_resnet18"
WITH_EXPONENTIAL = "eif"
RELATIVE = 0.02
"""How far a loss may be from the reference's: products in bfloat16 have 8 bits."""
OPTIONS = {"tau": 2.0, "detach_reset": True}
OUT = Path(__file__).parents[2] / "docs" / "benchmarks" / "gpu-nets.csv"
Step = Callable[[], Tensor]


class Sizes(NamedTuple):
    """Sizes of the inputs.

    Args:
        images: T, B, C, H, W for the model.
        classes: of the model.
        maps: T, B, C, H, W for the pairs of layers.
        seconds: for each subject.
        compiler: of torch.compile.
    """

    images: tuple[int, ...]
    classes: int
    maps: tuple[int, ...]
    seconds: float
    compiler: str


FULL = Sizes((4, 32, 3, 224, 224), 1000, (4, 32, 128, 28, 28), 30.0, "inductor")
TINY = Sizes((2, 2, 3, 32, 32), 5, (2, 2, 8, 4, 4), 0.0, "eager")


def model_step(net: nn.Module, reset: Callable[[], object], sizes: Sizes, device: torch.device) -> Step:
    """A training step of a net that takes images of several steps; returns its loss."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sizes.images, generator=generator).to(device)
    labels = torch.randint(sizes.classes, sizes.images[1:2], generator=generator).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)

    def step() -> Tensor:
        reset()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(net(x).mean(0), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def models(backends: Sequence[str], sizes: Sizes, device: torch.device) -> dict[str, Callable[[], Step]]:
    """Training steps of the model by candidate."""

    def ours(backend: str) -> Step:
        torch.manual_seed(0)
        size = sizes.images[2:]
        net = create("model", MODEL, lambda: LIF(**OPTIONS, backend=backend), size, sizes.classes)
        return model_step(net.to(device), lambda: None, sizes, device)

    def theirs() -> Step:
        torch.manual_seed(0)
        functional, neuron = (
            import_module(f"spikingjelly.activation_based.{name}") for name in ("functional", "neuron")
        )
        surrogate = import_module("spikingjelly.activation_based.surrogate").ATan()
        module = import_module("spikingjelly.activation_based.model.sew_resnet")
        net = module.sew_resnet18(
            cnf="ADD", spiking_neuron=neuron.LIFNode, num_classes=sizes.classes, surrogate_function=surrogate, **OPTIONS
        )
        functional.set_step_mode(net, "m")
        return model_step(net.to(device), lambda: functional.reset_net(net), sizes, device)

    candidates: dict[str, Callable[[], Step]] = {name: lambda n=name: ours(n) for name in (REFERENCE, *backends)}
    candidates[PEER] = theirs
    return candidates


def pair_step(run: Callable[[Tensor], Tensor], params: Sequence[Tensor], x: Tensor) -> Step:
    """Forward and backward; returns the mean of the output and the gradient of x, which stands for all gradients."""
    given = x.detach().requires_grad_()

    def step() -> Tensor:
        out = run(given)
        weights = torch.linspace(0.5, 1.5, out.shape[0], device=out.device, dtype=out.dtype).view(-1, 1, 1, 1, 1)
        grads = torch.autograd.grad((out * weights).mean(), [given, *params])
        return torch.stack([out.detach().float().mean(), *(grad.float().norm() for grad in grads)])

    return step


def convolutions(backends: Sequence[str], sizes: Sizes, device: torch.device) -> dict[str, Callable[[], Step]]:
    """Convolution and neuron on channels-last maps, eager and compiled."""
    num_channels = sizes.maps[2]
    torch.manual_seed(0)
    convolution = layers.Conv2d(num_channels, num_channels, 3, padding=1)
    x = torch.randn(sizes.maps, generator=torch.Generator().manual_seed(1)) * 3
    flat = x.flatten(0, 1).to(device=device, memory_format=torch.channels_last)
    x = flat.unflatten(0, sizes.maps[:2])

    def make(backend: str, is_compiled: bool) -> Step:
        net = nn.Sequential(copy.deepcopy(convolution), LIF(**OPTIONS, v_threshold=0.5, backend=backend)).to(device)
        net = net.to(memory_format=torch.channels_last)
        net(x)  # a backend that cannot be used says so; the compiler would wrap its error
        run = torch.compile(net, fullgraph=True, backend=sizes.compiler) if is_compiled else net
        return pair_step(run, tuple(net.parameters()), x)

    candidates: dict[str, Callable[[], Step]] = {}
    for name in (REFERENCE, *backends):
        candidates[name] = lambda n=name: make(n, False)
        candidates[f"{name}, compiled"] = lambda n=name: make(n, True)
    return candidates


def norms(backends: Sequence[str], sizes: Sizes, device: torch.device) -> dict[str, Callable[[], Step]]:
    """Batch norm and neuron in one call, and one after the other."""
    x = (torch.randn(sizes.maps, generator=torch.Generator().manual_seed(1)) * 2 + 1).to(device)

    def make(backend: str, is_fused: bool) -> Step:
        norm = layers.BatchNorm2d(sizes.maps[2]).to(device)
        nn.init.constant_(norm.bias, 0.5)
        neuron = LIF(**OPTIONS, v_threshold=0.5, backend=backend)
        if is_fused:

            def run(y: Tensor) -> Tensor:
                out: Tensor = neuron(y, norm=BatchStatistics(norm, True, "the benchmark"))
                return out
        else:

            def run(y: Tensor) -> Tensor:
                out: Tensor = neuron(norm(y))
                return out

        return pair_step(run, tuple(norm.parameters()), x)

    candidates: dict[str, Callable[[], Step]] = {REFERENCE: lambda: make(REFERENCE, False)}
    for name in backends:
        candidates[f"{name}, pair"] = lambda n=name: make(n, False)
        candidates[f"{name}, one call"] = lambda n=name: make(n, True)
    return candidates


def exponentials(backends: Sequence[str], sizes: Sizes, device: torch.device) -> dict[str, Callable[[], Step]]:
    """A neuron with an exponential in its step, whose functions are exact or fast; a step returns its spikes."""
    x = (torch.randn(sizes.maps, generator=torch.Generator().manual_seed(1)) * 4 + 4).to(device)

    def make(backend: str, is_fast: bool) -> Step:
        registry = Registry()  # a backend of its own: in another one it keeps its options
        with use(registry):
            if is_fast:
                configure_backend(backend, fast_exp=True)
            neuron = create("neuron", WITH_EXPONENTIAL, backend=backend)
        given = x.detach().requires_grad_()

        def step() -> Tensor:
            with use(registry):
                out: Tensor = neuron(given)
            torch.autograd.grad(out.mean(), given)
            return out.detach()

        return step

    candidates: dict[str, Callable[[], Step]] = {REFERENCE: lambda: make(REFERENCE, False)}
    for name in backends:
        candidates[name] = lambda n=name: make(n, False)
        candidates[f"{name}, fast_exp"] = lambda n=name: make(n, True)
    return candidates


def compare_values(ours: Tensor, right: Tensor) -> tuple[str, bool]:
    """What is said of a loss, or of gradients, and whether they are near enough."""
    assert bool((right != 0).all()), "a loss or a gradient is 0, so nothing is compared"
    distance = float(((ours - right).abs() / right.abs()).max())
    return f"loss or gradients differ from eager torch by {distance:.1e}", distance <= RELATIVE


def compare_spikes(ours: Tensor, right: Tensor) -> tuple[str, bool]:
    """How many spikes differ; more than a hundredth of them are too many for rounding."""
    num_spikes, num_other = int(right.sum()), int((ours != right).sum())
    assert num_spikes, "no neuron fires, so nothing is compared"
    return f"{num_other} of {right.numel()} outputs differ from eager torch's {num_spikes} spikes", (
        num_other <= num_spikes // 100
    )


class Subject(NamedTuple):
    """What is measured.

    Args:
        candidates: makes the steps, by name.
        what: a step is.
        sizes: the field of `Sizes` that it has.
        compare: what a step returned with what eager torch's did: a sentence, and whether that is right.
    """

    candidates: Callable[[Sequence[str], Sizes, torch.device], dict[str, Callable[[], Step]]]
    what: str
    sizes: str
    compare: Callable[[Tensor, Tensor], tuple[str, bool]] = compare_values


SUBJECTS = {
    MODEL: Subject(models, "training step", "images"),
    "conv, neuron": Subject(convolutions, "forward+backward", "maps"),
    "norm, neuron": Subject(norms, "forward+backward", "maps"),
    "exponential": Subject(exponentials, "forward+backward", "maps", compare_spikes),
}


def measure(backends: Sequence[str], sizes: Sizes, device: torch.device) -> list[Row]:
    """A row for each candidate of each subject: timed, failed or unavailable with the reason."""
    clock = timing.host_clock if device.type == "cpu" else timing.accelerator_clock(device)
    effort = timing.Effort(sizes.seconds) if sizes.seconds else timing.Effort(0.0, least=3, most=3)
    written: list[Row] = []
    for name_of_subject, subject in SUBJECTS.items():
        print(name_of_subject, flush=True)
        shape = ",".join(map(str, getattr(sizes, subject.sizes)))
        rows: dict[str, Row] = {}
        runs: dict[str, timing.Run] = {}
        right: Tensor | None = None
        for name, make in subject.candidates(backends, sizes, device).items():
            kind = "peer" if name.startswith(PEER) else "backend"
            row = rows[name] = Row(name_of_subject, shape, subject.what, name, "", kind, str(device))
            row.dtype = "bfloat16" if name_of_subject == MODEL else "float32"
            try:
                run = make()
                values = run()
            except (ImportError, SpikeError) as error:
                row.status, row.reason = UNAVAILABLE, str(error)
                continue
            except Exception as error:  # a candidate's own fault is a row, not the end of the others
                row.status, row.reason = FAILED, f"{type(error).__name__}: {error}"
                continue
            if right is None:
                right = values
            row.compared, is_right = subject.compare(values, right)
            # Peers have other weights at first.
            if kind == "backend" and not is_right:
                row.status, row.reason = FAILED, row.compared
                continue
            runs[name] = run
        fill(rows, timing.interleave(runs, clock, effort), REFERENCE)
        written += rows.values()
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a backend computed something else, or raised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", required=True, help="repeatable")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--csv", type=Path, default=OUT)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    common = table.environment(torch.get_num_threads(), given.device)
    written = measure(given.backend, TINY if given.tiny else FULL, torch.device(given.device))
    table.write_csv(given.csv, table.as_records(written, common), (*table.COLUMNS, *common))
    for row in written:
        print(row.subject, row.candidate, row.status, row.wall_ms, row.compared, row.reason, sep=" | ")
    return int(any(row.status == FAILED and row.kind == "backend" for row in written))


if __name__ == "__main__":
    sys.exit(main())
