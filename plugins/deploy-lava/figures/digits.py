"""Accuracy of a quantized digits net on Lava over 5-fold cross-validation: docs/benchmarks/lava_digits.csv.

float      the trained net, LIF with tau = 3
quantized  its weights with 8 bits and one scale per layer, by converter quantize
lava       the exported network in fixed point: also decays of 12 bits, biases of 13, integer states, by loihi_lif
lava-nc    the same network in lava-nc itself, on the first samples of each fold: spikes that differ from loihi_lif's

python plugins/deploy-lava/figures/digits.py    seeded; needs the plugin ann2snn, and a Python with lava-nc 0.10.0
"""

from __future__ import annotations

import csv
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from spikecore import create, nn
from spikecore.analysis import compare_traces, record_spikes
from spikecore.errors import PluginUnavailable
from spikecore_deploy_lava import Lava

FOLDS, EPOCHS, BATCH, RATE, STEPS = 5, 30, 64, 5e-3, 16
IN_LAVA = 20
"""Samples of a fold that lava-nc runs: it takes about half a second for each."""
OUT = Path(__file__).resolve().parents[3] / "docs/benchmarks/lava_digits.csv"


def all_digits() -> tuple[Tensor, Tensor]:
    """Poisson spikes `[T, 1797, 1, 8, 8]` of all digits, and their labels, shuffled by a seed."""
    dataset = create("dataset", "digits")
    splits = [dataset.split(name) for name in ("train", "test")]
    images, labels = (torch.cat([getattr(split, name) for split in splits]) for name in ("images", "labels"))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    return create("encoder", "poisson", num_steps=STEPS)(images[order]), labels[order]


def trained(x: Tensor, labels: Tensor, fold: int) -> torch.nn.Module:
    """AdamW with a cosine schedule."""
    torch.manual_seed(fold)
    layers = [nn.Flatten(), torch.nn.Linear(64, 128), nn.LIF(tau=3.0, v_threshold=0.5, backend="torch")]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH):
            loss = F.cross_entropy(net(x[:, batch]).mean(0), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return net.eval()


def accuracy(out: Tensor, labels: Tensor) -> float:
    """Of the mean over time of `[T, B, 10]`."""
    return float((out.mean(0).argmax(1) == labels).double().mean())


@torch.no_grad()
def one_fold(fold: int, x: Tensor, labels: Tensor, folder: Path) -> dict[str, object]:
    """The row of a fold."""
    held = torch.arange(len(labels)) % FOLDS == fold
    test_x, test_labels = x[:, held], labels[held]
    with torch.enable_grad():
        net = trained(x[:, ~held], labels[~held], fold)
    quantize = create("converter", "quantize", per="layer")
    quantized, _ = quantize.convert(net, x[:, :1], [x[:, ~held][:, :256]])
    deployer = Lava()
    artefact = deployer.export(quantized, x[:, :1], folder / f"fold{fold}")
    spikes = record_spikes(quantized, test_x)[1]
    fidelity = compare_traces(spikes, deployer.trace(artefact, test_x))
    out = deployer.simulate(artefact, test_x)
    given = {"float": net(test_x), "quantized": quantized(test_x), "lava": out}
    accuracies = {name: accuracy(values, test_labels) for name, values in given.items()}
    few = test_x[:, :IN_LAVA]
    try:
        theirs = Lava(executor="lava", timeout=600.0).trace(artefact, few)
        ours = deployer.trace(artefact, few)
        different: object = sum(int((theirs[name] != spikes).sum()) for name, spikes in ours.items())
    except PluginUnavailable as error:
        print(f"not run in lava-nc: {error}")
        different = "not run"
    return {
        "fold": fold,
        "T": STEPS,
        "samples": len(test_labels),
        **accuracies,
        "loss_points": 100 * (accuracies["float"] - accuracies["lava"]),
        "spike_agreement": fidelity.agreement,
        "lava_nc_samples": IN_LAVA,
        "lava_nc_different_spikes": different,
    }


def main() -> None:
    """Measure all folds."""
    x, labels = all_digits()
    versions = {
        "spikecore_deploy_lava": version("spikecore-deploy-lava"),
        "torch": torch.__version__,
        "lava_nc": "0.10.0",
        "python": platform.python_version(),
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = [{**one_fold(fold, x, labels, Path(folder)), **versions} for fold in range(FOLDS)]
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    mean = sum(float(str(row["loss_points"])) for row in rows) / FOLDS
    print(f"float - lava, mean of {FOLDS} folds: {mean:.2f} points")
    assert all(row["lava_nc_different_spikes"] in (0, "not run") for row in rows)
    assert abs(mean) < 0.5


if __name__ == "__main__":
    main()
