"""Checks of what a neuron computes: options, equations, gradients, the traced graph."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from spikecore import explain
from spikecore.errors import StateGraphError
from spikecore.interfaces.component import Range
from spikecore.nn import Neuron, Sigmoid, functional, reset_state, set_step_mode, streaming
from spikecore.nn.parameters import marks_of
from spikecore.registry import create
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.probes import GraphBackend, registered_backend
from spikecore.testing.suite import Suite, advice, needs, skip
from spikecore.testing.values import states_of

IGNORES = (
    "your step ignores the option `{}`; honour it with nn.fire_and_reset, or declare a Config without it "
    "(see docs/how-to/prove-a-plugin.md)"
)
SCALES = (1.0, 0.3, 3.0, 0.1, 10.0, 30.0, 100.0)


class EquationChecks(Suite):
    """The part of the neuron's suite that looks at its equations, and what all its checks use."""

    kind: ClassVar[str] = "neuron"
    sample_shape: ClassVar[tuple[int, ...]] = (4, 3, 5)
    """`[C, H, W]` of one sample of one step; a neuron that needs another names it in its subclass."""
    _drive: ClassVar[float] = 0.0

    def make(self, *, step_mode: str | None = None, **options: Any) -> Any:
        """A neuron in evaluation mode, on the reference backend; multi-step where it can; random weights are equal."""
        target = self.target
        own = {"backend": "torch"} if isinstance(target, type) and issubclass(target, Neuron) else {}
        torch.manual_seed(0)
        neuron = create(self.kind, self.component, **{**own, **self.options, **options})
        modes = self.capabilities.step_modes
        set_step_mode(neuron, step_mode or ("multi" if "multi" in modes else modes[0]))
        return neuron.to(self.dtype).eval()

    @property
    def dtype(self) -> torch.dtype:
        """float64 where it can be had: rounding then hides nothing."""
        declared = self.capabilities.dtypes
        return torch.float64 if "float64" in declared else getattr(torch, declared[-1])

    @property
    def any_length(self) -> bool:
        """Whether T is free."""
        return not self.capabilities.fixed_num_steps

    @property
    def num_steps(self) -> int:
        """T of the inputs."""
        if self.any_length:
            return 6
        return int(create(self.kind, self.component, **self.options).config.num_steps)

    def input(self, num_steps: int | None = None, seed: int = 0) -> Tensor:
        """`[T, 3, *sample_shape]`, scaled so that a spiking neuron fires now and then."""
        if not type(self)._drive:
            type(self)._drive = self._fitting_scale()
        return self._noise(num_steps or self.num_steps, seed) * type(self)._drive

    def _noise(self, num_steps: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (num_steps, 3, *self.sample_shape)
        return (torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5).to(self.dtype)

    def _fitting_scale(self) -> float:
        if self.capabilities.spiking:
            for scale in SCALES:
                share = float(self.run(self.make(), self._noise(self.num_steps, 0) * scale).detach().double().mean())
                if 0.05 <= share <= 0.95:
                    return scale
        return 1.0

    def run(self, neuron: nn.Module, x: Tensor, *, reset: bool = True, seed: int | None = 1) -> Tensor:
        """The output for a sequence `[T, B, ...]` in the neuron's own step mode."""
        if seed is not None:
            torch.manual_seed(seed)
        if neuron.step_mode == "multi":
            out: Tensor = neuron(x)
            return out
        if reset:
            reset_state(neuron)
        outs = [neuron(step) for step in x]
        if reset:
            reset_state(neuron)
        return torch.stack(outs) if outs else torch.empty_like(x)

    def options_with(self, **wanted: Any) -> dict[str, Any]:
        """The options among `wanted` that the neuron has."""
        return {name: value for name, value in wanted.items() if name in self._fields()}

    def _fields(self) -> dict[str, Any]:
        return {field.name: field for field in dataclasses.fields(self.target.Config)}

    def smooth(self) -> dict[str, Any]:
        """Options that make the neuron smooth, so that finite differences apply."""
        if "surrogate" not in self._fields():
            skip("Config has no surrogate to make smooth")
        own = self.make().config.surrogate
        if not own.capabilities.heaviside:
            skip("the forward pass of its surrogate is not Θ, so the primitive is another function")
        if own.capabilities.primitive:
            values = {field.name: getattr(own.config, field.name) for field in dataclasses.fields(own.config)}
            surrogate = type(own)(**{**values, "spiking": False})
        else:
            surrogate = Sigmoid(spiking=False)
        return {"surrogate": surrogate, **self.options_with(detach_reset=False)}

    def learnable(self) -> list[str]:
        """The options that are real numbers and can be trained."""
        if "learnable" not in self._fields():
            return []
        hints = get_type_hints(self.target.Config, include_extras=True)
        always_trained = getattr(self.target, "trained", ())
        names = []
        for name in self._fields():
            hint = hints[name]
            plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            if plain is float and name not in always_trained:
                names.append(name)
        return names

    @advice("look for detach(), and for operations that are not differentiable, between the inputs and the output")
    @needs("elementwise")
    @needs("differentiable")
    def test_gradcheck(self) -> None:
        """With a smooth surrogate, gradients to input and learnable options are those of finite differences."""
        options, names = self.smooth(), self.learnable()
        generator = torch.Generator().manual_seed(2)
        steps = 4 if self.any_length else self.num_steps
        x = torch.randn(steps, 2, 3, dtype=torch.float64, generator=generator).mul_(self._scale()).requires_grad_()
        resets: tuple[str, ...] = ("hard", "soft") if "reset" in self._fields() else ("",)
        if "none" in get_args(get_type_hints(self.target.Config).get("reset")):
            resets = ("none",)  # its resets are always detached: finite differences see them, the gradient must not
        for reset in resets:
            chosen = {**options, **(self.options_with(reset=reset) if reset else {})}
            config = self.make(**chosen).config
            config_type: type = type(config)
            # At a limit of its range an option has a derivative on one side only; finite differences look at both.
            limits = {name: (allowed.ge, allowed.le) for name, allowed in marks_of(config_type, Range).items()}
            inside = [name for name in names if getattr(config, name) not in limits.get(name, ())]
            neuron = self.make(**chosen, **self.options_with(learnable=tuple(inside))).double()
            inputs = (x, *neuron.parameters())
            assert torch.autograd.gradcheck(lambda given, *_, n=neuron: self.run(n, given), inputs), reset

    def _scale(self) -> float:
        self.input()
        return min(type(self)._drive, 3.0)

    @advice("write `step` in the functions of spikecore.dynamics; use where() in place of `if`")
    @needs("elementwise")
    def test_the_traced_graph_equals_the_step(self) -> None:
        """Traced to a graph and interpreted, it gives the same outputs, states and gradients; `explain` shows it."""
        x = self.input().requires_grad_()
        weights = self._noise(len(x), 7)
        results = []
        with registered_backend(GraphBackend) as name:
            for backend in (name, "torch"):
                neuron = self.make(backend=backend)
                with streaming(neuron):
                    out = self.run(neuron, x, reset=False)
                    states = states_of(neuron)
                total = (out * weights).sum() + sum((v * weights[0]).sum() for v in states.values())
                gradient: tuple[Tensor | None, ...] = (None,)
                if self.capabilities.differentiable:
                    gradient = torch.autograd.grad(total, x)
                results.append([out, list(states.values()), *(g for g in gradient if g is not None)])
            text = explain(neuron)
        assert_close(results[0], results[1], "[output, states, gradient] of the traced graph")
        assert type(neuron).__name__ in text
        assert "not traced" not in text, text

    @needs("elementwise")
    def test_recorded_states(self) -> None:
        """`record` keeps the state after every step, with gradient; its last step is the final state."""
        names = tuple(self.target.state)
        if not names:
            skip("it has no state")
        x = self.input().requires_grad_()
        neuron = self.make(record=names)
        with streaming(neuron):
            self.run(neuron, x, reset=False)
            final = states_of(neuron)
        if neuron.step_mode != "multi":
            skip("capabilities.step_modes lacks 'multi'")
        has_single = "single" in self.capabilities.step_modes
        single: Any = self.make(step_mode="single") if has_single else None
        steps: dict[str, list[Tensor]] = {name: [] for name in names}
        for current in x if has_single else ():
            single(current)
            for name in names:
                steps[name].append(states_of(single)[name])
        for name in names:
            recorded = neuron.recorded[name]
            assert recorded.shape == x.shape, f"{name}: expected {tuple(x.shape)}, got {tuple(recorded.shape)}"
            assert_same(recorded[-1], final[name], f"the last recorded {name}")
            if has_single:
                assert_close(recorded, torch.stack(steps[name]), f"recorded {name}, against single steps")
        if self.capabilities.differentiable:
            total = sum(value.sum() for value in neuron.recorded.values())
            assert isinstance(total, Tensor)
            assert total.requires_grad, "recorded states carry no gradient"

    @advice("read the option as params.NAME in `step`, without detach()")
    @needs("differentiable")
    def test_learnable_options_get_a_gradient(self) -> None:
        """Every numeric option can be learned, one for all or one per channel; zero gradient only without influence."""
        if not self.learnable():
            skip("Config has no learnable numbers")
        channels, default = self.sample_shape[0], self.make()
        for name in self.learnable():
            value = getattr(default.config, name)
            if isinstance(value, tuple):
                value = value[0]
            for given in (value, [value] * channels):
                neuron = self.make(**{name: given, "learnable": (name,), **self._recording()}).train()
                (parameter,) = [p for key, p in neuron.named_parameters() if key.endswith(name)]
                assert parameter.numel() == (channels if isinstance(given, list) else 1)
                total = self._total(neuron)
                gradient = None
                if total.requires_grad:
                    (gradient,) = torch.autograd.grad(total, parameter, allow_unused=True)
                if gradient is not None:
                    assert gradient.isfinite().all(), f"the gradient of {name} holds NaN or infinity"
                if gradient is None or not gradient.any():
                    with torch.no_grad():
                        parameter.add_(0.05)
                    assert self._total(neuron) == total, f"{name} changes the output, but its gradient is zero"

    def _recording(self) -> dict[str, Any]:
        return {"record": tuple(self.target.state)} if self.capabilities.elementwise else {}

    def _total(self, neuron: Any) -> Tensor:
        x = self.input()
        out = self.run(neuron, x)
        weights = self._noise(len(x), 7)
        recorded = getattr(neuron, "recorded", {}) if neuron.step_mode == "multi" else {}
        total = (out * weights).sum()
        for value in recorded.values():
            total = total + (value * weights**2).sum()
        return total

    @needs("differentiable")
    def test_own_parameters_get_a_gradient(self) -> None:
        """Every parameter that the neuron has by itself gets a finite gradient, and not all zeros."""
        neuron = self.make().train()
        if not list(neuron.parameters()):
            skip("it has no parameters by itself")
        total = self._total(neuron)
        for name, parameter in neuron.named_parameters():
            (gradient,) = torch.autograd.grad(total, parameter, retain_graph=True, allow_unused=True)
            assert gradient is not None, f"no gradient reaches {name}"
            assert gradient.isfinite().all(), f"the gradient of {name} holds NaN or infinity"
            assert gradient.any(), f"the gradient of {name} is zero"

    @needs("fixed_num_steps", False)
    @needs("stochastic", False)
    def test_explicit_state(self) -> None:
        """`functional` gives the same with the state in plain sight: two parts, the state handed on, are the whole."""
        neuron, x = self.make(), self.input()
        right = self.run(neuron, x)
        step, init_state = functional(neuron)
        params = {**dict(neuron.named_parameters()), **dict(neuron.named_buffers())}
        state, outs = init_state(x if neuron.step_mode == "multi" else x[0]), []
        for part in (x[:2], x[2:]) if neuron.step_mode == "multi" else x:
            out, state = step(params, part, state)
            outs.append(out)
        joined = torch.cat(outs) if neuron.step_mode == "multi" else torch.stack(outs)
        assert_close(joined, right, "the sequence in two parts, with its state handed over")
        assert not states_of(neuron), "the explicit form left state in the module"

    @needs("differentiable")
    def test_a_freed_graph_is_named(self) -> None:
        """A backward pass through kept state whose graph is gone raises StateGraphError, not torch's obscure text."""
        neuron, x = self.make(), self.input()
        with streaming(neuron):
            self.run(neuron, x.clone().requires_grad_(), reset=False).sum().backward()  # type: ignore[no-untyped-call]
            if not any(value.requires_grad for value in states_of(neuron).values()):
                skip("it keeps no state with a graph")
            total = self.run(neuron, x.clone().requires_grad_(), reset=False).sum()
            with pytest.raises(StateGraphError):
                total.backward()  # type: ignore[no-untyped-call]

    @needs("elementwise")
    @needs("spiking")
    def test_hard_and_soft_reset(self) -> None:
        """A spike takes `v` to `v_reset` (hard) or lowers it by `v_threshold` (soft), within the same step."""
        if not {"reset", "v_threshold", "v_reset"} <= set(self._fields()) or "v" not in self.target.state:
            skip("it has no v with the options reset, v_threshold and v_reset")
        x = self.input()
        runs = {}
        for reset in ("hard", "soft"):
            neuron = self.make(reset=reset, record=("v",), step_mode="multi")
            runs[reset] = neuron(x), neuron.recorded["v"], neuron.config
        quiet = self.make(v_threshold=1e30, record=("v",), step_mode="multi")
        quiet(x)
        is_ignored = all(torch.equal(hard, soft) for hard, soft in zip(runs["hard"][:2], runs["soft"][:2], strict=True))
        assert not is_ignored, IGNORES.format("reset")
        spikes, v, config = runs["hard"]
        assert spikes.any()
        target = torch.as_tensor(config.v_reset, dtype=v.dtype)
        target = target.reshape(-1, *[1] * (x.dim() - 3)).expand_as(v)[spikes == 1]
        assert_close(v[spikes == 1], target, "v after a spike with a hard reset")
        spikes, v, config = runs["soft"]
        first = (spikes.cumsum(0) == 1) & (spikes == 1)
        threshold = torch.as_tensor(config.v_threshold, dtype=v.dtype)
        threshold = threshold.reshape(-1, *[1] * (x.dim() - 3)).expand_as(v)
        assert_close(v[first], (quiet.recorded["v"] - threshold)[first], "v after the first spike with a soft reset")

    @needs("elementwise")
    @needs("differentiable")
    def test_detach_reset(self) -> None:
        """It changes no output, and cuts the gradient through the spike in the reset alone."""
        if "detach_reset" not in self._fields():
            skip("Config has no detach_reset")
        x = self.input()
        outs: list[Tensor] = []
        gradients: list[Tensor] = []
        for detached in (False, True):
            given = x.clone().requires_grad_()
            out = self.run(self.make(detach_reset=detached), given)
            outs.append(out)
            gradients += torch.autograd.grad((out * self._noise(len(x), 7)).sum(), given)
        assert_same(outs[1], outs[0], "the output with detach_reset")
        assert not torch.equal(gradients[0], gradients[1]), IGNORES.format("detach_reset")
        assert_close(gradients[1][-1], gradients[0][-1], "the gradient of the last step, after which no reset matters")
