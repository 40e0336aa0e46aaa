"""What a net does with a few validation samples, before and after training: rates per layer, rasters, membrane traces.

Looking changes neither the net's mode nor any random generator: both are put back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.errors import RunError
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.interfaces.task import Task
from spikecore.nn import Neuron, get_state, reset_state, set_state
from spikecore.nn.layers.sync_norm import is_synchronised
from spikecore.run.context import Context
from spikecore.run.randomness import undisturbed
from spikecore.run.tree import read_tree, write_tree
from spikecore.torch_internals import BatchNorm
from spikecore.trainers.batches import put_together
from spikecore.trainers.splits import unaugmented

NUM_SAMPLES = 64
CHUNK = 8
"""Samples that are fed in one call, so that a large net fits into memory."""
NUM_TRACED_LAYERS = 4
NUM_COLUMNS, MAX_SHOWN = 40, 10
"""Steps in a picture, where short sequences of several samples stand side by side; and the most samples in one."""
MAX_VALUES = 65536
"""Values that are kept of a layer: the longer a sequence, the fewer neurons, from `MOST_TRACED` to `LEAST_TRACED`."""
LEAST_TRACED, MOST_TRACED = 32, 256
SATURATED_RATE = 0.95
"""Share of the steps from which on a neuron that spikes in them is called saturated."""
read, save = read_tree, write_tree
"""Of what `probe` found."""


def path_of(directory: Path, moment: str) -> Path:
    """The file of `before` or `after`."""
    return directory / f"probe-{moment}.safetensors"


def probe(task: Task, context: Context, example: Tensor | None = None) -> dict[str, Any]:
    """Look at the net as it is.

    Args:
        task: its net, and its data where it has any.
        context: of the run; gives device and precision.
        example: inputs `[T, B, *input_shape]`, on any device; None for samples of the validation split, or
            of the training split where there is none.

    Returns:
        `layers`: per neuron layer its name, size, mean rate, shares of silent and saturated neurons; for some of them
        `spikes` and `v` `[S, T, K]` of K neurons (`index`) for S samples. `labels` are those of the S samples; empty
        where they have none. `unseen`: neuron layers that did not run.
    """
    inputs = _Samples(task) if example is None else _Example(example)
    layers = _neurons(task.model)
    rates = _Rates(layers)

    def feed(index: Sequence[int]) -> None:
        reset_state(task.model)
        sequence = inputs.sequence(index, context.device)
        rates.own_steps = inputs.own_steps
        for net in _nets(task.model):
            net(sequence)
        reset_state(task.model)

    with undisturbed(context.device), _evaluating(task.model), torch.no_grad(), _precision(context):
        with rates.watching():
            for start in range(0, len(inputs), CHUNK):
                feed(range(start, min(start + CHUNK, len(inputs))))
        chosen = {module: module.chosen for module in layers.values() if isinstance(module, Neuron)}
        shown = range(_num_shown(len(inputs), rates.num_steps))
        traces = _Traces(_some(rates.seen()))
        with traces.watching():
            feed(shown)
        # A neuron whose potential is recorded may take another backend: the choice to report is that of plain calls.
        for module, choice in chosen.items():
            module.chosen = choice
    unseen = [name for name in layers if name not in rates.seen()]
    reports = [{**rates.of(name), **traces.of(name)} for name in rates.seen()]
    return {
        "num_samples": len(inputs),
        "labels": inputs.labels(shown),
        "split": inputs.split,
        "layers": reports,
        "unseen": unseen,
    }


def _num_shown(num_samples: int, num_steps: int) -> int:
    """How many samples stand side by side in a picture of about `NUM_COLUMNS` steps."""
    fitting = round(NUM_COLUMNS / max(1, num_steps))
    return min(num_samples, MAX_SHOWN, max(1, fitting))


class NothingToFeed(RunError):
    """There is no input on which the net's neurons could be looked at."""


class Sampler:
    """Firing rates on a few samples, always the same. What the net keeps between steps is put back as well.

    Args:
        task, context, example: as of `probe`.
        num_samples: at most.
    """

    def __init__(self, task: Task, context: Context, example: Tensor | None, num_samples: int) -> None:
        self._task, self._context = task, context
        with undisturbed(context.device):
            self._inputs = _Samples(task, num_samples) if example is None else _Example(example)
        self._num_samples = min(num_samples, len(self._inputs))

    def __len__(self) -> int:
        return self._num_samples

    def rates(self, own_statistics: bool = False) -> list[dict[str, Any]]:
        """`layers` as of `probe`, without traces.

        Args:
            own_statistics: batch norms normalise with the statistics of these samples, as in training, in place of
                their running ones, which stay as they are.
        """
        model, context = self._task.model, self._context
        norms = batch_norms(model) if own_statistics else []
        layers = _neurons(model)
        rates = _Rates(layers)
        kept = get_state(model)
        chosen = {module: module.chosen for module in layers.values() if isinstance(module, Neuron)}
        with undisturbed(context.device), _evaluating(model), torch.no_grad(), _precision(context), rates.watching():
            before = [_copied_buffers(norm) for norm in norms]
            try:
                for norm in norms:
                    norm.train()
                reset_state(model)
                sequence = self._inputs.sequence(range(self._num_samples), context.device)
                rates.own_steps = self._inputs.own_steps
                for net in _nets(model):
                    net(sequence)
            finally:
                for norm, buffers in zip(norms, before, strict=True):
                    for name, buffer in norm.named_buffers():
                        buffer.copy_(buffers[name])
                reset_state(model)
                set_state(model, kept)
                for module, choice in chosen.items():
                    module.chosen = choice
        return [rates.of(name) for name in rates.seen()]


def neuron_layers(model: nn.Module) -> list[str]:
    """Names of the layers of neurons."""
    return list(_neurons(model))


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Those that keep running statistics of what this process sees: a synchronised one would wait for the others."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    return [norm for norm in norms if not is_synchronised(norm)]


def _copied_buffers(norm: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in norm.named_buffers()}


class _Samples:
    """Samples of the validation split, or of another where there is none, spread over all of it.

    The test split comes last: before training is over it is not looked at.
    """

    def __init__(self, task: Task, num_samples: int = NUM_SAMPLES) -> None:
        self.split = next((name for name in ("val", "train", "test") if name in task.splits), "")
        if not self.split:
            raise NothingToFeed(
                "the task has no data, and its trainer gives no example of an input: let the trainer's example(task) "
                "return a few inputs [T, B, *input_shape], always the same"
            )
        split = unaugmented(task.split(self.split))
        self._task, self._split = task, split
        self._indices = _spread(len(split), num_samples).tolist()
        self._samples = [split[i] for i in self._indices]
        self._generator: torch.Generator | None = None
        self.own_steps: Tensor | None = None
        """Of the latest sequence, `[T, B]`, where its samples were padded."""

    def __len__(self) -> int:
        return len(self._samples)

    def sequence(self, index: Sequence[int], device: torch.device) -> Tensor:
        samples = [self._samples[i] for i in index]
        indices = [self._indices[i] for i in index]
        batch = put_together(self._split, samples, self._task.is_sequence, indices=indices)
        x, self.own_steps = batch.x.to(device), batch.mask
        if self._task.is_sequence:
            return x
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(0)
        return self._task.sequence(x, self._generator)

    def labels(self, index: Sequence[int]) -> list[int]:
        labels = [self._samples[i][1] for i in index]
        classes = [label for label in labels if isinstance(label, int)]
        return classes if len(classes) == len(labels) else []


class _Example:
    """Inputs that the trainer gave."""

    split = ""
    own_steps: Tensor | None = None

    def __init__(self, x: Tensor) -> None:
        self._x = x[:, :NUM_SAMPLES]

    def __len__(self) -> int:
        return self._x.shape[1]

    def sequence(self, index: Sequence[int], device: torch.device) -> Tensor:
        return self._x[:, list(index)].to(device)

    def labels(self, index: Sequence[int]) -> list[int]:
        return []


def _nets(model: nn.Module) -> list[nn.Module]:
    """What takes an input: the model, or each of the nets that it is made of."""
    return list(model.values()) if isinstance(model, nn.ModuleDict) else [model]


class _Rates:
    """Counts spikes per neuron as the samples go by; keeps no sequence."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self._layers = layers
        self._counts: dict[str, Tensor] = {}
        self._totals: dict[str, int] = {}
        self.num_steps = 0
        self.own_steps: Tensor | None = None
        """Of what the net is called with: the steps that count, `[T, B]`, where samples were padded."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = [module.register_forward_hook(self._hook(name)) for name, module in self._layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def seen(self) -> dict[str, nn.Module]:
        """The layers that ran, in the net's order."""
        return {name: module for name, module in self._layers.items() if name in self._counts}

    def of(self, name: str) -> dict[str, Any]:
        rate = self._counts[name].double() / self._totals[name]
        return {
            "name": name,
            "type": type(self._layers[name]).__name__,
            "num_neurons": rate.numel(),
            "rate": float(rate.mean()),
            "silent": float((rate == 0).double().mean()),
            "saturated": float((rate >= SATURATED_RATE).double().mean()),
        }

    def _hook(self, name: str) -> Any:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            out = _sequence(module, output)
            if out is None:
                return
            fired, num_steps, own = out != 0, out.shape[0] * out.shape[1], self.own_steps
            if own is not None and own.shape == out.shape[:2]:  # a layer may change T, and then padding is not known
                fired = fired & own.to(out.device).view(*own.shape, *[1] * (out.dim() - 2))
                num_steps = int(own.sum())
            self._counts[name] = self._counts.get(name, 0) + fired.sum((0, 1)).flatten().cpu()
            self._totals[name] = self._totals.get(name, 0) + num_steps
            if module.step_mode == "multi":
                self.num_steps = max(self.num_steps, out.shape[0])

        return count


class _Traces:
    """Keeps spikes and membrane potentials of some neurons."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self._layers = layers
        self._spikes: dict[str, list[Tensor]] = {}
        self._v: dict[str, list[Tensor]] = {}
        self._index: dict[str, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        recording = {m: m.record for m in self._layers.values() if isinstance(m, Neuron) and "v" in m.state}
        handles = [module.register_forward_hook(self._hook(name)) for name, module in self._layers.items()]
        try:
            for module in recording:
                module.record = ("v",)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, record in recording.items():
                module.record, module.recorded = record, {}

    def of(self, name: str) -> dict[str, Any]:
        if name not in self._spikes:
            return {}
        threshold = getattr(self._layers[name].config, "v_threshold", None)
        sequences = {
            "index": self._index[name],
            "spikes": torch.cat(self._spikes[name]).transpose(0, 1).to(torch.uint8),
            "v_threshold": float(threshold) if isinstance(threshold, int | float) else None,
        }
        if name in self._v:
            sequences["v"] = torch.cat(self._v[name]).transpose(0, 1).float()
        return sequences

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            out = _sequence(module, output)
            if out is None:
                return
            flat = out.flatten(2)
            if name not in self._index:
                num_kept = MAX_VALUES // (out.shape[0] * out.shape[1])
                self._index[name] = _spread(flat.shape[2], min(MOST_TRACED, max(LEAST_TRACED, num_kept)))
            index = self._index[name].to(flat.device)
            self._spikes.setdefault(name, []).append((flat[:, :, index] != 0).cpu())
            recorded = getattr(module, "recorded", {}).get("v")
            if recorded is not None and recorded.shape == out.shape:
                self._v.setdefault(name, []).append(recorded.flatten(2)[:, :, index].cpu())

        return keep


def _neurons(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "capabilities", None), NeuronCapabilities)
    }


def _some(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """A few of them, from the first to the last."""
    names = list(layers)
    return {names[i]: layers[names[i]] for i in _spread(len(names), NUM_TRACED_LAYERS).tolist()}


def _spread(size: int, wanted: int) -> Tensor:
    """`wanted` indices (all, when there are fewer) from the first to the last."""
    return torch.linspace(0, size - 1, min(wanted, size), dtype=torch.float64).round().long()


def _sequence(module: nn.Module, output: Any) -> Tensor | None:
    """The output as `[T, B, ...]`; None when it is no such thing."""
    if not isinstance(output, Tensor) or output.is_sparse:
        return None
    out = output if module.step_mode == "multi" else output.unsqueeze(0)
    if out.dim() < 2 or not out.numel():
        return None
    return out if out.dim() > 2 else out.unsqueeze(2)


def _precision(context: Context) -> torch.autocast:
    return torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
