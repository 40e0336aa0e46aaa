"""Models of energy: what an operation, and an access to memory, costs in picojoule.

    horowitz-fp32, -fp16, -int8     E = e_MAC · MAC + e_AC · AC           without memory
    lemaire-int32                   E = e_mul · MAC + e_add · (MAC + AC) + Σ accesses · e(size of the memory)

A multiply-accumulate costs one multiplication and one addition. Neurons' own arithmetic is in none of them.

Source: Horowitz, Computing's Energy Problem (ISSCC 2014), figure 1.1.9: 45 nm, 0.9 V. Addition and multiplication: 8
bit 0.03 and 0.2 pJ, 32 bit 0.1 and 3.1 pJ, float16 0.4 and 1.1 pJ, float32 0.9 and 3.7 pJ; memories of 8 KiB, 32 KiB
and 1 MiB: 10, 20 and 100 pJ. Accesses by size: Lemaire et al., An Analytical Estimation of Spiking Neural Networks
Energy Efficiency (ICONIP 2022), between these sizes on a line, beyond them on the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spikecore.errors import OptionError

if TYPE_CHECKING:
    from spikecore.analysis.operations.layers import LayerOperations

WORD_BYTES = 4
_SIZES_BYTES = (0, 8 * 1024, 32 * 1024, 1024 * 1024)
_ACCESS_PJ = (0.0, 10.0, 20.0, 100.0)


@dataclass(frozen=True)
class EnergyModel:
    """Picojoule by operation.

    Args:
        name: in `ENERGY_MODELS`.
        mac_pj: of a multiply-accumulate.
        ac_pj: of an accumulate.
        counts_memory: accesses cost energy too.
        source: who says so.
    """

    name: str
    mac_pj: float
    ac_pj: float
    counts_memory: bool
    source: str

    def of_layer(self, layer: LayerOperations) -> float:
        """Picojoule of a layer for one sample."""
        energy = self.mac_pj * layer.macs + self.ac_pj * layer.acs
        if self.counts_memory:
            for access in layer.memory.values():
                energy += (access.reads + access.writes) * access_pj(access.size)
        return energy


def access_pj(num_words: float) -> float:
    """Picojoule of an access to a word of a memory of this many words."""
    size = num_words * WORD_BYTES
    for index in range(1, len(_SIZES_BYTES)):
        if size <= _SIZES_BYTES[index] or index == len(_SIZES_BYTES) - 1:
            low, high = _SIZES_BYTES[index - 1], _SIZES_BYTES[index]
            share = (size - low) / (high - low)
            return _ACCESS_PJ[index - 1] + share * (_ACCESS_PJ[index] - _ACCESS_PJ[index - 1])
    raise AssertionError("there is always a last line")


_HOROWITZ = "Horowitz, ISSCC 2014, 45 nm"
ENERGY_MODELS: dict[str, EnergyModel] = {
    model.name: model
    for model in (
        EnergyModel("horowitz-fp32", 4.6, 0.9, False, f"{_HOROWITZ}, float32, without memory"),
        EnergyModel("horowitz-fp16", 1.5, 0.4, False, f"{_HOROWITZ}, float16, without memory"),
        EnergyModel("horowitz-int8", 0.23, 0.03, False, f"{_HOROWITZ}, 8 bit, without memory"),
        EnergyModel("lemaire-int32", 3.2, 0.1, True, "Lemaire et al., ICONIP 2022, 45 nm, 32 bit, with memory"),
    )
}
"""Name → model; the numbers are those of 45 nm."""


def energy_model(model: str | EnergyModel) -> EnergyModel:
    """The model of this name.

    Raises:
        OptionError: there is none.
    """
    if isinstance(model, EnergyModel):
        return model
    if model not in ENERGY_MODELS:
        raise OptionError(f"there is no model of energy {model!r}; expected one of {', '.join(ENERGY_MODELS)}")
    return ENERGY_MODELS[model]
