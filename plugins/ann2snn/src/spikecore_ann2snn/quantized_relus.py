"""`with_quantized_relus`: an ANN to be trained with quantized activations."""

from __future__ import annotations

from torch import nn

from spikecore.nn import GraphNet
from spikecore_ann2snn.preparation import Prepared
from spikecore_ann2snn.qcfs import QCFS


def with_quantized_relus(net: nn.Module, levels: int = 8, v_threshold: float = 4.0) -> nn.Module:
    """A copy of an ANN in which every rectifier, also a function or method, is a `QCFS`: to be trained on.

    Args:
        net: takes a batch `[B, ...]`.
        levels: of every activation.
        v_threshold: from which training starts.

    Returns:
        A net that takes `[B, ...]`, in the mode of `net`.

    Raises:
        NetTraceError: the net cannot be traced.
    """
    given = Prepared.of(net, keep_computed=True)
    relus = [node.name for node in given.graph.layers if given.role(node) == "relu"]
    made = GraphNet(
        given.graph,
        {name: QCFS(levels=levels, v_threshold=v_threshold, step_mode="single") for name in relus},
        "single",
    )
    return made.train(net.training)
