"""Checks of a backend's spike products: against torch's dense operators, at the edges, and what they may depend on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore.backends.products import dense_product, product_on
from spikecore.backends.spike_bits import bits_of
from spikecore.interfaces.products import LINEAR, ProductGeometry, SpikeProduct
from spikecore.nn import IF, LIF, Neuron
from spikecore.registry import create
from spikecore.testing.backend_runs import poisoned
from spikecore.testing.compare import assert_same
from spikecore.testing.probes import BACKEND, Counter, Stateless
from spikecore.testing.suite import Suite, advice, needs, skip

ULPS = 4
"""How far an output may be from the exact sum, in ulp of the sum of the magnitudes of its terms."""
EPSILON = 2.0**-23
RATES = (0.0, 0.04, 0.3, 1.0)


@dataclass(frozen=True)
class Case:
    """One product.

    Args:
        geometry: how it runs.
        x_shape: of the input.
        weight_shape: of the weight.
    """

    geometry: ProductGeometry
    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]

    def __str__(self) -> str:
        geometry = self.geometry
        how = "" if geometry.kind == "linear" else f", stride {geometry.stride[0]}, padding {geometry.padding[0]}"
        return f"{geometry.kind} of {self.x_shape} with {self.weight_shape}{how}"


def conv_case(
    batch: int, channels: int, outputs: int, size: tuple[int, int], kernel: int = 3, stride: int = 1, padding: int = 1
) -> Case:
    """A convolution."""
    geometry = ProductGeometry("conv2d", (stride, stride), (padding, padding))
    return Case(geometry, (batch, channels, *size), (outputs, channels, kernel, kernel))


CONVOLUTIONS = (
    conv_case(3, 5, 7, (6, 20)),
    conv_case(2, 40, 33, (9, 17)),
    conv_case(2, 64, 32, (8, 8)),
    conv_case(3, 9, 16, (7, 6), stride=2),
    conv_case(2, 33, 8, (8, 11), stride=2, padding=0),
    conv_case(2, 6, 5, (5, 5), padding=0),
    conv_case(2, 6, 5, (4, 5), padding=2),
    conv_case(2, 37, 18, (5, 6), kernel=1, padding=0),
    conv_case(2, 8, 64, (7, 5), kernel=1, stride=2, padding=0),
    conv_case(5, 3, 4, (1, 1)),
)
LINEARS = (
    Case(LINEAR, (5, 7, 33), (17, 33)),
    Case(LINEAR, (300, 130), (70, 130)),
    Case(LINEAR, (1, 1), (1, 1)),
)
UNUSUAL = (
    Case(ProductGeometry("conv2d", groups=2), (2, 6, 5, 5), (4, 3, 3, 3)),
    Case(ProductGeometry("conv2d", dilation=(2, 2)), (2, 3, 8, 8), (4, 3, 3, 3)),
    Case(ProductGeometry("conv2d", stride=(1, 2), padding=(1, 0)), (2, 3, 8, 8), (4, 3, 3, 3)),
    Case(ProductGeometry("conv2d", padding=(3, 3)), (2, 3, 6, 6), (4, 3, 3, 3)),
    Case(ProductGeometry("conv2d", padding=(2, 2)), (2, 3, 8, 8), (4, 3, 5, 5)),
    Case(ProductGeometry("conv2d", stride=(3, 3)), (2, 3, 8, 8), (4, 3, 3, 3)),
)


class ProductChecks(Suite):
    """The part of the backend's suite about `product` and `product_grad`."""

    kind: ClassVar[str] = "backend"

    def _cases(self) -> tuple[Case, ...]:
        """Of the declared kinds."""
        kinds = self.capabilities.spike_products
        unknown = set(kinds) - {"conv2d", "linear"}
        assert not unknown, f"capabilities.spike_products has unknown kinds: {sorted(unknown)}"
        cases = (*(CONVOLUTIONS if "conv2d" in kinds else ()), *(LINEARS if "linear" in kinds else ()))
        return cases or skip("capabilities.spike_products is empty")

    def _spikes(self, case: Case, rate: float, seed: int = 0) -> Iterator[Tensor]:
        """In both memory formats."""
        generator = torch.Generator().manual_seed(seed)
        x = (torch.rand(case.x_shape, generator=generator) < rate).float().to(self._place)
        yield x
        if x.dim() == 4:
            yield x.contiguous(memory_format=torch.channels_last)

    @property
    def _place(self) -> torch.device:
        place: torch.device = self.device  # type: ignore[attr-defined]
        return place

    def _weights(self, case: Case, exact: bool) -> tuple[Tensor, Tensor]:
        """Weight and bias; `exact`: integers times a power of two, whose sums are exact."""
        generator = torch.Generator().manual_seed(1)

        def drawn(*shape: int) -> Tensor:
            if exact:
                return torch.randint(-8, 9, shape, generator=generator).float().div(4).to(self._place)
            return torch.randn(shape, generator=generator).to(self._place)

        return drawn(*case.weight_shape), drawn(case.weight_shape[0])

    def _run(self, backend: Any, case: Case, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """By events, which spikes never refuse."""
        y, outcome = product_on(BACKEND, backend, True, case.geometry, x, weight, bias)
        assert y is not None, f"{case}: spikes run densely, although events were asked for: {outcome.reason}"
        return y

    @advice("add the weights of the inputs that are 1, in float32; start long sums anew every few hundred terms")
    def test_products_agree(self) -> None:
        """Outputs are within 4 ulp of the terms' magnitudes from the exact sums, whatever the rate and format."""
        backend = self.make()
        for case in self._cases():
            weight, bias = self._weights(case, exact=False)
            for rate in RATES:
                for x in self._spikes(case, rate):
                    y = self._run(backend, case, x, weight, bias)
                    wide = [t.double() for t in (x, weight, bias)]
                    right = dense_product(case.geometry, *wide)
                    magnitude = dense_product(case.geometry, wide[0], wide[1].abs(), wide[2].abs())
                    assert y.shape == right.shape, f"{case}: the output is {tuple(y.shape)}"
                    excess = float(((y.double() - right).abs() / (EPSILON * magnitude)).max())
                    assert excess <= ULPS, f"{case} at rate {rate}: an output is {excess:.1f} ulp from its exact sum"
                    expected = dense_product(case.geometry, x, weight, bias).stride()
                    assert y.stride() == expected, f"{case}: strides {y.stride()}, torch's are {expected}"

    @advice("compare with torch case by case: an index is off")
    def test_products_are_exact(self) -> None:
        """With weights and gradients that are integers times a power of two, outputs and gradients equal torch's."""
        backend = self.make()
        for case in self._cases():
            for x in self._spikes(case, 0.3):
                given = [x.clone().requires_grad_(), *(t.requires_grad_() for t in self._weights(case, exact=True))]
                ours = self._run(backend, case, *given)
                theirs = dense_product(case.geometry, *given)
                assert_same(ours, theirs, f"{case}: the output")
                steps = torch.arange(theirs.numel(), device=x.device).reshape(theirs.shape)
                grad = ((steps * 7) % 17 - 8).float() / 8
                for strided in (grad, grad.movedim(-1, 0).contiguous().movedim(0, -1), grad[..., :1].expand_as(grad)):
                    gradients = [torch.autograd.grad(out, given, strided, retain_graph=True) for out in (ours, theirs)]
                    for name, own, right in zip(("x", "the weight", "the bias"), *gradients, strict=True):
                        assert_same(own, right, f"{case}: the gradient of {name}")

    @advice("sum each output in one order that depends on nothing but its own inputs")
    def test_products_do_not_depend_on_the_batch(self) -> None:
        """Equal bits for the batch as a whole, in parts, and for any number of threads."""
        backend = self.make()
        threads = torch.get_num_threads()
        for case in self._cases():
            weight, bias = self._weights(case, exact=False)
            for x in self._spikes(case, 0.3):
                whole = self._run(backend, case, x, weight, bias)
                parts = [self._run(backend, case, x[index : index + 1], weight, bias) for index in range(len(x))]
                assert_same(torch.cat(parts), whole, f"{case}: the output in parts")
                try:
                    for number in (1, 2, 3):
                        torch.set_num_threads(number)
                        again = self._run(backend, case, x, weight, bias)
                        assert_same(again, whole, f"{case}: the output with {number} threads")
                finally:
                    torch.set_num_threads(threads)

    @advice("look at every value of x on each call; return y=None with a reason for others than 0 and 1")
    def test_products_look_at_their_input(self) -> None:
        """A value other than 0 and 1, anywhere, makes the call run densely; so does float64; both with a reason."""
        backend = self.make()
        for case in self._cases():
            weight, bias = self._weights(case, exact=False)
            for x in self._spikes(case, 0.3):
                for value in (0.5, 2.0, -1.0, 1.0 + EPSILON, 1e-40, math.nan, math.inf):
                    for index in {0, x.numel() // 3, x.numel() - 1}:
                        wrong = x.clone()
                        wrong[torch.unravel_index(torch.tensor(index), x.shape)] = value
                        outcome = self._outcome(backend, case, wrong, weight, bias)
                        assert outcome.y is None, f"{case}: takes {value} at {index} for a spike"
                        assert outcome.reason, f"{case}: refuses {value} without a reason"
                        assert not outcome.by_shape, f"{case}: says of {value} that the shape rules the product out"
                outcome = self._outcome(backend, case, x.double(), weight.double(), bias.double())
                if outcome.y is not None:
                    right = dense_product(case.geometry, x.double(), weight.double(), bias.double())
                    error = float((outcome.y - right).abs().max())
                    assert error < 1e-12, f"{case}: float64 is off by {error:.1e}"

    def _outcome(self, backend: Any, case: Case, x: Tensor, weight: Tensor, bias: Tensor | None) -> SpikeProduct:
        outcome: SpikeProduct = backend.product(case.geometry, x, weight, bias, True, False)
        return outcome

    @advice("return y=None with a reason for what there is no kernel for")
    def test_products_at_the_edges(self) -> None:
        """Groups, dilation, other kernels, an empty batch: right, or dense with a reason; strides of x do not count."""
        backend = self.make()
        unusual = UNUSUAL if "conv2d" in self.capabilities.spike_products else ()
        empty = [Case(c.geometry, (0, *c.x_shape[1:]), c.weight_shape) for c in self._cases()]
        for case in (*unusual, *empty):
            weight, bias = self._weights(case, exact=True)
            for x in self._spikes(case, 0.3):
                outcome = self._outcome(backend, case, x, weight, bias)
                if outcome.y is None:
                    assert outcome.reason, f"{case}: refused without a reason"
                else:
                    assert_same(outcome.y, dense_product(case.geometry, x, weight, bias), f"{case}: the output")
        for case in self._cases():
            weight, bias = self._weights(case, exact=True)
            x = next(self._spikes(case, 0.3))
            gaps = torch.stack([x, 1 - x], -1)[..., 0]
            turned = x.movedim(-1, 0).contiguous().movedim(0, -1)
            same = x[:1].expand_as(x)
            for given in (gaps, turned, same):
                right = dense_product(case.geometry, given, weight, None)
                y = self._run(backend, case, given, weight, None)
                assert_same(
                    y.contiguous(), right.contiguous(), f"{case}: the output of x with strides {given.stride()}"
                )

    @advice("start sums from zero, not from what memory holds; write every output")
    def test_products_write_all_their_memory(self) -> None:
        """Memory that held NaN shows nowhere; a NaN weight reaches only the outputs whose input there is 1."""
        backend = self.make()
        for case in self._cases():
            weight, bias = (t.requires_grad_() for t in self._weights(case, exact=True))
            for x in self._spikes(case, 0.3):
                right = self._run(backend, case, x, weight, bias)
                grad = torch.ones_like(right)
                expected = torch.autograd.grad(right, weight, grad)[0]
                with poisoned(tuple(right.shape), case.weight_shape, case.x_shape):
                    y = self._run(backend, case, x, weight, bias)
                    gradient = torch.autograd.grad(y, weight, grad)[0]
                assert_same([y, gradient], [right, expected], f"{case}: [output, gradient] in memory that held NaN")
                ruined = weight.detach().clone()
                ruined.view(-1)[ruined.numel() // 2] = math.nan
                touched = dense_product(case.geometry, x, ruined.isnan().float(), None) > 0
                y = self._run(backend, case, x, ruined, None)
                assert torch.equal(y.isnan(), touched), f"{case}: a NaN weight reaches outputs that no spike leads to"

    @advice("keep the bits, or a copy, never x itself; without `save` keep nothing")
    def test_products_keep_their_own(self) -> None:
        """What is kept for the gradient is no memory of x, is empty without `save`, and inputs stay unwritten."""
        backend = self.make()
        for case in self._cases():
            weight, bias = (t.requires_grad_() for t in self._weights(case, exact=True))
            for x in self._spikes(case, 0.3):
                given = x.clone(memory_format=torch.preserve_format)
                y = self._run(backend, case, given, weight, bias)
                assert_same(given, x, f"{case}: x after the product")
                grad = torch.ones_like(y)
                right = torch.autograd.grad(dense_product(case.geometry, x, weight, bias), weight, grad)[0]
                given.copy_(1 - x)
                gradient = torch.autograd.grad(y, weight, grad)[0]
                assert_same(gradient, right, f"{case}: the gradient after x was overwritten")
                with torch.no_grad():
                    outcome = self._outcome(backend, case, x, weight.detach(), None)
                assert not outcome.kept, f"{case}: without `save` it keeps {len(outcome.kept)} tensors"
                if outcome.rate is not None:
                    rate = float(x.mean())
                    assert abs(outcome.rate - rate) < 1e-6, f"{case}: the rate is {rate}, not {outcome.rate}"

    @needs("deterministic")
    @advice("sum in a fixed order, whatever the number of threads, or declare deterministic=False")
    def test_gradients_of_products_are_deterministic(self) -> None:
        """The gradient of the weight has equal bits in every run and for any number of threads."""
        backend = self.make()
        threads = torch.get_num_threads()
        for case in self._cases():
            weight, bias = (t.requires_grad_() for t in self._weights(case, exact=False))
            for x in self._spikes(case, 0.3):
                gradients = []
                try:
                    for number in (1, 2, 3, 1):
                        torch.set_num_threads(number)
                        y = self._run(backend, case, x, weight, bias)
                        grad = torch.sin(torch.arange(y.numel(), device=x.device)).reshape(y.shape)
                        gradients.append(torch.autograd.grad(y, weight, grad)[0])
                finally:
                    torch.set_num_threads(threads)
                for other in gradients[1:]:
                    assert_same(other, gradients[0], f"{case}: the gradient of the weight")
                wide = [t.detach().double().requires_grad_() for t in (weight, bias)]
                exact = dense_product(case.geometry, x.double(), *wide)
                right = torch.autograd.grad(exact, wide[0], grad.double())[0]
                scale = float(right.abs().max())
                error = float((gradients[0].double() - right).abs().max())
                assert error <= 1e-5 * scale + 1e-6, f"{case}: the gradient of the weight is off by {error:.1e}"

    @needs("spike_bits")
    @advice("channel c is bit c % 32 of word c // 32, positions in the order N, H, W; sum as `product` does")
    def test_products_of_bits(self) -> None:
        """`pack` gives the bits as they are defined, and `product_of_bits` the very numbers of `product`."""
        backend = self.make()
        for case in self._cases():
            weight, bias = self._weights(case, exact=False)
            prepared = backend.prepare(case.geometry, weight)
            for x in self._spikes(case, 0.3):
                given = x if x.dim() == 4 else x.reshape(-1, x.shape[-1])
                bits = backend.pack(given)
                assert bits is not None, f"{case}: spikes are not packed"
                assert_same(bits.floats(), given, f"{case}: the spikes that the bits stand for")
                assert bits.count in (None, int(given.sum())), f"{case}: counts {bits.count} ones"
                wrong = given.clone()
                wrong[torch.unravel_index(torch.tensor(given.numel() - 1), given.shape)] = 0.5
                assert backend.pack(wrong) is None, f"{case}: packs 0.5 as a spike"
                right = backend.product(case.geometry, given, weight, bias, True, False)
                outcome = backend.product_of_bits(case.geometry, bits, weight, bias, prepared, True)
                if right.y is None or prepared is None:
                    continue
                assert outcome.y is not None, f"{case}: bits run densely: {outcome.reason}"
                assert_same(outcome.y, right.y, f"{case}: the product of the bits")
                spread = outcome.y.permute(0, 2, 3, 1) if outcome.y.dim() == 4 else outcome.y
                assert spread.is_contiguous(), f"{case}: the product of bits has strides {outcome.y.stride()}"

    @advice("`note_spikes` is for neurons whose output is 0 or 1 by their equations; bit i is value i in memory")
    def test_written_bits(self) -> None:
        """Bits noted of a neuron's output are those of its values in both formats, and gone after a write to it."""
        case = self._cases()[0]
        weight, bias = self._weights(case, exact=True)
        generator = torch.Generator().manual_seed(3)
        known = 0
        with self.backend() as watched:  # type: ignore[attr-defined]
            # A backend may write bits only once products need them.
            self._run(watched.backend, case, next(iter(self._spikes(case, 0.3))), weight, bias)
            for channels in (32, 24):
                x = torch.rand(3, 4, channels, 16, 16, generator=generator).to(self._place) * 2 - 0.2
                for given in (x, x.movedim(2, -1).contiguous().movedim(-1, 2)):
                    for neuron in _firing():
                        out = neuron(given.requires_grad_()).detach()
                        images = _fold_images(out)
                        bits = bits_of(images, True)
                        if bits is None:
                            continue
                        known += 1
                        what = f"the bits of {type(neuron).__name__} at {tuple(out.shape)}, strides {out.stride()}"
                        assert_same(bits.floats(), images, what)
                        out[0, 0, 0, 0, 0] = 2.0
                        assert bits_of(images, True) is None, f"{what} are still there after a write to it"
        if not known:
            skip("it writes no bits")


def _firing() -> list[Neuron]:
    """Neurons of the backend under test that give zeros and ones, and some that do not."""
    spiking = [LIF(backend=BACKEND), IF(backend=BACKEND, reset="soft", v_threshold=0.7), Counter(backend=BACKEND)]
    # A smooth primitive, and no spikes at all.
    other = [LIF(backend=BACKEND, surrogate=create("surrogate", "sigmoid", spiking=False)), Stateless(backend=BACKEND)]
    return [*spiking, *other]


def _fold_images(x: Tensor) -> Tensor:
    """`[T * B, C, H, W]`, a view of both memory formats."""
    if x.is_contiguous():
        return x.flatten(0, 1)
    return x.movedim(2, -1).flatten(0, 1).movedim(-1, 1)
