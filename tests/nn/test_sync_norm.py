"""Batch norms that share their statistics between processes on the CPU, against one batch norm of the whole batch."""

import pytest
import torch
from torch import nn as torch_nn

from spikecore import nn
from spikecore.testing.two_processes import in_processes


def net(momentum):
    torch.manual_seed(0)
    conv, norm = torch_nn.Conv2d(2, 3, 3), torch_nn.BatchNorm2d(3, momentum=momentum)
    layers = torch_nn.Sequential(
        nn.BatchNorm2d(2, momentum=momentum), nn.ConvBNNeuron(conv, norm, nn.LIF(v_threshold=0.3))
    )
    with torch.no_grad():
        layers[0].weight.mul_(torch.tensor([1.5, -0.7]))
        layers[0].bias.add_(0.3)
    return layers.double()


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 7, 2, 5, 5, generator=generator, dtype=torch.float64) * 2 + 0.5


def outcome(model, x):
    """Output, gradients of input and parameters, and buffers, of a loss that weighs every output differently."""
    x = x.clone().requires_grad_()
    out = model(x)
    (out * torch.linspace(-1, 2, out[:, :1].numel(), dtype=out.dtype).view_as(out[:, :1])).sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"out": out.detach(), "x": x.grad, "grads": grads, "buffers": dict(model.named_buffers())}


def part(group, momentum):
    model = nn.synchronize_batch_norms(net(momentum))
    x = batch()
    size = x.shape[1]
    start, stop = group.rank * size // group.world_size, (group.rank + 1) * size // group.world_size
    result = outcome(model, x[:, start:stop])
    result["grads"] = {name: group.all_sum(grad) for name, grad in result["grads"].items()}
    evaluated = model.eval()(x)
    return {**result, "evaluated": evaluated.detach(), "why": nn_explain(model)}


def nn_explain(model):
    import spikecore

    return str(spikecore.explain(model.train()))


@pytest.mark.parametrize(("world_size", "momentum"), [(2, 0.2), (4, None)])
def test_sums_of_all_processes(world_size, momentum):
    model = net(momentum)
    whole = outcome(model, batch())
    assert 0.02 < whole["out"].mean() < 0.98  # it spikes
    evaluated = model.eval()(batch()).detach()
    parts = in_processes(lambda group: part(group, momentum), world_size)
    for name in ("out", "x"):
        torch.testing.assert_close(torch.cat([result[name] for result in parts], 1), whole[name])
    for result in parts:
        for kind in ("grads", "buffers"):
            for name, value in whole[kind].items():
                torch.testing.assert_close(result[kind][name], value, msg=name)
        torch.testing.assert_close(result["evaluated"], evaluated)
        assert "from all processes" in result["why"]


def test_a_norm_at_two_places_stays_one_norm():
    norm, folding = torch_nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    chain = torch_nn.Sequential(norm, torch_nn.ReLU(), norm, torch_nn.Sequential(folding), folding)
    synchronised = nn.synchronize_batch_norms(chain)
    assert [type(part).__name__ for part in synchronised] == [
        *("ProcessBatchNorm", "ReLU", "ProcessBatchNorm", "Sequential", "FoldingProcessBatchNorm")
    ]
    assert synchronised[0] is synchronised[2]
    assert synchronised[3][0] is synchronised[4]
    again = torch_nn.Sequential(folding, torch_nn.Sequential(folding))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(again)
    assert isinstance(converted[0], nn.SyncBatchNorm)
    assert converted[0] is converted[1][0]


def test_one_process_is_torch():
    model = nn.synchronize_batch_norms(net(0.3))
    ours, theirs = outcome(model, batch()), outcome(net(0.3), batch())
    for name in ("out", "x"):
        torch.testing.assert_close(ours[name], theirs[name])
    assert list(model.state_dict()) == list(net(0.3).state_dict())
