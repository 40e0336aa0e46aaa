"""Names of tensors in SpikingJelly's Spikformer, and ours.

theirs                                              ours, where N = 3 · stage
patch_embed.stages.S.conv_bn.block.0.weight         patches.stages.N.conv.weight
patch_embed.stages.S.conv_bn.block.1.bias           patches.stages.N.norm.bias
patch_embed.positional_encoding.conv_bn.block.0.…   patches.position.conv.…
blocks.B.attn.qkv_conv_bn.0.weight                  blocks.B.attention.qkv.conv.weight
blocks.B.attn.proj_conv_bn.1.weight                 blocks.B.attention.proj.norm.weight
blocks.B.mlp.fc1.0.weight                           blocks.B.mlp.fc1.conv.weight
head.weight                                         classifier.weight
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor
from torch.nn import Module

from spikecore.errors import ConversionError
from spikecore.nn import Neuron, TorchNeuron

KEY_MAP = (
    (re.compile(r"^patch_embed\.positional_encoding\.conv_bn\.block\."), "patches.position."),
    (re.compile(r"\.attn\.(qkv|proj)_conv_bn\."), r".attention.\1."),
    (re.compile(r"^head\."), "classifier."),
)
STAGE = re.compile(r"^patch_embed\.stages\.(\d+)\.conv_bn\.block\.")
PARTS = (
    (re.compile(r"(patches\.stages\.\d+|patches\.position|attention\.(?:qkv|proj)|mlp\.fc[12])\.0\."), r"\1.conv."),
    (re.compile(r"(patches\.stages\.\d+|patches\.position|attention\.(?:qkv|proj)|mlp\.fc[12])\.1\."), r"\1.norm."),
)


def renamed(key: str) -> str:
    """Our name of one of their tensors; a name that is none of theirs stays."""
    stage = STAGE.match(key)
    if stage:
        key = f"patches.stages.{3 * int(stage[1])}.{key[stage.end() :]}"
    for pattern, name in (*KEY_MAP, *PARTS):
        key = pattern.sub(name, key)
    return key


def import_spikformer(net: Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names; parameters of neurons are taken from the net as it is.

    Raises:
        ConversionError: the net pools spikes, or there is no tensor with a name of theirs.
    """
    if not net.config.pool_first:  # type: ignore[union-attr]
        raise ConversionError("SpikingJelly's Spikformer pools currents: make the net with pool_first=True")
    if "patch_embed.stages.0.conv_bn.block.0.weight" not in tensors:
        known = ", ".join(list(tensors)[:4]) or "none"
        raise ConversionError(f"expected the tensors of a Spikformer, those of patch_embed among them, got {known}")
    state = {renamed(key): value for key, value in tensors.items()}
    neurons = {name: part for name, part in net.named_modules() if isinstance(part, Neuron | TorchNeuron)}
    of_neurons = {f"{name}.{key}" for name, part in neurons.items() for key in part.state_dict()}
    for key, value in net.state_dict().items():
        if key.endswith("num_batches_tracked") or key in of_neurons:
            state.setdefault(key, value.clone())
    return state
