"""State, shapes, dtypes and faults, alike for every neuron of the plugin."""

import copy
import io
import math
import os
import pickle

import pytest
import torch
from zoo_cases import FEATURES, NEURONS, NUM_STEPS, REQUIRED

from spikecore.errors import OptionError, ShapeError, StateGraphError, StateShapeError
from spikecore.nn import detach_state, functional, get_state, reset_state, set_state, set_step_mode, streaming
from spikecore.registry import create, load

STEPWISE = [name for name in NEURONS if name not in ("psn", "timed_glif")]


def make(name, **options):
    """A neuron that can run step by step, if any of its kind can; without noise."""
    torch.manual_seed(0)
    extra = {"masking": 1.0} if name == "masked_psn" else {}
    return create("neuron", name, **REQUIRED.get(name, {}), **extra, **options).eval()


def currents(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype) * 2 + 0.5


@pytest.mark.parametrize("name", STEPWISE)
def test_parts_and_single_steps_equal_the_whole(name):
    neuron, x = make(name), currents(NUM_STEPS, 3, FEATURES)
    whole = neuron(x)
    assert whole.count_nonzero() > 3
    assert get_state(neuron)[""] is None
    with streaming(neuron):
        assert torch.equal(torch.cat([neuron(x[:2]), neuron(x[2:3]), neuron(x[3:])]), whole)
    assert get_state(neuron)[""] is None
    set_step_mode(neuron, "single")
    assert torch.equal(torch.stack([neuron(step) for step in x]), whole)
    reset_state(neuron)
    assert torch.equal(torch.stack([neuron(step) for step in x]), whole)


@pytest.mark.parametrize("name", STEPWISE)
def test_state_is_kept_put_back_cut_and_checked(name):
    neuron, x = make(name, step_mode="single"), currents(NUM_STEPS, 3, FEATURES).requires_grad_()
    neuron(x[0])
    kept = get_state(neuron)
    after = neuron(x[1])
    set_state(neuron, kept)
    assert torch.equal(neuron(x[1]), after)
    detach_state(neuron)
    assert all(value.grad_fn is None for value in get_state(neuron)[""].values())
    (neuron(x[2]) + neuron(x[3])).sum().backward()
    assert x.grad[0].count_nonzero() == 0
    assert "v" not in neuron.state_dict()
    if get_state(neuron)[""]:
        with pytest.raises(StateShapeError, match="reset_state"):
            neuron(x[0, :2])
    reset_state(neuron)
    neuron(x[0, :2])


@pytest.mark.parametrize("name", NEURONS)
def test_a_batch_is_its_samples(name):
    neuron, x = make(name), currents(NUM_STEPS, 4, FEATURES)
    whole = neuron(x)
    assert torch.equal(torch.cat([neuron(x[:, i : i + 1]) for i in range(4)], 1), whole)
    order = [2, 0, 3, 1]
    assert torch.equal(neuron(x[:, order]), whole[:, order])
    empty = neuron(x[:, :0])
    assert empty.shape == (NUM_STEPS, 0, FEATURES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NEURONS)
def test_the_output_has_the_form_of_the_input(name, dtype):
    neuron, x = make(name), currents(NUM_STEPS, 3, FEATURES, dtype=dtype).requires_grad_()
    out = neuron(x)
    assert out.shape == x.shape
    assert out.dtype == dtype
    out.sum().backward()
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()
    noncontiguous = x.detach().transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(neuron(noncontiguous), out)


@pytest.mark.parametrize("name", NEURONS)
def test_copies_and_saved_weights_give_the_same_output(name):
    neuron, x = make(name), currents(NUM_STEPS, 3, FEATURES)
    out = neuron(x)
    assert torch.equal(copy.deepcopy(neuron)(x), out)
    assert torch.equal(pickle.loads(pickle.dumps(neuron))(x), out)
    file = io.BytesIO()
    torch.save(neuron.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = create("neuron", name, **REQUIRED.get(name, {})).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), out)


@pytest.mark.parametrize("name", NEURONS)
def test_bad_input_is_named(name):
    neuron = make(name)
    with pytest.raises(TypeError, match=r"\.float\(\)"):
        neuron(torch.ones(NUM_STEPS, 2, FEATURES, dtype=torch.int64))
    with pytest.raises(ShapeError):
        neuron(torch.tensor(1.0))
    with pytest.raises(OptionError, match="step_mode"):
        make(name, step_mode="both")
    with pytest.raises(OptionError, match="did you mean"):
        make(name, surrogat="atan")
    with pytest.raises(OptionError, match=r"'surrogate\.spikin' is unknown; did you mean 'spiking'"):
        make(name, surrogate={"spikin": True})


@pytest.mark.parametrize("name", NEURONS)
def test_nan_stays_in_its_neuron_and_never_spikes(name):
    if name in ("mpbn_lif", "liaf") or name.startswith("noisy"):
        pytest.skip("the batch norm takes NaN to the whole channel; analog output and noise pass it on")
    neuron, x = make(name), currents(NUM_STEPS, 3, FEATURES)
    clean = neuron(x)
    x[1, 0, 0] = math.nan
    out = neuron(x)
    assert out.isfinite().all()
    connected = "ilc" in name
    assert torch.equal(out[:, 1:], clean[:, 1:])
    if not connected:
        assert torch.equal(out[:, 0, 1:], clean[:, 0, 1:])
    if "psn" not in name and name != "resonate_and_fire":
        assert out[1:, 0, 0].count_nonzero() == 0


@pytest.mark.parametrize("name", NEURONS)
def test_what_the_capabilities_say_holds(name):
    capabilities, neuron = load("neuron", name).capabilities, make(name)
    out = neuron(currents(NUM_STEPS, 30, FEATURES))
    if capabilities.spiking:
        assert set(out.unique().tolist()) == {0.0, 1.0}
    assert capabilities.fixed_num_steps == (name in ("psn", "masked_psn", "timed_glif"))
    assert ("single" in capabilities.step_modes) == (name in STEPWISE)
    assert capabilities.stochastic == name.startswith("noisy")


@pytest.mark.parametrize("name", NEURONS)
def test_the_functional_form_is_the_module(name):
    neuron, x = make(name), currents(NUM_STEPS, 3, FEATURES)
    step, init_state = functional(neuron)
    params = {**dict(neuron.named_parameters()), **dict(neuron.named_buffers())}
    out, state = step(params, x, init_state(x))
    assert torch.equal(out, neuron(x))
    if name in STEPWISE:
        first, state = step(params, x[:2], init_state(x))
        rest, _ = step(params, x[2:], state)
        assert torch.equal(torch.cat([first, rest]), out)


COMPILED = (
    NEURONS if os.environ.get("SPIKE_FULL") else ["klif", "glif", "ternary_lif", "masked_psn", "mpbn_lif", "ilc_if"]
)


@pytest.mark.parametrize("name", COMPILED)
def test_it_compiles_as_one_graph(name):
    torch._dynamo.reset()
    neuron, x = make(name), currents(NUM_STEPS, 2, FEATURES)
    compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    given = [x.clone().requires_grad_() for _ in range(2)]
    outs = [net(current) for net, current in zip((compiled, neuron), given, strict=True)]
    assert torch.equal(outs[0], outs[1])
    gradients = [torch.autograd.grad(out.sum(), current)[0] for out, current in zip(outs, given, strict=True)]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", STEPWISE)
def test_a_second_backward_pass_through_kept_state_names_the_cure(name):
    neuron, x = make(name, step_mode="single"), currents(NUM_STEPS, 3, FEATURES).requires_grad_()
    neuron(x[0])
    (neuron(x[1]) + neuron(x[2])).sum().backward()
    if not any(value.requires_grad for value in (get_state(neuron)[""] or {}).values()):
        pytest.skip("its state has no graph")
    with pytest.raises(StateGraphError, match="detach_state"):
        (neuron(x[3]) + neuron(x[4])).sum().backward()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("qif", {"a0": 0.0}),
        ("eif", {"delta_T": 0.0}),
        ("adex", {"tau_w": 1.0}),
        ("izhikevich", {"tau_w": 0.5}),
        ("alif", {"tau_a": 1.0}),
        ("klif", {"tau": 0.5}),
        ("glif", {"alpha": 1.0}),
        ("timed_glif", {"num_steps": 0}),
        ("liaf", {"activation": "softmax"}),
        ("ilif", {"reset": "hard"}),
        ("ilif", {"surrogate": "atan"}),
        ("resonate_and_fire", {"b": 0.1}),
        ("psn", {"num_steps": 0}),
        ("masked_psn", {"masking": 1.5}),
        ("sliding_psn", {"order": 0}),
        ("mpbn_lif", {"residual": "both"}),
        ("ilc_if", {"group_size": 0}),
    ],
)
def test_options_out_of_range(name, wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        create("neuron", name, **{**REQUIRED.get(name, {}), **wrong})


def test_timed_glif_refuses_what_has_no_step_number():
    neuron = create("neuron", "timed_glif", num_steps=3)
    with pytest.raises(ShapeError, match=r"num_steps=3 steps, got \(4, 2, 3\)"):
        neuron(torch.zeros(4, 2, 3))
    set_step_mode(neuron, "single")
    with pytest.raises(OptionError, match="GLIF, whose"):
        neuron(torch.zeros(2, 3))
    per_channel = create("neuron", "timed_glif", num_steps=3, beta=[0.2, 0.4])
    assert per_channel.conductances.shape == (3, 2)
    assert per_channel(torch.ones(3, 5, 2, 4)).shape == (3, 5, 2, 4)
