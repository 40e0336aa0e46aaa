"""Layers over time: equal to the torch layer called step by step, for every layer and any shape."""

import copy
import inspect
import pickle
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikecore.errors import OptionError, ShapeError, StateError
from spikecore.nn import LIF, fold_time, layers, set_step_mode

C = 4
# name → (arguments of the layer, shapes of one sample [C, ...] that suit it)
CASES = {
    **{f"{base}{n}d": ((C, 6, 3, 2, 1), [(C, *[5] * n)]) for base in ("Conv", "ConvTranspose") for n in (1, 2, 3)},
    **{f"WSConv{n}d": ((C, 6, 3), [(C, *[5] * n)]) for n in (1, 2, 3)},
    "Linear": ((5, 3), [(5,), (C, 5), (C, 2, 5)]),
    "WSLinear": ((5, 3), [(5,), (C, 5)]),
    "BatchNorm1d": ((C,), [(C,), (C, 5)]),
    "BatchNorm2d": ((C,), [(C, 5, 3)]),
    "BatchNorm3d": ((C,), [(C, 5, 3, 2)]),
    "GroupNorm": ((2, C), [(C,), (C, 5), (C, 5, 3)]),
    "LayerNorm": ((5,), [(5,), (C, 5)]),
    **{f"{base}{n}d": ((2,), [(C, *[6] * n)]) for base in ("MaxPool", "AvgPool") for n in (1, 2, 3)},
    **{f"Adaptive{base}Pool{n}d": ((2,), [(C, *[5] * n)]) for base in ("Max", "Avg") for n in (1, 2, 3)},
    "SumPool2d": ((2,), [(C, 6, 4)]),
    "Upsample": ((None, 2), [(C, 5), (C, 5, 3), (C, 2, 3, 2)]),
    "Flatten": ((), [(C,), (C, 5, 3)]),
}
UNPOOL = {f"MaxUnpool{n}d" for n in (1, 2, 3)}
OTHER = {"SyncBatchNorm", "FoldTime", "FoldsTime", "fold_time", "synchronize_batch_norms"} | UNPOOL
SHAPED = [(name, shape) for name, (_, shapes) in CASES.items() for shape in shapes]


def pair(name, seed=0):
    """Our layer and torch's, with the same weights; batch norm with statistics that do something."""
    torch.manual_seed(seed)
    arguments, _ = CASES[name]
    ours = getattr(layers, name)(*arguments)
    theirs = getattr(nn, name)(*arguments) if hasattr(nn, name) else None
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    if hasattr(ours, "running_var"):
        nn.init.uniform_(ours.running_var, 0.5, 2)
        nn.init.normal_(ours.running_mean)
    if theirs is not None:
        theirs.load_state_dict(ours.state_dict())
    return ours.double().eval(), theirs and theirs.double().eval()


def test_every_layer_is_covered():
    folding = {
        n
        for n in layers.__all__
        if inspect.isclass(getattr(layers, n)) and issubclass(getattr(layers, n), layers.FoldsTime)
    }
    assert folding - OTHER == set(CASES)
    assert len(SHAPED) >= 30


@pytest.mark.parametrize(("name", "shape"), SHAPED)
@settings(max_examples=5, deadline=None)
@given(num_steps=st.integers(1, 4), batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_multi_step_is_the_torch_layer_step_by_step(name, shape, num_steps, batch, seed):
    ours, theirs = pair(name, seed)
    x = torch.randn(num_steps, batch, *shape, dtype=torch.float64)
    whole = x.clone().requires_grad_()
    out = ours(whole)
    set_step_mode(ours, "single")
    parts = x.clone().requires_grad_()
    single = torch.stack([ours(step) for step in parts])
    torch.testing.assert_close(out, single, rtol=0, atol=1e-12)
    if theirs is not None:
        torch.testing.assert_close(out, torch.stack([theirs(step) for step in x]), rtol=0, atol=1e-12)
    if out.requires_grad:
        weight = torch.randn_like(out)
        (out * weight).sum().backward()
        (single * weight).sum().backward()
        torch.testing.assert_close(whole.grad, parts.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", sorted(name for name in CASES if hasattr(nn, name)))
def test_checkpoints_of_torch_layers_load_and_save(name):
    ours, theirs = pair(name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert isinstance(ours, getattr(nn, name))
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("name", sorted(CASES))
def test_copies_and_pickles(name):
    ours, _ = pair(name)
    set_step_mode(ours, "single")
    x = torch.randn(2, *CASES[name][1][0], dtype=torch.float64)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert other.step_mode == "single"
        torch.testing.assert_close(other(x), ours(x), rtol=0, atol=0)
    assert "step_mode" in repr(ours)
    assert "step_mode" in inspect.signature(type(ours)).parameters


@pytest.mark.parametrize(("name", "shape"), SHAPED)
def test_no_steps_and_empty_batches(name, shape):
    ours, theirs = pair(name)
    for num_steps, batch in ((0, 3), (3, 0)):
        x = torch.zeros(num_steps, batch, *shape, dtype=torch.float64)
        try:
            expected = theirs(x.flatten(0, 1)) if theirs is not None else None
        except (RuntimeError, ValueError):  # torch itself takes no empty batch here
            continue
        out = ours(x)
        assert out.shape[:2] == (num_steps, batch)
        if expected is not None:
            assert out.shape[2:] == expected.shape[1:]


def test_torch_takes_empty_batches_where_it_matters():
    for layer, shape in (
        (layers.Conv2d(C, 2, 3), (C, 5, 5)),
        (layers.Linear(5, 2), (5,)),
        (layers.AvgPool2d(2), (C, 4, 4)),
    ):
        assert layer(torch.zeros(0, 3, *shape)).shape[:2] == (0, 3)
        assert layer(torch.zeros(3, 0, *shape)).shape[:2] == (3, 0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_with_indices_and_output_size(n):
    x = torch.randn(3, 2, C, *[5] * n)
    out, indices = getattr(layers, f"MaxPool{n}d")(2, return_indices=True)(x)
    unpool, reference = getattr(layers, f"MaxUnpool{n}d")(2), getattr(nn, f"MaxUnpool{n}d")(2)
    for size in ([5] * n, torch.Size([5] * n)):
        expected = torch.stack([reference(a, i, size) for a, i in zip(out, indices, strict=True)])
        assert torch.equal(unpool(out, indices, output_size=size), expected)
    with pytest.raises(ShapeError, match="equal T and B"):
        unpool(out, indices[:2])


def test_transposed_convolution_takes_a_spatial_output_size():
    conv = layers.ConvTranspose2d(C, 2, 3, stride=2)
    assert conv(torch.randn(3, 2, C, 4, 4), output_size=[10, 10]).shape == (3, 2, 2, 10, 10)


@pytest.mark.parametrize("name", ["WSConv1d", "WSConv2d", "WSConv3d", "WSLinear"])
def test_standardised_weights(name):
    arguments, shapes = CASES[name]
    layer = getattr(layers, name)(*arguments, eps=0.0).double()
    nn.init.normal_(layer.weight, 3.0, 5.0)
    weight = layer.standardised_weight()
    flat = weight.flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros_like(flat[:, 0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(flat.square().sum(1), torch.ones_like(flat[:, 0]))  # N var(ŵ) = 1
    with torch.no_grad():
        layer.gain.fill_(2.0)
    torch.testing.assert_close(layer.standardised_weight(), 2 * weight)
    plain = getattr(layers, name[2:])(*arguments).double()
    with torch.no_grad():
        plain.weight.copy_(2 * weight)
        plain.bias.copy_(layer.bias)
    x = torch.randn(3, 2, *shapes[0], dtype=torch.float64)
    torch.testing.assert_close(layer(x), plain(x))
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.gain.grad.shape == layer.gain.shape
    assert "gain" not in getattr(layers, name)(*arguments, gain=False).state_dict()


def test_batch_norm_takes_its_statistics_over_time_and_batch():
    norm = layers.BatchNorm2d(C, momentum=1.0)
    x = torch.randn(5, 3, C, 2, 2) * 3 + 1
    norm(x)
    torch.testing.assert_close(norm.running_mean, x.mean((0, 1, 3, 4)))
    torch.testing.assert_close(norm.running_var, x.transpose(0, 2).flatten(1).var(1))


def test_conversion_to_synchronised_batch_norm():
    net = nn.Sequential(layers.Conv2d(2, C, 3), layers.BatchNorm2d(C), fold_time(nn.BatchNorm2d(C)), nn.BatchNorm2d(C))
    for part in net.modules():
        if hasattr(part, "running_mean"):
            nn.init.normal_(part.running_mean)
    net.eval()
    x = torch.randn(3, 2, 2, 5, 5)
    expected = net[:3](x)
    keys = list(net.state_dict())
    converted = layers.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(converted[1], layers.SyncBatchNorm)
    assert isinstance(converted[2].module, nn.SyncBatchNorm)
    assert type(converted[3]) is nn.SyncBatchNorm
    assert list(converted.state_dict()) == keys
    assert converted[1].step_mode == "multi"
    torch.testing.assert_close(converted.eval()[:3](x), expected)
    torchs = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(fold_time(nn.BatchNorm2d(2)))).eval()
    assert torchs(x).shape == x.shape


@pytest.mark.parametrize(
    "layer", [layers.Conv2d(C, 8, 3), layers.BatchNorm2d(C), layers.AvgPool2d(2), layers.MaxPool2d(2)]
)
@pytest.mark.parametrize("source", ["sequence", "repeated", "batch first"])
def test_channels_last_survives(layer, source):
    flat = torch.randn(6, C, 8, 8).contiguous(memory_format=torch.channels_last)
    if source == "sequence":
        x = flat.unflatten(0, (3, 2))
    elif source == "repeated":
        x = flat.expand(3, *flat.shape)
    else:
        x = flat.unflatten(0, (2, 3)).transpose(0, 1)
    out = layer.to(memory_format=torch.channels_last)(x)
    assert all(step.is_contiguous(memory_format=torch.channels_last) for step in out)
    assert not out[0].is_contiguous()
    torch.testing.assert_close(out, layer(x.contiguous()))


def test_autocast():
    conv, linear = layers.Conv2d(C, 8, 3), layers.Linear(5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.randn(3, 2, C, 5, 5)).dtype == torch.bfloat16
        assert fold_time(nn.Linear(5, 2))(torch.randn(3, 2, 5)).dtype == torch.bfloat16
        assert linear(torch.randn(3, 2, 5)).dtype == torch.bfloat16


@pytest.mark.parametrize("module", [layers.Conv2d(C, 2, 3), fold_time(nn.Conv2d(C, 2, 3))])
def test_compiles_to_one_graph(module):
    torch._dynamo.reset()
    x = torch.randn(3, 2, C, 5, 5)
    torch.testing.assert_close(torch.compile(module, backend="eager", fullgraph=True)(x), module(x))


def test_fold_time_folds_every_tensor_and_leaves_the_rest():
    class Add(nn.Module):
        def forward(self, a, b, scale, *, c, flag=False):
            assert flag
            assert a.shape == b.shape == c.shape == (6, 4)
            return [a + scale * b, {"not": "a tensor"}, (c,)]

    a, b, c = torch.randn(3, 3, 2, 4)
    out = fold_time(Add())(a, b, 2.0, c=c, flag=True)
    assert torch.equal(out[0], a + 2 * b)
    assert out[1] == {"not": "a tensor"}
    assert torch.equal(out[2][0], c)


class Pair(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


def test_fold_time_unfolds_what_stands_in_dictionaries_and_named_tuples():
    class Many(nn.Module):
        def forward(self, x):
            return {"pair": Pair(x, 2 * x), "ordered": OrderedDict(x=[3 * x], name="n")}

    x = torch.randn(3, 2, 4)
    out = fold_time(Many())(x)
    assert type(out["pair"]) is Pair
    assert type(out["ordered"]) is OrderedDict
    assert torch.equal(out["pair"].a, x)
    assert torch.equal(out["pair"].b, 2 * x)
    assert torch.equal(out["ordered"]["x"][0], 3 * x)
    assert out["ordered"]["name"] == "n"


def test_fold_time_refuses_what_it_cannot_fold():
    with pytest.raises(StateError, match=r"LIF at '1\.0' keeps state .*: wrap the stateless parts"):
        fold_time(nn.Sequential(nn.Linear(1, 1), nn.Sequential(LIF())))
    with pytest.raises(StateError, match="LIF keeps state"):
        fold_time(LIF())
    with pytest.raises(OptionError, match="Conv2d at '0' has a step_mode"):
        fold_time(nn.Sequential(layers.Conv2d(1, 1, 1)))
    with pytest.raises(OptionError, match="'single' or 'multi', got 'both'"):
        layers.Linear(1, 1, step_mode="both")
    with pytest.raises(ShapeError, match=r"fold_time\(Flatten\) was given 3 \* 2 samples and returned \(24,\)"):
        fold_time(nn.Flatten(0))(torch.zeros(3, 2, 4))
    with pytest.raises(ShapeError, match=r"got \(3,\)"):
        fold_time(nn.Identity())(torch.zeros(3))


@pytest.mark.parametrize(("name", "shape"), SHAPED)
def test_the_wrong_rank_names_expected_got_and_cure(name, shape):
    ours, _ = pair(name)
    if name not in ("Linear", "WSLinear", "GroupNorm", "LayerNorm", "Flatten", "BatchNorm1d", "Upsample"):
        with pytest.raises(ShapeError, match=r"'multi' takes \[T, B, \.\.\.\] with . axes, got .*unsqueeze\(0\)"):
            ours(torch.zeros(2, *shape))
        set_step_mode(ours, "single")
        with pytest.raises(
            ShapeError, match=r"'single' takes \[B, \.\.\.\] with . axes, got .*set_step_mode\(net, 'multi'\)"
        ):
            ours(torch.zeros(3, 2, *shape))
    else:
        with pytest.raises(ShapeError, match=r"takes \[T, B, \.\.\.\] with (at least \d|. or .*) axes, got \(5,\)"):
            ours(torch.zeros(5))
