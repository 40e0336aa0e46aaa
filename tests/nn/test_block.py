"""ConvBNNeuron and LinearBNNeuron: the parts one by one by hand, fused on a backend, folded for inference."""

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn as torch_nn

import spikecore
from spikecore.backends.kit import run_normed, run_normed_bwd
from spikecore.backends.reference import TorchBackend
from spikecore.errors import DynamicsError, OptionError, ShapeError, StateError
from spikecore.interfaces.backend import BackendCapabilities, Support
from spikecore.nn import (
    IF,
    LIF,
    BatchNorm2d,
    Conv2d,
    ConvBNNeuron,
    CubaLIF,
    LinearBNNeuron,
    Neuron,
    ParametricLIF,
    Sequential,
    SyncBatchNorm,
    functional,
    get_state,
    set_backend,
    set_step_mode,
    streaming,
)
from spikecore.registry import Blocking, Registry, use


class Fusing(TorchBackend):
    """The interpreter of core, which takes scale and shift as two more parameters."""

    capabilities = BackendCapabilities(priority=9, affine_neuron=True)

    def __init__(self):
        super().__init__()
        self.ran = []

    def run(self, key, *arguments):
        self.ran.append([param.name for param in self._programs[key].params])
        return super().run(key, *arguments)


class Norming(TorchBackend):
    """The interpreter, with what the kit makes of its `run` for batch norm and neuron in one call."""

    capabilities = BackendCapabilities(priority=7, norm_neuron=True)

    def __init__(self):
        super().__init__()
        self.normed, self.asked, self.pays = 0, [], True

    def norm_neuron_pays(self, key, y):
        self.asked.append((self.program(key).name, tuple(y.shape)))
        return self.pays

    def norm_neuron(self, call, save, carry):
        self.normed += 1
        return run_normed(self, call, save, carry)

    def norm_neuron_grad(self, call, saved, *grads):
        return run_normed_bwd(self, call, saved, *grads)


class Plain(TorchBackend):
    """The same without the capability."""

    capabilities = BackendCapabilities(priority=3)


class Picky(Fusing):
    """Offers it, but not for programs with that many parameters."""

    def supports(self, program, device, dtype):
        return Support(not program.params, "takes no parameters" if program.params else "")


@pytest.fixture(autouse=True)
def backends():
    registry = Registry(blocking=Blocking())
    for name, made in {"fusing": Fusing, "norming": Norming, "plain": Plain, "picky": Picky}.items():
        registry.register("backend", name, made)
    with use(registry):
        yield


SHAPES = {1: (4, 3, 2, 9), 2: (4, 3, 2, 6, 5), 3: (3, 2, 2, 4, 3, 4)}
NEURONS = {
    "lif": lambda **o: LIF(tau=3.0, v_threshold=0.4, **o),
    "plif per channel": lambda **o: ParametricLIF(init_tau=[1.5, 2.0, 3.0, 4.0], v_threshold=0.4, **o),
    "cuba": lambda **o: CubaLIF(learnable=("c_decay",), reset="soft", **o),
}
NORMS = {
    "usual": {},
    "no weights": {"affine": False},
    "cumulative": {"momentum": None},
    "no statistics": {"track_running_stats": False},
}


def randomised(norm):
    if norm.affine:
        torch_nn.init.uniform_(norm.weight, 0.5, 2.0)
        torch_nn.init.uniform_(norm.bias, -0.5, 0.5)
    if norm.running_mean is not None:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 3.0)
    return norm


def conv_block(neuron="lif", spatial=2, norm="usual", transposed=False, groups=1, **options):
    torch.manual_seed(5)
    kind = "ConvTranspose" if transposed else "Conv"
    conv = getattr(torch_nn, f"{kind}{spatial}d")(2, 4, 3, padding=1, groups=groups, bias=norm == "no weights")
    bn = randomised(getattr(torch_nn, f"BatchNorm{spatial}d")(4, **NORMS[norm]))
    return ConvBNNeuron(conv, bn, NEURONS[neuron](**options)).double()


def linear_block(neuron="lif", norm="usual", **options):
    torch.manual_seed(6)
    bn = randomised(torch_nn.BatchNorm1d(4, **NORMS[norm]))
    return LinearBNNeuron(torch_nn.Linear(5, 4), bn, NEURONS[neuron](**options)).double()


def sequence(spatial=2):
    shape = (6, 3, 5) if spatial == 0 else SHAPES[spatial]
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) * 2


def by_hand(block, x):
    """The norm written anew: every step through the layer, then the statistics over T, B and space."""
    y = torch.stack([block.layer(step) for step in x])
    norm, shape = block.norm, [1, 1, -1, *[1] * (y.dim() - 3)]
    axes = [axis for axis in range(y.dim()) if axis != 2]
    if block.training or norm.running_mean is None:
        mean, var = y.mean(axes), ((y - y.mean(axes, keepdim=True)) ** 2).mean(axes)
    else:
        mean, var = norm.running_mean, norm.running_var
    normed = (y - mean.reshape(shape)) / (var.reshape(shape) + norm.eps) ** 0.5
    if norm.affine:
        normed = normed * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    return copy.deepcopy(block.neuron)(normed)


CASES = [("conv", n, m, d) for n in NEURONS for m in NORMS for d in (2,)]
CASES += [("conv", "lif", "usual", 1), ("conv", "lif", "usual", 3)]
CASES += [("linear", n, "usual", 0) for n in NEURONS] + [("linear", "lif", m, 0) for m in NORMS]
assert len(CASES) >= 20


def made(kind, neuron, norm, spatial, backend, **options):
    if kind == "linear":
        return linear_block(neuron, norm, backend=backend, **options)
    return conv_block(neuron, spatial, norm, backend=backend, **options)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fused_and_unfused_are_the_parts_one_by_one(case, training):
    x, results = sequence(case[3]), {}
    for backend in ("torch", "fusing", "norming", "plain"):
        block = made(*case, backend).train(training)
        expected = by_hand(block, x)
        given = x.clone().requires_grad_()
        out = block(given)
        assert 0.02 < out.mean() < 0.98
        torch.testing.assert_close(out, expected)
        weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
        grads = torch.autograd.grad((out * weights).sum(), [given, *block.parameters()])
        results[backend] = [out, *grads, *block.buffers()]
        if training and block.norm.running_mean is not None:
            assert block.norm.num_batches_tracked == 1
    for backend in ("fusing", "norming", "plain"):
        for ours, right in zip(results[backend], results["torch"], strict=True):
            torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-10)


def test_the_fusing_backend_gets_the_norm_as_two_parameters():
    block = conv_block(backend="fusing").eval()
    block(sequence())
    ran = spikecore.backends.selection.backend_named("fusing").ran
    assert ran == [["spikecore_scale", "spikecore_shift"]]
    lines = spikecore.explain(block)
    assert "ConvBNNeuron: the norm is part of the neuron on fusing: backend 'fusing' offers affine_neuron" in lines
    assert "neuron: LIF on fusing" in lines


def test_statistics_of_the_batch_are_taken_by_a_backend_that_offers_it():
    block = conv_block(backend="norming")
    block(sequence())
    assert spikecore.backends.selection.backend_named("norming").normed == 1
    assert "the norm is part of the neuron on norming: backend 'norming' offers norm_neuron" in spikecore.explain(block)
    fusing = conv_block(backend="fusing")
    fusing(sequence())
    assert spikecore.backends.selection.backend_named("fusing").ran == [[]]
    assert "the norm runs by itself: backend 'fusing' does not offer norm_neuron" in spikecore.explain(fusing)


@pytest.mark.parametrize("mode", ["multi", "single"])
def test_a_backend_says_whether_one_call_of_norm_and_neuron_pays(mode):
    norming = spikecore.backends.selection.backend_named("norming")
    x = sequence() if mode == "multi" else sequence()[0]
    results = []
    for norming.pays in (True, False):
        torch.manual_seed(4)
        block = conv_block(backend="norming", step_mode=mode)
        norming.asked.clear()
        results.append([block(x), *(buffer.clone() for buffer in block.norm.buffers())])
        assert norming.normed == 1, "it is called once, where it pays"
        ((name, shape),) = norming.asked
        assert (name, shape[0], shape[2]) == ("LIF", 4 if mode == "multi" else 1, 4)
        assert len(shape) == 5, "y has its time axis in both modes"
    assert results[0][0].any()
    for together, apart in zip(*results, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-10)
    assert "offers norm_neuron, where one call is faster" in spikecore.explain(block)


REASONS = {
    "torch": r"the neuron runs on the reference \(asked for\)",
    "plain": "backend 'plain' does not offer affine_neuron",
    "picky": "backend 'picky': takes no parameters",
}


@pytest.mark.parametrize("backend", REASONS)
def test_where_it_is_not_fused_explain_says_why(backend):
    block = conv_block(backend=backend).eval()
    block(sequence())
    with pytest.raises(AssertionError, match=REASONS[backend]):
        raise AssertionError(spikecore.explain(block).splitlines()[0])
    assert "the norm runs by itself" in spikecore.explain(block)


def test_hooks_see_the_same_numbers_on_every_backend():
    seen = {}
    for backend in ("torch", "fusing"):
        block = conv_block(backend=backend)
        block.neuron.register_forward_hook(lambda _, args, out, on=backend: seen.setdefault(on, args[0]))
        block(sequence())
    torch.testing.assert_close(seen["fusing"], seen["torch"], rtol=0, atol=0)
    assert "a hook watches" in spikecore.explain(block)


@pytest.mark.parametrize("backend", ["torch", "fusing", "norming"])
def test_many_updates_give_torch_s_running_statistics(backend):
    for norm in ("usual", "cumulative"):
        block = conv_block(norm=norm, backend=backend)
        plain = copy.deepcopy(block.norm)
        for seed in range(5):
            x = torch.randn(SHAPES[2], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            block(x)
            plain(block.conv(x.flatten(0, 1)))
        for name, value in plain.named_buffers():
            torch.testing.assert_close(getattr(block.norm, name), value, rtol=1e-12, atol=1e-12)


FOLDED = [{}, {"spatial": 1}, {"spatial": 3}, {"norm": "no weights"}, {"transposed": True}]
FOLDED += [{"transposed": True, "groups": 2}, {"groups": 2}, {"neuron": "cuba"}]


@pytest.mark.parametrize("case", [*FOLDED, "linear", "linear without weights"], ids=str)
def test_folded_for_inference(case):
    if isinstance(case, str):
        block, x = linear_block(norm="no weights" if "without" in case else "usual"), sequence(0)
    else:
        block, x = conv_block(**case), sequence(case.get("spatial", 2))
    block.eval()
    folded = block.fold()
    assert type(folded) is type(block)
    assert isinstance(folded.norm, torch_nn.Identity)
    torch.testing.assert_close(folded(x), block(x))
    torch.testing.assert_close(folded.layer(x[0]), block.norm(block.layer(x[0])), rtol=1e-10, atol=1e-12)
    assert not {id(p) for p in folded.parameters()} & {id(p) for p in block.parameters()}
    again = folded.fold()
    torch.testing.assert_close(again(x), block(x))
    assert "there is no norm" in spikecore.explain(folded)


def test_a_folded_block_takes_no_state_along():
    block = conv_block().eval()
    with streaming(block):
        block(sequence(2))
        folded = block.fold()
        again = folded.fold()
    assert get_state(folded) == get_state(again) == {"neuron": None}
    torch.testing.assert_close(folded(sequence(2)), block(sequence(2)))
    folded(sequence(2))
    assert get_state(folded) == {"neuron": None}  # nor does it stream


def test_folding_faults():
    with pytest.raises(StateError, match=r"is training: call \.eval\(\)"):
        conv_block().fold()
    with pytest.raises(StateError, match="track_running_stats=True"):
        conv_block(norm="no statistics").eval().fold()


@pytest.mark.parametrize("backend", ["torch", "fusing", "norming"])
def test_state_dict_copies_single_steps_and_chunks(backend):
    block = conv_block(backend=backend).eval()
    assert {key.partition(".")[0] for key in block.state_dict()} == {"conv", "norm"}
    x = sequence()
    whole = block(x)
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        torch.testing.assert_close(twin(x), whole)
    fresh = conv_block(backend=backend).eval()
    torch_nn.init.zeros_(fresh.conv.weight)
    fresh.load_state_dict(block.state_dict())
    torch.testing.assert_close(fresh(x), whole)
    with streaming(block):
        torch.testing.assert_close(torch.cat([block(x[:1]), block(x[1:])]), whole)
    set_step_mode(block, "single")
    assert block.neuron.step_mode == block.step_mode == "single"
    torch.testing.assert_close(torch.stack([block(step) for step in x]), whole)


@pytest.mark.parametrize("convert", [torch_nn.SyncBatchNorm, SyncBatchNorm])
@pytest.mark.parametrize("backend", ["torch", "fusing", "norming"])
def test_sync_batch_norm(convert, backend):
    block, x = conv_block(backend=backend), sequence()
    expected = copy.deepcopy(block)
    converted = convert.convert_sync_batchnorm(block)
    assert type(converted.norm) is torch_nn.SyncBatchNorm
    torch.testing.assert_close(converted(x), expected(x))
    torch.testing.assert_close(converted.norm.running_var, expected.norm.running_var)


def test_a_torch_without_distributed_needs_no_connection(monkeypatch):
    block = ConvBNNeuron(torch_nn.Conv2d(2, 4, 3), torch_nn.SyncBatchNorm(4), LIF(backend="torch"))
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    monkeypatch.delattr(torch.distributed, "is_initialized")  # as where torch was built without it
    assert "reference" in block.choose(torch.device("cpu"), torch.float32).reason


@pytest.mark.parametrize("make", [conv_block, linear_block])
@pytest.mark.parametrize("backend", ["torch", "fusing", "norming"])
def test_without_a_step_the_norm_has_gradients_of_zero(make, backend):
    """In evaluation, where one backend runs the norm as two parameters of the neuron and others do not."""
    block = make(backend=backend).eval()
    x = sequence(2 if make is conv_block else 0)[:0]
    block(x).sum().backward()
    for parameter in (block.norm.weight, block.norm.bias, *block.layer.parameters()):
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_statistics_of_all_processes_are_left_to_the_norm(monkeypatch):
    block = torch_nn.SyncBatchNorm.convert_sync_batchnorm(conv_block(backend="fusing"))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert "from all processes" in spikecore.explain(block)
    assert "is part of the neuron" in spikecore.explain(block.eval())


@pytest.mark.parametrize("backend", ["torch", "fusing", "norming"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_and_channels_last(backend, dtype):
    block, x = conv_block(backend=backend).float(), sequence().float()
    x = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = block(x)
    assert out.dtype == dtype
    out.float().sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize("backend", ["torch", "fusing", "norming"])
@pytest.mark.parametrize("training", [True, False])
def test_compiles_whole_and_in_functional_form(backend, training):
    torch._dynamo.reset()
    x, block = sequence(), conv_block("plif per channel", backend=backend).train(training)
    twin = copy.deepcopy(block)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), twin(x))
    torch.testing.assert_close(block.norm.running_mean, twin.norm.running_mean)
    step, init_state = functional(block.eval())
    params = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    torch.testing.assert_close(step(params, x, init_state(x))[0], block(x))


def test_any_neuron_will_do():
    class Half(torch_nn.Module):
        """Not in the neuron language."""

        step_mode = "multi"

        def forward(self, x):
            return x / 2

    block = ConvBNNeuron(torch_nn.Conv2d(2, 4, 3), torch_nn.BatchNorm2d(4), Half())
    assert block(sequence().float()).shape == (4, 3, 4, 4, 3)
    assert "Half does more than its step" in spikecore.explain(block)


def test_faults():
    conv, norm = torch_nn.Conv2d(2, 4, 3), torch_nn.BatchNorm2d(4)
    with pytest.raises(OptionError, match=r"folds time itself: give it torch\.nn\.Conv2d"):
        ConvBNNeuron(Conv2d(2, 4, 3), norm, LIF())
    with pytest.raises(OptionError, match=r"give it torch\.nn\.BatchNorm2d"):
        ConvBNNeuron(conv, BatchNorm2d(4), LIF())
    with pytest.raises(OptionError, match=r"takes one of Linear of torch\.nn, got Conv2d"):
        LinearBNNeuron(conv, norm, LIF())
    with pytest.raises(OptionError, match=r"takes a batch norm of torch\.nn, got GroupNorm"):
        ConvBNNeuron(conv, torch_nn.GroupNorm(2, 4), LIF())
    with pytest.raises(OptionError, match="the layer gives 4 channels, the norm takes 5"):
        ConvBNNeuron(conv, torch_nn.BatchNorm2d(5), LIF())
    with pytest.raises(OptionError, match="takes a neuron, got ReLU"):
        ConvBNNeuron(conv, norm, torch_nn.ReLU())
    with pytest.raises(ShapeError, match=r"'multi' takes \[T, B, C, \.\.\.\] with 5 axes, got \(3, 2, 6, 6\)"):
        ConvBNNeuron(conv, norm, LIF())(torch.zeros(3, 2, 6, 6))
    with pytest.raises(RuntimeError, match=r"expected input.* to have 2 channels"):  # torch's own words, no false cure
        Sequential(ConvBNNeuron(conv, norm, LIF()))(torch.zeros(3, 2, 3, 6, 6))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        linear_block(backend="fusing").float()(torch.zeros(1, 1, 5))


def test_reserved_names_cannot_be_taken():
    with pytest.raises(DynamicsError, match="names spikecore_scale: expected names that do not begin with"):

        class Clash(Neuron):
            @dataclass(frozen=True)
            class Config(Neuron.Config):
                spikecore_scale: float = 1.0

    keys = {IF().program().key, IF().program(affine=True).key, IF(record=("v",)).program(affine=True).key}
    assert len(keys) == 3
    net = conv_block()
    set_backend(net, "plain")
    assert net.neuron.backend == "plain"
