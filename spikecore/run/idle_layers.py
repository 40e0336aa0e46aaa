"""Layers that never spike, or spike at nearly every step: told after an epoch, once per layer and state.

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
from spikecore.run.probe import SATURATED_RATE, Sampler
from spikecore.run.text import count_text

NUM_SAMPLES = 16
SILENT, SATURATED = "silent", "saturated"


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
        self._told = {
            (name, state)
            for name in self._layers
            for state in (SILENT, SATURATED)
            if any(note.startswith(f"layer {name!r} ") and f" is {state} after epoch " in note for note in notes)
        }

    def look(self, epoch: int) -> list[str]:
        """Warnings that are new.

        Raises:
            Exception: the net or the data cannot be looked at so; whatever they raise.
        """
        if not self._layers:
            return []
        if self._sampler is None:
            example = self._trainer.example(self._task)
            self._sampler = Sampler(self._task, self._context, example, NUM_SAMPLES)
        warnings = []
        for rates in self._sampler.rates():
            name, state = rates["name"], state_of(rates["rate"])
            if name in self._layers and state and (name, state) not in self._told:
                self._told.add((name, state))
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


def state_of(rate: float) -> str:
    """`silent`, `saturated`, or "" for a layer that is neither."""
    if rate == 0:
        return SILENT
    return SATURATED if rate >= SATURATED_RATE else ""


def warning(epoch: int, rates: Mapping[str, Any], state: str, num_samples: int, layer: nn.Module) -> str:
    """What is wrong and what usually helps."""
    kind = f"{rates['type']}, {count_text(rates['num_neurons'], 'neuron')}"
    samples = count_text(num_samples, "sample")
    head = f"layer {rates['name']!r} ({kind}) is {state} after epoch {epoch}: "
    cures = ", ".join(_cures(layer, state))
    if state == SILENT:
        return f"{head}no spike in {samples}, so the layers behind it get nothing. Usual cures: {cures}"
    share = f"it spikes at {rates['rate']:.0%} of the steps in {samples}"
    return f"{head}{share}, so its spikes tell the layers behind it little. Usual cures: {cures}"


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
