"""Losses and readouts against numpy written anew, closed forms and finite differences."""

import doctest
import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from spikecore.errors import InputError, OptionError, ShapeError
from spikecore.nn import losses, readouts
from spikecore.nn.losses import (
    TET,
    CountMSE,
    FirstSpikeCrossEntropy,
    FirstSpikeMSE,
    MembraneCrossEntropy,
    MembraneMSE,
    RateCrossEntropy,
    RateMSE,
    readout_of,
)
from spikecore.nn.readouts import count, first_spike_time, over_own_steps, rate
from spikecore.registry import choices, create, load

LOSSES = {entry.name: load("loss", entry.name) for entry in choices("loss")}
READOUTS = {entry.name: load("readout", entry.name) for entry in choices("readout")}

T, B, C = 6, 4, 3


def make(spikes=True, extra=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    out = torch.rand(T, B, C, *extra, generator=generator, dtype=torch.float64)
    return ((out > 0.6).double() if spikes else out * 3 - 1), torch.randint(C, (B, *extra), generator=generator)


def entropy(z, y, smoothing=0.0):
    """-Σ p ln softmax(z) along axis 1, from the definition."""
    z = np.moveaxis(z, 1, -1)
    share = np.eye(z.shape[-1])[y] * (1 - smoothing) + smoothing / z.shape[-1]
    return -(share * (z - np.log(np.exp(z).sum(-1, keepdims=True)))).sum(-1)


def levels(y, on, off):
    return np.moveaxis(np.where(np.eye(C)[y] == 1, on, off), -1, 1)


def moments(out):
    """Index of the first spike, T without one."""
    return np.where(out.any(0), out.argmax(0), len(out)).astype(float)


# (name, options) → the loss of each sample, in numpy
EXPECTED = {
    ("rate_cross_entropy", ("label_smoothing", 0.2)): lambda o, y: entropy(o.mean(0), y, 0.2),
    ("rate_mse", ("on", 0.9, "off", 0.1)): lambda o, y: ((o.mean(0) - levels(y, 0.9, 0.1)) ** 2).mean(1),
    ("count_cross_entropy", ()): lambda o, y: entropy(o.sum(0), y),
    ("count_mse", ("on", 0.8, "off", 0.2)): lambda o, y: ((o.sum(0) - levels(y, 0.8 * T, 0.2 * T)) ** 2).mean(1),
    ("membrane_cross_entropy", ("over", "max")): lambda o, y: entropy(o.max(0), y),
    ("membrane_cross_entropy", ("over", "mean")): lambda o, y: entropy(o.mean(0), y),
    ("membrane_cross_entropy", ("over", "last")): lambda o, y: entropy(o[-1], y),
    ("membrane_cross_entropy", ("over", "every")): lambda o, y: np.mean([entropy(step, y) for step in o], 0),
    ("membrane_mse", ("on", 2.0, "off", -1.0)): lambda o, y: ((o - levels(y, 2.0, -1.0)) ** 2).mean(2).mean(0),
    ("membrane_mse", ("over", "max")): lambda o, y: ((o.max(0) - levels(y, 1.0, 0.0)) ** 2).mean(1),
    ("membrane_mse", ("over", "last", "off", -0.5)): lambda o, y: ((o[-1] - levels(y, 1.0, -0.5)) ** 2).mean(1),
    ("tet", ("mse_weight", 0.3, "level", 0.7, "label_smoothing", 0.1)): lambda o, y: np.mean(
        [0.7 * entropy(step, y, 0.1) + 0.3 * ((step - 0.7) ** 2).mean(1) for step in o], 0
    ),
    ("first_spike_cross_entropy", ("scale", 2.0)): lambda o, y: entropy(-moments(o) / 2, y),
    ("first_spike_mse", ("on", 0.1, "off", 0.9)): lambda o, y: ((moments(o) / T - levels(y, 0.1, 0.9)) ** 2).mean(1),
}
CASES = list(EXPECTED)


def build(case, **more):
    name, flat = case
    return LOSSES[name](**dict(zip(flat[::2], flat[1::2], strict=True)), **more)


def test_every_loss_is_in_the_table_and_named_as_its_class():
    assert {name for name, _ in CASES} == set(LOSSES)
    assert len(LOSSES) >= 9
    assert {name.replace("_", "") for name in LOSSES} == {cls.__name__.lower() for cls in LOSSES.values()}
    assert {cls.__name__ for cls in LOSSES.values()} < set(losses.__all__)
    assert dir(losses) == sorted(losses.__all__)
    assert all(cls.readout in READOUTS for cls in LOSSES.values())


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("extra", [(), (2, 3)])
def test_a_loss_is_its_definition(case, extra):
    for seed in range(3):
        out, y = make("first_spike" in case[0], extra, seed)
        expected = torch.from_numpy(np.asarray(EXPECTED[case](out.numpy(), y.numpy())))
        torch.testing.assert_close(build(case, reduction="none")(out, y), expected)
        torch.testing.assert_close(build(case)(out, y), expected.mean())
        torch.testing.assert_close(build(case, reduction="sum")(out, y.int()), expected.sum())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_finite_differences(case):
    out, y = make(spikes=False, seed=5)
    out = (out - out.min()) / (out.max() - out.min()) * 0.9 + 0.05  # inside (0, 1) for the moments; no equal maxima
    assert gradcheck(lambda o: build(case, reduction="none")(o, y), (out.requires_grad_(),))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_probabilities_of_one_class_are_its_label(case):
    out, y = make("first_spike" in case[0])
    certain = torch.nn.functional.one_hot(y, C).double()
    torch.testing.assert_close(build(case)(out, certain), build(case)(out, y))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name):
    out, y = make()
    loss = LOSSES[name]()(out.to(torch.bfloat16), y)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, LOSSES[name]()(out.float(), y), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_outputs_have_less_loss_than_wrong_ones(name):
    y = torch.tensor([0, 2])
    right = torch.zeros(T, 2, C)
    right[:, [0, 1], y] = 1.0
    loss = LOSSES[name]()
    assert loss(right, y) < loss(right, (y + 1) % C)
    assert readout_of(loss)(right).argmax(1).tolist() == y.tolist()
    torch.testing.assert_close(loss(right.roll(1, 2), (y + 1) % C), loss(right, y))


def test_tet_without_its_second_term_is_the_cross_entropy_of_every_step():
    out, y = make(spikes=False)
    assert torch.equal(TET()(out, y), MembraneCrossEntropy(over="every")(out, y))
    # For outputs that are constant in time there is nothing to reweight.
    still = out[:1].expand(T, B, C)
    torch.testing.assert_close(TET()(still, y), RateCrossEntropy()(still, y))


def test_closed_forms():
    y = torch.tensor([1])
    uniform = torch.zeros(T, 1, C, dtype=torch.float64)
    for name in ("rate_cross_entropy", "count_cross_entropy", "membrane_cross_entropy", "tet"):
        assert LOSSES[name]()(uniform, y).item() == pytest.approx(np.log(C))
    assert FirstSpikeCrossEntropy()(uniform, y).item() == pytest.approx(np.log(C))  # nobody fires: all at T
    assert RateMSE()(uniform, y).item() == pytest.approx(1 / C)
    assert CountMSE()(uniform, y).item() == pytest.approx(T * T / C)
    assert MembraneMSE(on=3.0, off=-1.0)(uniform, y).item() == pytest.approx((9 + (C - 1)) / C)
    assert FirstSpikeMSE()(uniform, y).item() == pytest.approx(1 / C)


def test_the_gradient_of_the_rate_loss_does_not_depend_on_the_step_and_that_of_tet_does():
    out, y = make(spikes=False)
    for loss, same in ((RateCrossEntropy(), True), (TET(), False)):
        x = out.clone().requires_grad_()
        loss(x, y).backward()
        assert torch.allclose(x.grad[0], x.grad[-1]) is same
    probability = torch.softmax(out.mean(0), 1) - torch.nn.functional.one_hot(y, C)
    x = out.clone().requires_grad_()
    RateCrossEntropy(reduction="sum")(x, y).backward()
    torch.testing.assert_close(x.grad[2], probability / T)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8))
@settings(deadline=None)
def test_first_spike_time_and_its_gradient(train):
    s = torch.tensor(train, dtype=torch.float64).reshape(-1, 1, 3).requires_grad_()
    time = first_spike_time(s)
    assert time.detach().numpy().tolist() == moments(s.detach().numpy()).tolist()
    (gradient,) = torch.autograd.grad(time.sum(), s)
    flipped = torch.empty_like(gradient)
    for k in range(len(train)):  # the formula is linear in each s[k]: the gradient is the effect of the spike
        ends = [s.detach().clone().index_fill_(0, torch.tensor([k]), value) for value in (0.0, 1.0)]
        flipped[k] = first_spike_time(ends[1])[0] - first_spike_time(ends[0])[0]
    torch.testing.assert_close(gradient, flipped)


def test_first_spike_time_of_probabilities_is_the_expected_time():
    p = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    chance = [p[0], (1 - p[0]) * p[1], (1 - p[0]) * (1 - p[1]) * p[2], (1 - p).prod()]
    expected = sum(time * value for time, value in enumerate(chance))
    torch.testing.assert_close(first_spike_time(p.reshape(3, 1, 1)).squeeze(), expected)


def padded(out):
    """Only the first 6, 2, 2, 5 steps are the samples' own; what is behind them is poison."""
    mask = torch.arange(T)[:, None] < torch.tensor([T, 2, 2, 5])
    return torch.where(mask.reshape(T, B, *[1] * (out.dim() - 2)), out, torch.nan), mask


def alone(out, mask, i):
    return out[mask[:, i], i : i + 1]


@pytest.mark.parametrize("extra", [(), (2, 3)])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_a_padded_batch_has_the_loss_and_gradient_of_its_samples_one_by_one(name, extra, reduction):
    variants = [dict(zip(o[::2], o[1::2], strict=True)) for n, o in EXPECTED if n == name]
    assert variants
    for options in variants:
        loss = LOSSES[name](**{**options, "reduction": reduction})
        out, y = make(extra=extra)
        out, mask = padded(out)
        out.requires_grad_()
        got = loss(out, y, mask)
        parts = [LOSSES[name](**{**options, "reduction": "none"})(alone(out, mask, i), y[i : i + 1]) for i in range(B)]
        wanted = torch.cat(parts)
        wanted = wanted.mean() if reduction == "mean" else wanted.sum() if reduction == "sum" else wanted
        torch.testing.assert_close(got, wanted)
        (gradient,) = torch.autograd.grad(got.sum(), out)
        (expected,) = torch.autograd.grad(wanted.sum(), out)
        torch.testing.assert_close(gradient, expected)
        assert not gradient.transpose(0, 1)[~mask.T].any()


@pytest.mark.parametrize("name", READOUTS)
def test_readouts_of_a_padded_batch_are_those_of_its_samples_one_by_one(name):
    out, mask = padded(make()[0])
    got = over_own_steps(READOUTS[name], out, mask)
    assert torch.equal(got, torch.cat([READOUTS[name](alone(out, mask, i)) for i in range(B)]))
    assert torch.equal(over_own_steps(READOUTS[name], out[:2], None), READOUTS[name](out[:2]))


def test_padding_in_closed_form():
    out = torch.tensor([[[1.0], [1.0]], [[0.0], [1.0]], [[1.0], [9.0]], [[1.0], [9.0]]])
    mask = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    wanted = {
        "rate": [0.75, 1.0],
        "count": [3.0, 2.0],
        "last": [1.0, 1.0],
        "max": [1.0, 1.0],
        "first_spike": [0.0, 0.0],
    }
    for name, values in wanted.items():
        assert over_own_steps(READOUTS[name], out, mask).flatten().tolist() == values, name
    holes = torch.tensor([[False, True], [True, False], [False, True], [True, False]])
    # Own steps need not be the first ones.
    assert over_own_steps(READOUTS["count"], out, holes).flatten().tolist() == [1.0, 10.0]
    # 1/T Σ_t CE over two classes: T is the sample's own.
    even = torch.zeros(4, 2, 2)
    assert TET(reduction="none")(even, torch.tensor([0, 1]), mask).tolist() == pytest.approx([np.log(2)] * 2)
    assert CountMSE(reduction="none")(even, torch.tensor([0, 1]), mask).tolist() == pytest.approx([8.0, 2.0])


def test_masks_that_do_not_fit():
    out, y = make()
    loss = RateMSE()
    with pytest.raises(ShapeError, match=r"\[T, B\] = \(6, 4\) for this output, got \(4, 6\)"):
        loss(out, y, torch.ones(B, T, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"is bool, got torch\.float32"):
        loss(out, y, torch.ones(T, B))
    mask = torch.ones(T, B, dtype=torch.bool)
    mask[:, 2] = False
    with pytest.raises(ShapeError, match="sample 2 of the batch has no step"):
        loss(out, y, mask)


def test_readouts():
    out = make(spikes=False)[0] - 0.6
    values = out.numpy()
    wanted = {"rate": values.mean(0), "count": values.sum(0), "last": values[-1], "max": values.max(0)}
    wanted["max_abs"] = np.take_along_axis(values, np.abs(values).argmax(0)[None], 0)[0]
    assert (wanted["max_abs"] < 0).any()
    for name, expected in wanted.items():
        np.testing.assert_allclose(READOUTS[name](out).numpy(), expected)
    spikes, _ = make()
    np.testing.assert_array_equal(READOUTS["first_spike"](spikes).numpy(), -moments(spikes.numpy()))
    assert set(READOUTS) == {*wanted, "first_spike"}
    assert rate(out.half()).dtype == torch.float32
    # 4096 half-precision ones cannot be added up in half precision.
    assert count(torch.ones(4096, 1, 1, dtype=torch.float16)).item() == 4096
    assert readout_of(RateMSE(), "last") is readouts.last


@pytest.mark.parametrize("name", LOSSES)
def test_wrong_arguments_are_refused(name):
    loss, (out, y) = LOSSES[name](), make()
    with pytest.raises(ShapeError, match=r"\[T, B, C, .*one of \[B, N\] is taken for B steps .* give x\[None\]"):
        loss(out[0], y)
    with pytest.raises(ShapeError, match="T >= 1"):
        loss(out[:0], y)
    with pytest.raises(TypeError, match=r"\.float\(\)"):
        loss(out.long(), y)
    with pytest.raises(ShapeError, match=r"labels are \(4,\)"):
        loss(out, y[:2])
    with pytest.raises(ShapeError, match="without T"):
        loss(out, y.expand(T, B))
    with pytest.raises(InputError, match="got 0 to 3"):
        loss(out, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(InputError, match="got -1 to 2"):
        loss(out, torch.tensor([0, 1, 2, -1]))
    with pytest.raises(TypeError, match="bool"):
        loss(out, y > 0)
    with pytest.raises(ShapeError, match=r"call \.long\(\)"):
        loss(out, y.double())
    with pytest.raises(InputError, match="probabilities are not logits"):
        loss(out, torch.randn(B, C).double() * 5)
    with pytest.raises(OptionError, match="reduction"):
        LOSSES[name](reduction="avg")


def test_wrong_options_are_refused():
    with pytest.raises(OptionError, match="mse_weight"):
        TET(mse_weight=1.5)
    with pytest.raises(OptionError, match="scale"):
        FirstSpikeCrossEntropy(scale=0.0)
    with pytest.raises(OptionError, match="did you mean 'label_smoothing'"):
        RateCrossEntropy(label_smooting=0.1)
    with pytest.raises(InputError, match="spiking neuron"):
        first_spike_time(torch.full((2, 1, 1), 1.5))
    with pytest.raises(InputError, match="nan"):
        first_spike_time(torch.full((2, 1, 1), torch.nan))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_compile_and_vmap(name):
    loss, (out, y) = LOSSES[name](reduction="none"), make()
    torch.compiler.reset()  # nine losses share one `forward`, more than dynamo keeps versions of
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(out, y), loss(out, y))
    one_by_one = torch.func.vmap(lambda o, label: loss(o.unsqueeze(1), label.unsqueeze(0)), in_dims=(1, 0))(out, y)
    torch.testing.assert_close(one_by_one.squeeze(1), loss(out, y))


def test_the_trainer_takes_a_loss_and_a_readout_by_name():
    trainer = create("trainer", "classify", loss="tet", readout="last")
    assert isinstance(trainer._loss, TET)
    assert trainer._readout is readouts.last
    with pytest.raises(OptionError, match="loss"):
        create("trainer", "classify", loss="hinge")


@pytest.mark.parametrize(
    "module", ["readouts", "losses.rates", "losses.membranes", "losses.timing", "losses.similarity"]
)
def test_the_examples_are_true(module):
    result = doctest.testmod(importlib.import_module(f"spikecore.nn.{module}"), extraglobs={"torch": torch})
    assert result.attempted >= 4
    assert result.failed == 0
