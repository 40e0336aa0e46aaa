"""Checks of a backend: everything that comes out, gradients too, against the plain loop under torch's autograd.

The backend is registered under a name of its own and reached through neurons, as in any net.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore.dynamics import OPS
from spikecore.interfaces.backend import Support
from spikecore.nn import IF, LIF, Neuron
from spikecore.registry import create
from spikecore.testing.backend_runs import PARAMETERS, RESETS, SLOPES, SURROGATES, noise, outcome
from spikecore.testing.compare import assert_close
from spikecore.testing.probes import (
    BACKEND,
    OPERATORS,
    Adaptive,
    Counter,
    Stateless,
    Watched,
    expression,
    registered_backend,
    uncovered,
)
from spikecore.testing.suite import Suite, skip

Options = dict[str, Any]
LEARNED: Options = {"tau": [2.0, 3.0, 4.0], "learnable": ("tau",)}
CASES: tuple[Options, ...] = ({}, LEARNED)
SHAPES = ((5, 3), (4, 1, 1), (3, 2, 3, 5, 7), (2, 1, 1031), (17, 3, 13), (1, 4, 3, 2))


class AgreementChecks(Suite):
    """The part of the backend's suite that holds it against the reference, and what all its checks use."""

    kind: ClassVar[str] = "backend"

    @property
    def device(self) -> torch.device:
        """The first declared device that is here."""
        return torch.device(self._devices_here()[0])

    def _devices_here(self) -> list[str]:
        """The declared devices that this machine has."""
        here = []
        for name in self.capabilities.devices:
            accelerator = getattr(torch, name, None)
            if name == "cpu" or (accelerator is not None and accelerator.is_available()):
                here.append(name)
        return here

    def find_obstacle(self) -> str:
        """See `Suite`; a backend needs one of its devices."""
        if self._devices_here():
            return ""
        declared = ", ".join(self.capabilities.devices)
        return f"{self.kind} {self.component!r} runs on {declared}, and no such device is here"

    @property
    def dtypes(self) -> list[torch.dtype]:
        """The declared ones among float32 and float64."""
        return [d for d in (torch.float32, torch.float64) if str(d).removeprefix("torch.") in self.capabilities.dtypes]

    @property
    def dtype(self) -> torch.dtype:
        """The most precise of them."""
        return self.dtypes[-1] if self.dtypes else getattr(torch, self.capabilities.dtypes[0])

    @contextmanager
    def backend(self) -> Iterator[Watched]:
        """The backend, registered and watched."""
        watched = Watched(self.make())

        def factory() -> Watched:
            return watched

        for name in ("api_version", "Config"):
            setattr(factory, name, getattr(self.target, name))
        setattr(factory, "capabilities", self.capabilities)  # noqa: B010  (mypy knows no attributes of functions)
        with registered_backend(factory):
            yield watched

    def x(self, *shape: int, dtype: torch.dtype | None = None, seed: int = 0) -> Tensor:
        """Input on the device."""
        return noise(*shape, dtype=dtype or self.dtype, seed=seed).to(self.device)

    def on(self, backend: str, cls: type[Neuron], dtype: torch.dtype | None = None, **options: Any) -> Neuron:
        """A neuron on a backend, with its parameters in the input's dtype."""
        if isinstance(surrogate := options.get("surrogate"), dict):
            name = surrogate["name"]
            plain = {key: value for key, value in surrogate.items() if key != "name"}
            options = {**options, "surrogate": create("surrogate", name, **plain)}
        wide = torch.promote_types(dtype or self.dtype, torch.float32)
        return cls(backend=backend, **options).to(device=self.device, dtype=wide)

    def compare(self, watched: Watched, x: Tensor, cls: type[Neuron], strided: bool = False, **options: Any) -> bool:
        """Everything that comes out, against the plain loop; False where the backend refuses the program."""
        ours, theirs = (self.on(name, cls, x.dtype, **options) for name in (BACKEND, "torch"))
        ours.record = tuple(ours.state)
        support = watched.supports(ours.program(), x.device, x.dtype)
        if not support:
            assert support.reason, f"supports() refuses {cls.__name__} without a reason"
            return False
        what = f"{cls.__name__}({', '.join(f'{k}={v}' for k, v in options.items())}) of {x.dtype} {tuple(x.shape)}"
        assert_close(outcome(ours, x, strided), outcome(theirs, x, strided), what)
        return True

    def compare_all(self, cases: Iterator[tuple[Tensor, type[Neuron], Options]]) -> None:
        """Every case that the backend supports; IF and LIF it must."""
        with self.backend() as watched:
            refused = []
            count = 0
            for x, cls, options in cases:
                if self.compare(watched, x, cls, **options):
                    count += 1
                else:
                    refused.append(cls.__name__)
            assert not {"IF", "LIF"} & set(refused), "it refuses IF or LIF"
            if not count:
                skip(f"supports() refuses {', '.join(dict.fromkeys(refused))}")

    def _program(self, steps: int, options: Options = LEARNED) -> tuple[Any, str, Tensor, list[Tensor], list[Tensor]]:
        neuron = self.on("torch", LIF, record=("v",), **options)
        program, backend = neuron.program(), self.make()
        support = backend.supports(program, self.device, self.dtype)
        assert support, support.reason
        backend.learn(program)
        state = torch.full_like(self.x(4, 3), 0.1, dtype=torch.promote_types(self.dtype, torch.float32))
        return backend, program.key, self.x(steps, 4, 3), [state], [p.detach() for p in neuron.parameters()]

    def test_supports(self) -> None:
        """IF and LIF are supported with every declared dtype, on a declared device; refusals have a reason."""
        backend = self.make()
        for cls in (IF, LIF):
            program = cls(backend="torch").program()
            for name in self.capabilities.dtypes:
                support = backend.supports(program, self.device, getattr(torch, name))
                assert isinstance(support, Support), f"supports() gave {support!r}"
                assert support, f"it declares {name} on {self.device}, and refuses {cls.__name__}: {support.reason}"
            for name in {"float16", "bfloat16", "float32", "float64"} - set(self.capabilities.dtypes):
                support = backend.supports(program, self.device, getattr(torch, name))
                assert not support, f"it supports {name}, which capabilities.dtypes lacks"
                assert support.reason, f"it refuses {name} without a reason"

    def test_resets_equal_the_reference(self) -> None:
        """IF and LIF, hard and soft, detached and not: output, states, recorded states and all gradients."""
        leaks: tuple[Options, ...] = ({}, {"tau": 3.7}, {"tau": 3.0, "decay_input": False})
        cases = [(IF, {}), *((LIF, leak) for leak in leaks)]
        self.compare_all(
            (self.x(7, 4, 3, 5, dtype=dtype), cls, {**leak, **reset})
            for dtype in self.dtypes
            for cls, leak in cases
            for reset in RESETS
        )

    def test_surrogates_equal_the_reference(self) -> None:
        """Every surrogate of the core, two of them smooth."""
        for cls in (IF, LIF):
            self.compare_all((self.x(6, 3, 5), cls, {"surrogate": surrogate}) for surrogate in SURROGATES)

    def test_parameters_equal_the_reference(self) -> None:
        """Tensor parameters, one for all or one per channel, learned or not."""
        taus: tuple[Options, ...] = ({"tau": [1.5, 2.0, 4.0], "learnable": ("tau",)}, {"tau": [1.5, 2.0, 4.0]})
        shapes = ((6, 4, 3), (5, 2, 3, 4, 3))
        self.compare_all((self.x(*shape), LIF, case) for shape in shapes for case in (*PARAMETERS, *taus))

    def test_learnable_slopes_equal_the_reference(self) -> None:
        """A slope of the surrogate that is trained, with and without other parameters."""
        cases: tuple[Options, ...] = (*SLOPES, {**SLOPES[0], "tau": [1.5, 2.0, 4.0]})
        self.compare_all((self.x(6, 4, 3), LIF, case) for case in cases)

    def test_several_states_equal_the_reference(self) -> None:
        """Neurons with two coupled states, four learned parameters, no state, or outputs that are constants."""
        names = ("tau", "tau_w", "a", "b")
        channels = {"tau": [2.0, 3.0, 4.0], "b": [0.1, 0.2, 0.3], "learnable": names}
        cases: list[tuple[type[Neuron], Options]] = [
            (Adaptive, {}),
            (Adaptive, {"learnable": names}),
            (Adaptive, channels),
            (Stateless, {}),
            (Stateless, {"gain": [0.5, 1.0, 2.0], "learnable": ("gain",)}),
            (Counter, {}),
        ]
        self.compare_all((self.x(6, 4, 3, 2), cls, options) for cls, options in cases)

    def test_every_operator_equals_the_reference(self) -> None:
        """Every operator of the neuron language, with its gradient."""
        assert not uncovered(), f"no check uses the operators {uncovered()} of {len(OPS)}"
        self.compare_all((self.x(4, 3, 5), expression(name), {}) for name in OPERATORS)

    def test_half_precision(self) -> None:
        """Declared half-precision input computes in float32 and keeps its own dtype for the output."""
        halves = [name for name in ("float16", "bfloat16") if name in self.capabilities.dtypes]
        if not halves:
            skip("capabilities.dtypes has neither float16 nor bfloat16")
        inputs = [self.x(5, 4, 3, dtype=getattr(torch, name)) for name in halves]
        self.compare_all((x, cls, {}) for x in inputs for cls in (IF, LIF))

    def test_odd_sizes(self) -> None:
        """Shapes that divide by nothing, one element, many axes, one step."""
        self.compare_all((self.x(*shape), cls, {}) for shape in SHAPES for cls in (IF, LIF))
