"""Checks of a model: shapes, step modes, parameters, what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from spikecore.errors import ShapeError, SpikeError
from spikecore.nn import LIF, reset_state, set_step_mode, streaming
from spikecore.nn.weights import read_tensors
from spikecore.registry import registry
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.suite import needs, skip
from spikecore.testing.suites.model_targets import TargetChecks
from spikecore.testing.values import states_of
from spikecore.torch_internals import NormBase

NUM_STEPS, BATCH = 3, 2
SCALES = (1.0, 5.0, 25.0)


class ModelSuite(TargetChecks):
    """A net for any fitting input shape and number of classes, the same in both step modes; every parameter learns."""

    kind: ClassVar[str] = "model"
    minimum = 12
    input_shapes: ClassVar[tuple[tuple[int, ...], ...]] = ()
    """Two input shapes without T and B; by default they follow from the capabilities."""

    _scales: ClassVar[dict[tuple[int, ...], float]] = {}

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The two input shapes."""
        if self.input_shapes:
            return self.input_shapes
        rank, size = self.capabilities.input_rank, max(self.capabilities.min_input_size, 8)
        if rank is None:
            return (12,), (2, size, size + 1)
        if rank == 1:
            return (12,), (7,)
        return (1, *[size] * (rank - 1)), (3, size + 2, *[size + 5] * (rank - 2))

    def build(self, shape: tuple[int, ...] | None = None, num_outputs: int = 5, **options: Any) -> Any:
        """A net of LIF neurons on the reference backend, in float64 and evaluation mode, its norms settled."""
        make_neuron = options.pop("make_neuron", lambda: LIF(backend="torch"))
        chosen = {**self.options, **options}
        shape = shape or self.shapes[0]
        net = registry().create("model", self.component, make_neuron, shape, num_outputs, **chosen).double()
        self._settle(net, shape)
        return net.eval()

    def _settle(self, net: nn.Module, shape: tuple[int, ...]) -> None:
        """One pass that sets running statistics: with those of a new norm the neurons of a deep net are silent."""
        norms = [part for part in net.modules() if isinstance(part, NormBase)]
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            with torch.no_grad():
                self.run(net.train(), self._noise(shape, 8, NUM_STEPS))
            reset_state(net)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum

    def sample(self) -> Any:
        """The class: a model is made for an input shape, which follows from its capabilities."""
        return self.target

    def find_obstacle(self) -> str:
        """See `Suite`."""
        registry().create("model", self.component, lambda: LIF(backend="torch"), self.shapes[0], 5, **self.options)
        return ""

    def make(self, **options: Any) -> Any:
        """The same; what the checks common to all kinds use."""
        return self.build(**options)

    def input(self, shape: tuple[int, ...] | None = None, batch: int = BATCH, num_steps: int = NUM_STEPS) -> Tensor:
        """`[T, B, *shape]`, strong enough for the output to depend on it."""
        shape = shape or self.shapes[0]
        if shape not in self._scales:
            type(self)._scales = {**self._scales, shape: self._fitting_scale(shape)}
        return self._noise(shape, batch, num_steps) * self._scales[shape]

    def _noise(self, shape: tuple[int, ...], batch: int, num_steps: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.rand((num_steps, batch, *shape), generator=generator, dtype=torch.float64) * 2

    def _fitting_scale(self, shape: tuple[int, ...]) -> float:
        with torch.no_grad():
            net, x = self.build(shape), self._noise(shape, 3, NUM_STEPS)
            for scale in SCALES:
                out = self.run(net, x * scale)
                if (out != out[:, :1]).any():
                    return scale
        raise AssertionError(f"input {shape}: the output is the same for every input, weak or strong")

    def run(self, net: nn.Module, x: Tensor) -> Tensor:
        """`[T, B, num_outputs]`, in the first declared step mode that takes sequences, else step by step."""
        if "multi" in self.capabilities.step_modes:
            set_step_mode(net, "multi")
            out: Tensor = net(x)
            return out
        set_step_mode(net, "single")
        return torch.stack([net(step) for step in x])

    def test_output_shape(self) -> None:
        """`[T, B, *input_shape]` becomes `[T, B, num_outputs]`, for two input shapes and numbers of outputs."""
        for shape, classes in zip(self.shapes, (5, 3), strict=True):
            out = self.run(self.build(shape, classes), self.input(shape))
            wanted = (NUM_STEPS, BATCH, classes)
            assert out.shape == wanted, f"input {shape}: expected {wanted}, got {tuple(out.shape)}"
            assert out.isfinite().all(), f"input {shape}: the output holds NaN or infinity"

    def test_is_a_module(self) -> None:
        """A `torch.nn.Module` with `config` and parameters; it is trained and evaluated."""
        net, x = self.build(), self.input()
        assert isinstance(net, nn.Module)
        assert isinstance(net.config, self.target.Config)
        assert list(net.parameters()), "it has no parameters"
        for mode in (True, False):
            assert self.run(net.train(mode), x).isfinite().all()

    def test_neurons_come_from_make_neuron(self) -> None:
        """Every neuron layer is what one call of `make_neuron` gave, and all of them are in the net."""
        made: list[nn.Module] = []

        def make_neuron() -> nn.Module:
            made.append(LIF(backend="torch"))
            return made[-1]

        net = self.build(make_neuron=make_neuron)
        inside = [part for part in net.modules() if isinstance(part, LIF)]
        assert made, "make_neuron was not called"
        assert {id(part) for part in inside} == {id(part) for part in made}, (
            f"make_neuron was called {len(made)} times, the net holds {len(inside)} neuron layers"
        )

    @needs("step_modes", "single")
    @needs("step_modes", "multi")
    def test_single_step_equals_multi_step(self) -> None:
        """T single steps give the sequence of one multi-step call."""
        for shape in self.shapes:
            net, x = self.build(shape), self.input(shape)
            whole = self.run(net, x)
            set_step_mode(net, "single")
            assert_close(torch.stack([net(step) for step in x]), whole, f"single steps of input {shape}")

    @needs("step_modes", "multi")
    def test_calls_do_not_know_of_each_other(self) -> None:
        """A second call gives the same; inside `streaming`, two halves give the whole."""
        net, x = self.build(), self.input(num_steps=4)
        whole = self.run(net, x)
        assert_same(self.run(net, x), whole, "the second call with the same input")
        with streaming(net):
            halves = [net(x[:1]), net(x[1:])]
        assert_close(torch.cat(halves), whole, "the sequence in two parts")

    def test_state_dict_round_trip(self) -> None:
        """Another net that loads the `state_dict` strictly gives the same output; no state of neurons is in it."""
        net, x = self.build(), self.input()
        with torch.no_grad():
            for value in net.state_dict().values():
                if value.is_floating_point():
                    value.add_(0.01)
        right = self.run(net, x)
        saved = net.state_dict()
        torch.manual_seed(7)
        other = self.build()
        other.load_state_dict({name: value.clone() for name, value in saved.items()})
        assert_same(self.run(other, x), right, "the output after load_state_dict")
        if "single" in self.capabilities.step_modes:
            set_step_mode(net, "single")
            net(x[0])
            assert list(net.state_dict()) == list(saved), "after a step, state_dict() holds more than before"

    def test_every_parameter_gets_a_gradient(self) -> None:
        """It is finite, and not zero at some strength of the input, once parameters are off their first values."""
        for shape in self.shapes:
            net = self.build(shape).train()
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
            zero = dict(net.named_parameters())
            for scale in SCALES:
                out = self.run(net, self.input(shape, batch=4) * scale)
                total = (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum()
                gradients = torch.autograd.grad(total, list(net.parameters()), allow_unused=True)
                for (name, _), gradient in zip(net.named_parameters(), gradients, strict=True):
                    assert gradient is not None, f"no gradient reaches {name}"
                    assert gradient.isfinite().all(), f"the gradient of {name} holds NaN or infinity"
                    if gradient.any():
                        zero.pop(name, None)
            assert not zero, f"the gradient of {', '.join(zero)} is zero"

    def test_a_batch_of_one_is_a_slice(self) -> None:
        """One sample alone gives what it gives within a batch."""
        net, x = self.build(), self.input(batch=3)
        assert_close(self.run(net, x[:, 1:2]), self.run(net, x)[:, 1:2], "sample 1 alone")

    def test_seed(self) -> None:
        """The same seed makes the same net; evaluating it draws no random numbers."""
        nets = []
        for _ in range(2):
            torch.manual_seed(3)
            nets.append(self.build())
        assert_same(dict(nets[1].state_dict()), dict(nets[0].state_dict()), "the parameters made from the same seed")
        before = torch.get_rng_state()
        self.run(nets[0], self.input())
        assert torch.equal(before, torch.get_rng_state()), "it drew random numbers in evaluation mode"

    def test_copies(self) -> None:
        """`deepcopy` gives a net of its own that computes alike."""
        net, x = self.build(), self.input()
        right = self.run(net, x)
        twin = copy.deepcopy(net)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
        assert_same(self.run(twin, x), right, "the output of a copy whose original was changed")

    def test_wrong_shapes_are_refused(self) -> None:
        """An input shape of another rank, too small, or with a zero, and no classes at all, raise ShapeError."""
        shape = self.shapes[0]
        wrong: list[tuple[tuple[int, ...], int]] = [(shape, 0), ((0, *shape[1:]), 5)]
        if self.capabilities.input_rank is not None:
            wrong.append(((*shape, shape[-1]), 5))
        if self.capabilities.min_input_size > 1:
            wrong.append(((shape[0], *[self.capabilities.min_input_size - 1] * (len(shape) - 1)), 5))
        for given, classes in wrong:
            with pytest.raises(ShapeError):
                self.build(given, classes)

    def test_smallest_input(self) -> None:
        """The smallest declared size works."""
        size, rank = self.capabilities.min_input_size, self.capabilities.input_rank
        if not size or rank is None or self.input_shapes:
            skip("capabilities name no smallest size" if not self.input_shapes else "input_shapes are given")
        shape = (1, *[size] * (rank - 1))
        assert self.run(self.build(shape), self.input(shape)).shape == (NUM_STEPS, BATCH, 5)

    def test_step_modes(self) -> None:
        """Every declared step mode runs; none leaves state behind a multi-step call."""
        for mode in self.capabilities.step_modes:
            net, x = self.build(), self.input()
            set_step_mode(net, mode)
            out = net(x if mode == "multi" else x[0])
            assert out.shape[-2:] == (BATCH, 5)
            assert bool(states_of(net)) == (mode == "single"), f"state in step mode {mode!r}: {list(states_of(net))}"

    def test_weight_sources(self) -> None:
        """Whose weights it reads is said in `weight_sources`; others, and files that lack tensors, are refused."""
        sources = getattr(self.target, "weight_sources", ())
        if not sources:
            skip("it reads no weights of others")
        assert isinstance(sources, tuple), f"weight_sources should be a tuple of names, is {sources!r}"
        assert all(isinstance(name, str) and name.strip() for name in sources), f"weight_sources holds {sources!r}"
        net = self.build()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        with pytest.raises(SpikeError, match="no_such_source"):
            net.import_weights("no_such_source", {})
        for source in sources:
            with pytest.raises((SpikeError, KeyError)):
                net.import_weights(source, {})
        assert_same(dict(net.state_dict()), before, "the net after import_weights, which gives a state_dict")

    def test_weights_that_ship(self) -> None:
        """Every name in `weights()` is a file with a note on its net, which loads into that net and changes it."""
        shipped = self.target.weights() if hasattr(self.target, "weights") else {}
        if not shipped:
            skip("it ships no weights")
        for name, path in shipped.items():
            tensors, note = read_tensors(Path(path))
            assert note is not None, f"{path}: is not what `spike convert-weights` writes: it has no note on its net"
            neuron = dict(note.neuron)
            kind = neuron.pop("name")
            net = registry().create(
                "model",
                self.component,
                lambda kind=kind, neuron=neuron: registry().create("neuron", kind, **neuron),
                note.input_shape,
                note.num_outputs,
                weights=name,
                **note.options,
            )
            state = net.state_dict()
            for key, value in tensors.items():
                assert torch.equal(state[key], value.to(state[key].dtype)), (
                    f"weights {name!r}: {key} is not that of the file"
                )
            x = torch.rand(NUM_STEPS, BATCH, *note.input_shape)
            with torch.no_grad():
                assert self.run(net.eval(), x).isfinite().all(), f"weights {name!r}: the output holds NaN or infinity"
