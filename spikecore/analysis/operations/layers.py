"""The numbers of one layer and of a net, per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spikecore.analysis.operations.energy import EnergyModel, energy_model
from spikecore.errors import OptionError
from spikecore.terminal import folded


@dataclass(frozen=True)
class Access:
    """Accesses to one memory of a layer, in words of 4 bytes, per sample.

    Args:
        reads, writes: words.
        size: words that the memory holds, which decides what an access costs.
    """

    reads: float
    writes: float
    size: float


@dataclass(frozen=True)
class LayerOperations:
    """What one layer does for one sample, over all steps; counts are means over the samples.

    Args:
        name: of the module.
        kind: its class.
        num_parameters: of its own, without those of modules inside.
        macs: multiply-accumulates of products whose input is not spikes, zeros included.
        effective_macs: of them, those that meet no zero.
        acs: accumulates: of products whose input is -1, 0 and 1, the operations that meet no zero.
        dense: operations of all products, zeros included.
        memory: `weights`, `inputs`, `outputs` and `state` → accesses.
        num_neurons: of a neuron layer, in one step; 0 for all others.
        num_states: numbers that it keeps from step to step.
        updates: neurons times steps.
        spikes: outputs of the neurons that are not 0; None where the layer has none, or they are no spikes.
        is_activation: its outputs count for the activation sparsity.
        active: outputs that are not 0, of `updates`.
        time_s: of one call, for one sample; None where it was not measured.
    """

    name: str
    kind: str
    num_parameters: int = 0
    macs: float = 0.0
    effective_macs: float = 0.0
    acs: float = 0.0
    dense: float = 0.0
    memory: Mapping[str, Access] = field(default_factory=dict)
    num_neurons: float = 0.0
    num_states: float = 0.0
    updates: float = 0.0
    spikes: float | None = None
    is_activation: bool = False
    active: float = 0.0
    time_s: float | None = None

    @property
    def synops(self) -> float:
        """Synaptic operations: those of all products that meet no zero."""
        return self.effective_macs + self.acs

    @property
    def rate(self) -> float | None:
        """Spikes per neuron and step."""
        return None if self.spikes is None or not self.updates else self.spikes / self.updates

    @property
    def reads(self) -> float:
        """Words that are read."""
        return sum(access.reads for access in self.memory.values())

    @property
    def writes(self) -> float:
        """Words that are written."""
        return sum(access.writes for access in self.memory.values())


@dataclass(frozen=True)
class Operations:
    """What a net does for one sample.

    Args:
        layers: in the net's order: those that multiply, neurons, and all others with parameters.
        num_samples: that were counted.
        num_steps: T.
        connection_sparsity: share of the weights that are 0.
        footprint: bytes of parameters and buffers.
        uncounted: operators that hold products which were not counted.
    """

    layers: tuple[LayerOperations, ...]
    num_samples: int
    num_steps: int
    connection_sparsity: float
    footprint: int
    uncounted: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> LayerOperations:
        """The layer of this name.

        Raises:
            OptionError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise OptionError(f"there is no layer {name!r}; there are {', '.join(layer.name for layer in self.layers)}")

    @property
    def products(self) -> tuple[LayerOperations, ...]:
        """The layers that multiply."""
        return tuple(layer for layer in self.layers if layer.dense)

    def total(self, name: str) -> float:
        """The sum of a number over the layers, such as `acs`."""
        return float(sum(getattr(layer, name) or 0 for layer in self.layers))

    @property
    def activation_sparsity(self) -> float:
        """Share of the outputs of neurons and rectifiers that are 0; 0 where there are none."""
        counted = [layer for layer in self.layers if layer.is_activation]
        total = sum(layer.updates for layer in counted)
        return 1 - sum(layer.active for layer in counted) / total if total else 0.0

    def energy_pj(self, model: str | EnergyModel = "horowitz-fp32") -> float:
        """Picojoule for one sample, by a model of `ENERGY_MODELS`.

        Raises:
            OptionError: there is no such model.
        """
        chosen = energy_model(model)
        return sum(chosen.of_layer(layer) for layer in self.layers)

    def with_times(self, times_s: Mapping[str, float]) -> Operations:
        """The same with the time of each layer; a block gets a row for its time, before those of its parts."""
        layers: list[LayerOperations] = []
        left = dict(times_s)
        for layer in self.layers:
            blocks = [name for name in left if layer.name.startswith(f"{name}.")]
            layers += [LayerOperations(block, "(its parts follow)", time_s=left.pop(block)) for block in blocks]
            layers.append(replace(layer, time_s=left.pop(layer.name, None)))
        return replace(self, layers=tuple(layers))

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data, with the energy by every model."""
        from spikecore.analysis.operations.energy import ENERGY_MODELS

        rows = []
        for layer in self.layers:
            memory = {name: vars(access) for name, access in layer.memory.items()}
            energy = {name: model.of_layer(layer) for name, model in ENERGY_MODELS.items()}
            derived = {"synops": layer.synops, "rate": layer.rate, "energy_pj": energy}
            rows.append({**vars(layer), "memory": memory, **derived})
        names = ("num_parameters", "macs", "effective_macs", "acs", "synops", "dense", "spikes", "num_states")
        totals: dict[str, Any] = {name: self.total(name) for name in (*names, "reads", "writes")}
        totals["energy_pj"] = {name: self.energy_pj(model) for name, model in ENERGY_MODELS.items()}
        return {
            "num_samples": self.num_samples,
            "num_steps": self.num_steps,
            "activation_sparsity": self.activation_sparsity,
            "connection_sparsity": self.connection_sparsity,
            "footprint_bytes": self.footprint,
            "uncounted": list(self.uncounted),
            "total": totals,
            "layers": rows,
        }

    def table(self, model: str | EnergyModel = "horowitz-fp32", width: int | None = None) -> str:
        """A row per layer, as text.

        Args:
            model: of the energy.
            width: columns of the terminal, where a wider table gets several blocks of columns; None for one block.
        """
        chosen = energy_model(model)
        rows = [HEAD, *(_row(layer, chosen) for layer in self.layers), self._last_row(chosen)]
        if all(layer.time_s is None for layer in self.layers):
            rows = [row[:-1] for row in rows]
        return folded(rows, num_words=2, width=width)

    def _last_row(self, model: EnergyModel) -> tuple[str, ...]:
        names = ("num_parameters", "macs", "acs", "synops", "spikes")
        sums = [amount(self.total(name)) for name in names]
        memory = [amount(self.total("num_states")), amount(self.total("reads") + self.total("writes"))]
        times = [layer.time_s for layer in self.layers if layer.time_s is not None]
        time = f"{sum(times) * 1e6:.1f}" if times else ""
        return ("all", "", *sums, "", *memory, f"{self.energy_pj(model) / 1000:.4g}", time)


HEAD = (
    *("layer", "kind", "parameters", "MAC", "AC", "SynOps", "spikes", "rate", "state", "accesses", "energy in nJ"),
    "time in µs",
)


def _row(layer: LayerOperations, model: EnergyModel) -> tuple[str, ...]:
    rate = layer.rate
    return (
        layer.name,
        layer.kind,
        amount(layer.num_parameters),
        amount(layer.macs),
        amount(layer.acs),
        amount(layer.synops),
        "" if layer.spikes is None else amount(layer.spikes) or "0",
        "" if rate is None else f"{rate:.3f}",
        amount(layer.num_states),
        amount(layer.reads + layer.writes),
        f"{model.of_layer(layer) / 1000:.4g}",
        "" if layer.time_s is None else f"{layer.time_s * 1e6:.1f}",
    )


def amount(value: float) -> str:
    """A count for people; nothing for 0."""
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
