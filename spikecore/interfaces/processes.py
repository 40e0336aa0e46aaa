"""Processes: what a trainer asks of the processes that train one net together.

A run in R processes computes what one process would: every process holds the whole net and goes through the same global
batches in the same order, computes its own part of each, and gets the mean of all gradients. The members below do
nothing in one process, so a trainer is written once.

    net = context.wrap(task.model)                          # before training
    for batch in order:                                     # global batches, drawn from context.generator
        shard = context.shard(batch)
        loss = losses(net(inputs(shard.index))).mean() * shard.weight
        loss.backward()                                     # gradients: those of the mean loss of the global batch
        context.checkpoint()                                # in every process, the same number of times
    context.share_buffers(task.model)                       # before an evaluation
    right = context.all_sum(right_of_own_shards)

Where not every process is to hold the whole net, `fully_shard` takes the place of `wrap`:

    net = context.fully_shard(task.model)                   # the optimizer takes net.parameters()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn


class Shard(NamedTuple):
    """What one process computes of a global batch.

    Args:
        index: its samples, consecutive ones of the batch. Where the batch has fewer samples than there are processes,
            those without one compute the first sample once more, with weight 0: an exchange of gradients takes part in
            every process.
        weight: of the mean loss of these samples: their number · world_size / size of the batch. The mean over the
            processes, which is what `wrap` takes of the gradients, is then the mean over the batch, whatever its size.
    """

    index: Any
    weight: float


class Processes:
    """One process; the base of several. A context for a notebook may derive from it.

    Attributes:
        rank: number of this process, 0 .. world_size - 1. Rank 0 alone writes files and talks to the user.
        world_size: how many there are.
    """

    rank: int = 0
    world_size: int = 1

    def wrap(self, model: nn.Module) -> nn.Module:
        """The net to call in training, whose backward pass leaves the mean of all processes' gradients in the
        parameters. Use it for that call only; for everything else the model itself.

        In one process the model itself. In several it starts from rank 0's parameters and buffers.
        """
        return model

    def fully_shard(self, model: nn.Module) -> nn.Module:
        """A net to train in place of `model`, which shares its parameters out among the processes (FSDP2).

        Each process holds 1 / world_size of every parameter (a `DTensor`), of its gradient and of what an optimizer
        keeps for it; during a call all of them are gathered. The parameters of `model` itself are empty from then on,
        and whole again after `share_buffers(model)`, until `net` is called. So evaluate and save `model`, as ever, and
        give `net` to the optimizer and to whatever acts on the net that takes the steps: hooks, clipping. Parameters
        without an axis stay whole in all processes.

        In one process the model itself. In several it starts from rank 0's parameters and buffers.

        Raises:
            OptionError: torch cannot shard this net.
        """
        return model

    def shard(self, batch: Any) -> Shard:
        """This process's part of a global batch, which every process must ask for: all of it in one process.

        Args:
            batch: indices of samples: a tensor `[B]`, a list, or whatever else has a length and can be sliced.
        """
        size = len(batch)
        start, stop = self.rank * size // self.world_size, (self.rank + 1) * size // self.world_size
        if self.world_size == 1:
            return Shard(batch, 1.0)
        if start == stop:
            return Shard(batch[:1], 0.0)
        return Shard(batch[start:stop], (stop - start) * self.world_size / size)

    def all_sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, without gradient; the tensor itself in one process. All must call it."""
        return tensor

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process rank 0's buffers, such as the running statistics of batch norms, so that all evaluate the
        net that is saved; and to a net that was fully sharded, its parameters. All must call it.
        """
