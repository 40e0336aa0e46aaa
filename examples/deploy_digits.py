# python examples/deploy_digits.py
"""From a trained net to devices: quantize it, export it for every installed target, and look at what changes."""

import tempfile
from pathlib import Path

import torch

from spikecore import create, nn
from spikecore.analysis import compare_traces, fidelity_page, quantization_errors, record_spikes
from spikecore.registry import registry

torch.manual_seed(0)
digits = create("dataset", "digits")
train, test = digits.split("train"), digits.split("test")
encoder = create("encoder", "poisson", num_steps=8)

# What every target has: hard reset to 0, one threshold per layer, no bias between neurons.
net = torch.nn.Sequential(
    nn.Flatten(),
    torch.nn.Linear(64, 64, bias=False),
    nn.IF(fires="above", backend="torch"),
    torch.nn.Linear(64, 10, bias=False),
)
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
for _ in range(8):
    for batch in torch.randperm(len(train)).split(64):
        loss = torch.nn.functional.cross_entropy(net(encoder(train.images[batch])).mean(0), train.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
net.eval()

x, labels = encoder(test.images), test.labels


def accuracy(out: torch.Tensor) -> float:
    """Of the mean over time of `[T, B, 10]`."""
    return float((out.mean(0).argmax(1) == labels).float().mean())


with torch.no_grad():
    before = accuracy(net(x))
example = x[:, :1]
installed = {entry.name for entry in registry().entries() if entry.kind in ("converter", "deployer")}
quantized = net
if "quantize" in installed:
    # One scale per layer, as chips have it.
    quantized, report = create("converter", "quantize", per="layer").convert(net, example, [x[:, :64]])
with torch.no_grad():
    after = accuracy(quantized(x))
print(f"accuracy: trained {before:.1%}, quantized {after:.1%}")
assert before > 0.85
assert abs(before - after) < 0.03

directory = Path(tempfile.mkdtemp())
options = {"nir": {"if_input": "step"}}
for name in sorted(installed & {"nir", "onnx", "lava"}):
    deployer = create("deployer", name, **options.get(name, {}))
    artefact = deployer.export(quantized, example, directory / f"digits{deployer.capabilities.suffix or '.' + name}")
    out, spikes = record_spikes(quantized, x)
    deployed = deployer.simulate(artefact, x)
    fidelity = compare_traces(spikes, deployer.trace(artefact, x)).with_output(out, deployed, labels)
    errors = quantization_errors(quantized)
    notes = (f"Accuracy before quantization: {before:.1%}.", *artefact.notes)
    page = directory / f"{name}.html"
    page.write_text(fidelity_page(f"digits on {name}", fidelity, artefact.mapping, notes, errors), encoding="utf-8")
    print(f"{name:5}  accuracy {accuracy(deployed):.1%}  {page}")
    assert abs(accuracy(deployed) - after) < 0.005
