"""A net whose parameters are divided between the processes: FSDP2 (`torch.distributed.fsdp.fully_shard`).

FSDP changes a net for good: its parameters become parts of tensors, and every call of it is an exchange between all
processes. A run also needs the net as it was: the first process alone looks at its spikes, checkpoints hold its
state_dict, and an evaluation has another number of batches in each process. So a copy is trained, and the net itself
gives its parameters away while the copy takes steps, and gets them back, whole, when `gather` is called.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from spikecore.errors import OptionError
from spikecore.trainers.sharding import is_part, whole


class Sharded:
    """A net, and a copy of it that is trained in parts.

    Args:
        model: the net; after this, and after every call of `net`, its parameters are empty until `gather`.
        world_size: how many processes there are.

    Attributes:
        net: the copy. Each process holds 1 / world_size of each of its parameters, and so of their gradients and of
            what an optimizer keeps for them. The gradients of a backward pass are the mean over the processes. Buffers
            are those of the net itself.

    Raises:
        OptionError: torch cannot shard such a net.
    """

    def __init__(self, model: nn.Module, world_size: int) -> None:
        self._model = model
        self._is_whole = True
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor, src=0)
        self.net = copy.deepcopy(model, {id(buffer): buffer for buffer in model.buffers()})
        # Parameters without an axis cannot be divided, such as the time constant of a layer. All processes keep them.
        scalars = {parameter for parameter in self.net.parameters() if not parameter.dim()}
        for parameter in scalars:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_make_averaging_hook(world_size))  # type: ignore[no-untyped-call]
        self.net.register_forward_hook(_no_view)  # before the hooks of FSDP
        device = next(model.parameters()).device.type
        try:
            # As one group: a block reads the weights of its children without calling them.
            fully_shard(self.net, mesh=init_device_mesh(device, (world_size,)), ignored_params=scalars)
        except (NotImplementedError, ValueError, AssertionError) as error:
            raise OptionError(
                f"{type(model).__name__} cannot be sharded between processes: {error}. Train it with a copy in each"
            ) from error
        self.net.register_forward_pre_hook(self._before_call)
        self._give_away()

    @torch.no_grad()
    def gather(self) -> None:
        """Give the net the parameters of the copy, whole. All processes must call it."""
        if self._is_whole:
            return
        assert isinstance(self.net, FSDPModule)
        self.net.reshard()
        for own, parameter in zip(self._model.parameters(), self.net.parameters(), strict=True):
            full = whole(parameter)
            # The optimizer goes on changing what is not divided, so the net gets a copy of that.
            own.data = full if is_part(parameter) else full.clone()
        for kept, buffer in zip(self._model.buffers(), self.net.buffers(), strict=True):
            if kept is not buffer:  # a module put another tensor in its place
                kept.copy_(buffer)
        self._is_whole = True

    def _give_away(self) -> None:
        for parameter in self._model.parameters():
            parameter.data = parameter.data.new_empty(0)
        self._is_whole = False

    def _before_call(self, *_: Any) -> None:
        if self._is_whole:
            self._give_away()


def _no_view(module: nn.Module, inputs: Any, out: Any) -> Any:
    """FSDP hangs its work on the net's output, and warns of one that is a view: a change in place would lose it."""
    return out.clone() if isinstance(out, Tensor) and out._is_view() else out


def _make_averaging_hook(world_size: int) -> Any:
    """Of the gradient of a parameter that all processes keep. What was added up before is the same in all of them."""

    def hook(parameter: Tensor) -> None:
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size

    return hook
