"""Train the small nets that the zoos ship: `python -m tests.tools.members NAME`, in an environment with every plugin.

Writes the weights, safetensors with a note of the net, and the model card beside them, both into the plugin of the
model. A card says how the net was made and what it does on the test split; `tests/integration/test_members.py` checks
each statement again. Training stops at a fixed number of epochs: the test split chooses nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikecore import create, nn
from spikecore.analysis.operations import ENERGY_MODELS

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    Args:
        num_steps: T of an image, shown alike in each step; of event data the number that its frames have.
        epochs: over the train split.
        learning_rate: the highest; it rises over a tenth of the phase and falls as a cosine.
    """

    num_steps: int
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Member:
    """A net that ships.

    Args:
        model, dataset: registered names.
        options: of the model.
        phases: of the training, one after the other.
        neuron: name and options.
        batch_size: of the training.
        max_shift: pixels by which a training batch is shifted at random, in both directions of both axes.
        shift_each: shifts every sample of a batch by itself, not the batch as a whole.
        seeds: the first is that of the weights that ship; the others tell how much accuracy varies.
    """

    model: str
    dataset: str
    options: dict[str, Any]
    phases: tuple[Phase, ...]
    neuron: dict[str, Any] = field(default_factory=lambda: {"name": "lif", "tau": 1.5, "v_threshold": 0.5})
    batch_size: int = 64
    max_shift: int = 0
    shift_each: bool = False
    seeds: tuple[int, ...] = (0, 1)


MEMBERS = {
    "mnist": Member(
        "plif_mnist",
        "mnist",
        {"channels": 40, "hidden": 200, "votes": 4, "dropout": 0.2},
        (Phase(1, 24, 4e-3), Phase(4, 12, 3e-3)),
        neuron={"name": "plif", "init_tau": 1.5, "v_threshold": 0.5},
        batch_size=100,
        max_shift=2,
        shift_each=True,
        seeds=(0,),
    ),
    "digits-sew": Member(
        "sew_resnet18", "digits", {"width": 8, "stem": "small"}, (Phase(4, 16, 5e-3),), max_shift=1, seeds=(0, 1)
    ),
    "digits-spikformer": Member(
        "spikformer_4_384",
        "digits",
        {"depth": 1, "dim": 64, "heads": 4, "patch_size": 2},
        (Phase(4, 12, 5e-3),),
        max_shift=1,
    ),
    "ndigits": Member(
        "plif_n_mnist",
        "ndigits",
        {"channels": 16, "hidden": 100, "votes": 4, "dropout": 0.2},
        (Phase(10, 40, 5e-3),),
        neuron={"name": "plif", "init_tau": 1.5, "v_threshold": 0.5},
        max_shift=1,
    ),
    "moving-bars": Member("vgg_cifar10_dvs", "moving-bars", {"width": 8}, (Phase(10, 6, 5e-3),), seeds=(0, 1)),
}


def read(dataset: str, split: str) -> tuple[Tensor, Tensor]:
    """All samples: images `[N, C, H, W]`, or event frames `[N, T, C, H, W]`, and labels `[N]`."""
    samples = create("dataset", dataset).split(split)
    pairs = [samples[index] for index in range(len(samples))]
    return torch.stack([x for x, _ in pairs]), torch.tensor([int(label) for _, label in pairs])


def in_time(x: Tensor, num_steps: int) -> Tensor:
    """A batch as `[T, B, C, H, W]`: an image in each of `num_steps` steps, or the frames of events."""
    return x.transpose(0, 1) if x.dim() == 5 else x.expand(num_steps, *x.shape)


def make_net(member: Member, input_shape: tuple[int, ...], num_outputs: int, **more: Any) -> nn.Model:
    """The net of a member; `weights=NAME` among `more` loads those that ship."""
    neuron = dict(member.neuron)
    name = neuron.pop("name")
    net: nn.Model = create(
        "model",
        member.model,
        lambda: create("neuron", name, **neuron),
        input_shape,
        num_outputs,
        **member.options,
        **more,
    )
    return net


def shift(x: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """A batch moved as a whole by some pixels, zeros behind it; `[..., H, W]`."""
    if not max_shift:
        return x
    rows, columns = (int(n) for n in torch.randint(0, 2 * max_shift + 1, (2,), generator=generator))
    height, width = x.shape[-2:]
    padded = torch.nn.functional.pad(x, (max_shift,) * 4)
    return padded[..., rows : rows + height, columns : columns + width]


def shift_each(x: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """A batch of images `[B, C, H, W]`, each moved by its own number of pixels, zeros behind it."""
    height, width = x.shape[-2:]
    rows, columns = torch.randint(0, 2 * max_shift + 1, (2, len(x)), generator=generator)
    padded = torch.nn.functional.pad(x, (max_shift,) * 4)
    samples = torch.arange(len(x))[:, None, None]
    down = (rows[:, None] + torch.arange(height))[:, :, None]
    across = (columns[:, None] + torch.arange(width))[:, None, :]
    return padded.transpose(0, 1)[:, samples, down, across].transpose(0, 1)


def train(member: Member, seed: int) -> nn.Model:
    """The net after all phases."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = read(member.dataset, "train")
    num_outputs = int(labels.max()) + 1
    net = make_net(member, tuple(images.shape[-3:]), num_outputs)
    for phase in member.phases:
        optimizer = torch.optim.Adam(net.parameters(), lr=phase.learning_rate)
        num_updates = phase.epochs * math.ceil(len(images) / member.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, phase.learning_rate, total_steps=num_updates, pct_start=0.1, cycle_momentum=False
        )
        for epoch in range(phase.epochs):
            begin, loss_sum = time.process_time(), 0.0
            net.train()
            for chosen in torch.randperm(len(images), generator=generator).split(member.batch_size):
                move = shift_each if member.shift_each else shift
                x = move(images[chosen], member.max_shift, generator)
                scores = net(in_time(x, phase.num_steps)).mean(0)
                # Votes are rates from 0 to 1: a factor lets their softmax become sure.
                scale = 10.0 if net.capabilities.targets == ("class",) else 1.0
                loss = torch.nn.functional.cross_entropy(scores * scale, labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                loss_sum += loss.item()
            seconds = time.process_time() - begin
            what = f"{member.model} seed {seed} T {phase.num_steps} epoch {epoch}"
            print(f"{what}: loss {loss_sum:.3f}, {seconds:.0f} s CPU", flush=True)
    return net.eval()


def evaluate(net: nn.Model, member: Member, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy, firing rates, operations and energy of one sample, over `images`.

    `energy_nj` is that of 45 nm and float32: accumulations for `synops`, multiply-accumulates for `macs`.
    """
    num_steps = member.phases[-1].num_steps
    spikes: dict[str, float] = {}
    operations = {"synops": 0.0, "macs": 0.0}

    def count_spikes(name: str) -> Any:
        def hook(_: Any, __: Any, out: Tensor) -> None:
            spikes[name] = spikes.get(name, 0.0) + out.detach().mean().item() * out.shape[1]

        return hook

    def count_operations(part: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        """Accumulations for inputs that are counts of spikes; multiplications, at every place, for others."""
        (x,) = inputs
        reached = _reached(part, x)
        operations["synops" if bool((x == x.round()).all()) else "macs"] += reached

    handles = []
    for name, part in net.named_modules():
        if isinstance(part, nn.Neuron):
            handles.append(part.register_forward_hook(count_spikes(name)))
        if isinstance(part, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Linear):
            handles.append(part.register_forward_hook(count_operations))
    right = 0
    with torch.no_grad():
        for chosen in torch.arange(len(images)).split(100):
            scores = net(in_time(images[chosen], num_steps)).mean(0)
            right += int((scores.argmax(-1) == labels[chosen]).sum())
    for handle in handles:
        handle.remove()
    count = len(images)
    model = ENERGY_MODELS["horowitz-fp32"]
    energy_pj = model.ac_pj * operations["synops"] + model.mac_pj * operations["macs"]
    return {
        "num_samples": count,
        "num_right": right,
        "accuracy": right / count,
        "firing_rates": {name: round(total / count, 6) for name, total in spikes.items()},
        **{name: round(total / count) for name, total in operations.items()},
        "energy_nj": round(energy_pj / 1000 / count, 1),
    }


def _reached(part: Any, x: Tensor) -> float:
    """Products of a layer's weights with inputs that are not 0, over the whole batch and all steps."""
    active = (x != 0).to(x.dtype)
    if isinstance(part, torch.nn.Linear):
        return float(active.sum() * part.out_features)
    rank = part.weight.dim() - 2
    flat = active.flatten(0, x.dim() - rank - 2)
    assert part.groups == 1, "no shipped net has groups"
    convolve = torch.nn.functional.conv2d if rank == 2 else torch.nn.functional.conv1d
    ones = torch.ones_like(part.weight[:1])  # every output channel has the same number
    sums = convolve(flat, ones, None, part.stride, part.padding, part.dilation)
    return float(sums.sum() * part.out_channels)


def write(name: str, member: Member) -> None:
    """Train all seeds; write the weights of the first and the card."""
    images, labels = read(member.dataset, "test")
    accuracies: list[float] = []
    begin = time.process_time()
    card: dict[str, Any] = {}
    for seed in member.seeds:
        net = train(member, seed)
        result = evaluate(net, member, images, labels)
        print(name, "seed", seed, result, flush=True)
        accuracies.append(result["accuracy"])
        if not card:
            path = save_weights(net, member, tuple(images.shape[-3:]), int(labels.max()) + 1)
            card = {
                **dataclasses.asdict(member),
                "input_shape": list(images.shape[-3:]),
                "num_outputs": int(labels.max()) + 1,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "parameters": sum(value.numel() for value in net.parameters()),
                "test": result,
                "torch": torch.__version__,
            }
        card["seeds"] = list(member.seeds[: len(accuracies)])
        card["accuracy_of_seeds"] = accuracies
        card["cpu_seconds"] = round(time.process_time() - begin)
        path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def save_weights(net: nn.Model, member: Member, input_shape: tuple[int, ...], num_outputs: int) -> Path:
    """Into the plugin of the model, with a note of how the net is made."""
    from safetensors.torch import save

    from spikecore.nn.weights import WeightsNote, plain_options
    from spikecore.registry import registry

    neuron = next(part for part in net.modules() if isinstance(part, nn.Neuron))
    recipe = json.dumps(dataclasses.asdict(member), sort_keys=True)
    note = WeightsNote(
        model=member.model,
        options=plain_options(net.config),
        input_shape=input_shape,
        num_outputs=num_outputs,
        neuron={"name": member.neuron["name"], **plain_options(neuron.config)},
        source="trained by tests/tools/members.py",
        source_sha256=hashlib.sha256(recipe.encode()).hexdigest(),
    )
    entry = registry().find("model", member.model)
    folder = ROOT / "plugins" / entry.plugin.id / "src" / entry.target.partition(".")[0] / "weights" / member.model
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{member.dataset}.safetensors"
    state = {key: value.detach().clone().contiguous() for key, value in net.state_dict().items()}
    path.write_bytes(save(state, note.to_metadata()))
    return path


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen_name in sys.argv[1:]:
        write(chosen_name, MEMBERS[chosen_name])
