"""Layers that never spike, or spike at nearly every step: told after an epoch, once per layer and state.

Weights that are not finite are reported instead. Spikes hide them, as a potential of nan never reaches the threshold.

It is measured on `NUM_SAMPLES` samples, always the same, in a pass without gradient after the epoch: no hook is in the
way while the net trains, and no random generator, mode or state of the net is changed by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.interfaces.task import Task
from spikecore.interfaces.trainer import Trainer
from spikecore.run.context import Context
from spikecore.run.probe import SATURATED_RATE, Sampler, batch_norms
from spikecore.run.text import count_text

NUM_SAMPLES = 16
SILENT, SATURATED = "silent", "saturated"
DIVERGED = "not finite after epoch "
SILENT_IN_EVALUATION = "silent in evaluation"
"""It spikes in training: the running statistics of the batch norms are not yet those of the data."""


class IdleLayers:
    """Looks at the layers of spiking neurons.

    Args:
        task, trainer, context: of the run.
        notes: of the run's record: what was told before it was resumed is not told again.
    """

    def __init__(self, task: Task, trainer: Trainer, context: Context, notes: Sequence[str] = ()) -> None:
        self._layers = spiking_layers(task.model)
        self._task, self._trainer, self._context = task, trainer, context
        self._sampler: Sampler | None = None
        self._told: set[tuple[str, str]] = set()
        for name in self._layers:
            about_layer = [note for note in notes if note.startswith(f"layer {name!r} ")]
            for state in (SILENT, SATURATED, SILENT_IN_EVALUATION):
                if any(f" is {state} after epoch " in note for note in about_layer):
                    self._told.add((name, state))
        self._has_diverged = any(DIVERGED in note for note in notes)

    def look(self, epoch: int) -> list[str]:
        """Warnings that are new.

        Raises:
            Exception: the net or the data cannot be looked at so; whatever they raise.
        """
        if self._has_diverged:
            return []
        if wrong := infinite_weights(self._task.model):
            self._has_diverged = True
            return [divergence_warning(epoch, wrong)]
        if not self._layers:
            return []
        if self._sampler is None:
            example = self._trainer.example(self._task)
            self._sampler = Sampler(self._task, self._context, example, NUM_SAMPLES)
        idle = {rates["name"]: rates for rates in self._sampler.rates() if state_of(rates["rate"])}
        idle = {name: rates for name, rates in idle.items() if name in self._layers}
        norms = batch_norms(self._task.model)
        in_training: dict[str, float] = {}
        if norms and any(rates["rate"] == 0 for rates in idle.values()):
            in_training = {rates["name"]: rates["rate"] for rates in self._sampler.rates(own_statistics=True)}
        warnings = []
        for name, rates in idle.items():
            state = state_of(rates["rate"])
            is_behind = state == SILENT and in_training.get(name, 0.0) > 0
            state = SILENT_IN_EVALUATION if is_behind else state
            if (name, state) in self._told:
                continue
            self._told.add((name, state))
            if is_behind:
                warnings.append(_norm_warning(epoch, rates, in_training[name], len(self._sampler), norms))
            else:
                warnings.append(warning(epoch, rates, state, len(self._sampler), self._layers[name]))
        return warnings


def spiking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Name → layer whose neurons spike: no readout, and no `relu`."""
    layers = {}
    for name, module in model.named_modules():
        capabilities = getattr(module, "capabilities", None)
        if isinstance(capabilities, NeuronCapabilities) and capabilities.spiking:
            layers[name or type(module).__name__] = module
    return layers


def infinite_weights(model: nn.Module) -> list[str]:
    """Names of the parameters that hold nan or an infinity."""
    return [name for name, parameter in model.named_parameters() if not bool(parameter.isfinite().all())]


def divergence_warning(epoch: int, names: Sequence[str]) -> str:
    """What it means that these parameters are not finite, and what usually helps."""
    which = repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    return (
        f"weights are {DIVERGED}{epoch}: {which}. Training has diverged, and the metrics from here on say nothing of "
        "the net, also where they are finite. Usual cures: a smaller learning rate, clipped gradients, float32, inputs "
        "without nan and infinities"
    )


def state_of(rate: float) -> str:
    """`silent`, `saturated`, or "" for a layer that is neither."""
    if rate == 0:
        return SILENT
    return SATURATED if rate >= SATURATED_RATE else ""


def warning(epoch: int, rates: Mapping[str, Any], state: str, num_samples: int, layer: nn.Module) -> str:
    """What is wrong and what usually helps."""
    samples = count_text(num_samples, "sample")
    head = _head(epoch, rates, state)
    cures = ", ".join(_cures(layer, state))
    if state == SILENT:
        return f"{head}no spike in {samples}, so the layers behind it get nothing. Usual cures: {cures}"
    share = f"it spikes at {rates['rate']:.0%} of the steps in {samples}"
    return f"{head}{share}, so its spikes tell the layers behind it little. Usual cures: {cures}"


def _head(epoch: int, rates: Mapping[str, Any], state: str) -> str:
    kind = f"{rates['type']}, {count_text(rates['num_neurons'], 'neuron')}"
    return f"layer {rates['name']!r} ({kind}) is {state} after epoch {epoch}: "


def _norm_warning(
    epoch: int, rates: Mapping[str, Any], rate: float, num_samples: int, norms: Sequence[nn.Module]
) -> str:
    """A layer that spikes with the batch norms' statistics of the samples themselves, and not with the running ones."""
    norm: Any = norms[0]
    num_batches = count_text(int(norm.num_batches_tracked), "batch", "batches")
    momentum = "a mean of all" if norm.momentum is None else f"momentum {norm.momentum:g}"
    return (
        f"{_head(epoch, rates, SILENT_IN_EVALUATION)}no spike in {count_text(num_samples, 'sample')} with the running "
        f"statistics of the batch norms, and a spike at {rate:.1%} of the steps with the statistics of these samples, "
        f"as in training: the running ones lag behind (of {num_batches}, {momentum}). The weights are not the cause; "
        "it passes with more batches. Usual cures: a larger momentum of the batch norms, smaller batches, a smaller "
        "learning rate"
    )


def _cures(layer: nn.Module, state: str) -> list[str]:
    """Only what this neuron has: a larger tau helps some neurons to fire and keeps others from it."""
    config = getattr(layer, "config", None)
    more, less = ("larger", "smaller") if state == SILENT else ("smaller", "larger")
    cures = [f"{more} weights before it or a {more} input gain"]
    if hasattr(config, "v_threshold"):
        cures.append(f"a {'lower' if state == SILENT else 'higher'} v_threshold")
    if hasattr(config, "tau"):
        # With decay_input the input is divided by tau; without, tau is for how long it adds up.
        is_divided = getattr(config, "decay_input", False)
        cures.append(f"a {less if is_divided else more} tau")
    return cures
