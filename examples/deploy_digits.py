# python examples/deploy_digits.py
"""From trained nets to devices: quantize, export for every installed target, and look at what changes.

Once for handwritten digits that an encoder turns into spikes, and once for events of a camera.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from spikecore import create, nn
from spikecore.analysis import compare_traces, fidelity_page, quantization_errors, record_spikes
from spikecore.registry import registry

Samples = tuple[Tensor, Tensor]
"""Whole numbers `[T, B, ...]`, and the labels."""
INSTALLED = {entry.name for entry in registry().entries() if entry.kind in ("dataset", "converter", "deployer")}
OPTIONS = {"nir": {"if_input": "step"}}
"""Readers of NIR add the input of an IF as it is."""


def fire() -> nn.IF:
    """What every target has: a hard reset to 0, one threshold per layer."""
    return nn.IF(fires="above", backend="torch")


def digits() -> tuple[Samples, Samples, torch.nn.Module]:
    """Poisson spikes of images, and a net of two matrices."""
    data, encoder = create("dataset", "digits"), create("encoder", "poisson", num_steps=8)
    train, test = ((encoder(split.images), split.labels) for split in map(data.split, ("train", "test")))
    layers = [nn.Flatten(), torch.nn.Linear(64, 64, bias=False), fire(), torch.nn.Linear(64, 10, bias=False)]
    return train, test, torch.nn.Sequential(*layers)


def ndigits() -> tuple[Samples, Samples, torch.nn.Module]:
    """Counts of events of a camera that looks at digits, and a convolutional net."""
    data = create("dataset", "ndigits")

    def first(split: str, count: int) -> Samples:
        frames, labels = zip(*map(data.split(split).__getitem__, range(count)), strict=True)
        return torch.stack(frames, 1), torch.tensor([int(label) for label in labels])

    layers = [nn.Conv2d(2, 8, 5, stride=2, bias=False), fire(), nn.AvgPool2d(2), nn.Flatten()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(8 * 5 * 5, 10, bias=False))
    return first("train", 480), first("test", 120), net


def trained(net: torch.nn.Module, samples: Samples, epochs: int) -> torch.nn.Module:
    """The net after training."""
    x, labels = samples
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(48):
            loss = torch.nn.functional.cross_entropy(net(x[:, batch]).mean(0), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def accuracy(out: Tensor, labels: Tensor) -> float:
    """Of the mean over time of `[T, B, 10]`."""
    return float((out.mean(0).argmax(1) == labels).float().mean())


def deployments(title: str, net: torch.nn.Module, samples: Samples, notes: str, folder: Path) -> Iterator[float]:
    """Export for every target, and write a page on each; the accuracy there."""
    x, labels = samples
    for name in sorted(INSTALLED & {"nir", "onnx", "lava", "lynxi"}):
        deployer = create("deployer", name, **OPTIONS.get(name, {}))
        example = x if deployer.capabilities.fixed_shape else x[:, :1]
        path = folder / f"{title}{deployer.capabilities.suffix or '.' + name}"
        artefact = deployer.export(net, example, path)
        out, spikes = record_spikes(net, x)
        deployed = deployer.simulate(artefact, x)
        fidelity = compare_traces(spikes, deployer.trace(artefact, x)).with_output(out, deployed, labels)
        page = folder / f"{title} on {name}.html"
        about = (notes, *artefact.notes)
        text = fidelity_page(page.stem, fidelity, artefact.mapping, about, quantization_errors(net))
        page.write_text(text, encoding="utf-8")
        print(f"{name:5}  accuracy {accuracy(deployed, labels):.1%}, {fidelity.agreement:.2%} of spikes  {page}")
        assert fidelity.agreement >= 0.9999
        yield accuracy(deployed, labels)


directory = Path(tempfile.mkdtemp())
for make, epochs in ((digits, 8), (ndigits, 10)):
    title = make.__name__
    if title not in INSTALLED:
        print(f"{title}: pip install ./plugins/datasets-dvs in a checkout")
        continue
    torch.manual_seed(0)
    train, test, net = make()
    trained(net, train, epochs)
    x, labels = test
    with torch.no_grad():
        before = accuracy(net(x), labels)
    quantized = net
    if "quantize" in INSTALLED:
        # One scale per layer, as chips have it.
        quantized, _ = create("converter", "quantize", per="layer").convert(net, x[:, :1], [x[:, :64]])
    with torch.no_grad():
        after = accuracy(quantized(x), labels)
    print(f"{title}: accuracy trained {before:.1%}, quantized {after:.1%}")
    assert before > 0.8
    assert abs(before - after) < 0.03
    notes = f"Accuracy before quantization: {before:.1%}."
    for deployed in deployments(title, quantized, test, notes, directory):
        assert abs(deployed - after) < 0.005
