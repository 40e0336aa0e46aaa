"""Spiking transformers: Spikformer, Spike-driven Transformer and QKFormer."""

from spikecore_zoo_transformer.qkformer import QKFormer
from spikecore_zoo_transformer.sdt import SpikeDrivenTransformer
from spikecore_zoo_transformer.spikformer import Spikformer

__all__ = ["QKFormer", "SpikeDrivenTransformer", "Spikformer"]
