"""Faults in spike products, planted in a sound backend; each is caught by the check that is meant for it."""

import math
from dataclasses import replace

import pytest
import torch

from spikecore.backends.products import dense_product
from spikecore.backends.spike_bits import note_spikes
from spikecore.dynamics import gives_spikes
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.interfaces.products import SpikeBits, SpikeProduct
from spikecore.registry import Blocking, Registry, use
from tests.conformance.planting import assert_caught, assert_passes, name_of, table
from tests.conformance.toys import ToyBackend

FAULTS, fault = table()
FOREIGN = SpikeProduct(None, reason="not spikes")


class ToyProducts(ToyBackend):
    """A sound backend with spike products: sums in float64, in which no order shows; keeps the input as bytes."""

    capabilities = BackendCapabilities(spike_products=("conv2d", "linear"))

    def product(self, geometry, x, weight, bias, always, save):
        if x.dtype != torch.float32 or geometry.groups != 1 or not x.numel():
            return SpikeProduct(None, reason="no kernel")
        if not self.is_spikes(x):
            return FOREIGN
        y = self.multiply(geometry, x, weight, bias)
        return SpikeProduct(y, [self.keep(x)] if save else [], rate=float(x.double().mean()))

    def is_spikes(self, x):
        return bool(((x == 0) | (x == 1)).all())

    def keep(self, x):
        return x.to(torch.uint8)

    def multiply(self, geometry, x, weight, bias):
        clean = weight.nan_to_num(0.0, 0.0, 0.0)
        wide = [t if t is None else t.double() for t in (x, clean, bias)]
        y = dense_product(geometry, *wide)
        met = dense_product(geometry, x.double(), (weight != clean).double(), None) > 0
        return torch.where(met, math.nan, y).float()

    def product_grad(self, geometry, kept, x_shape, grad, weight):
        with torch.enable_grad():
            wide = weight.double().requires_grad_()
            y = dense_product(geometry, kept[0].double(), wide, None)
            return torch.autograd.grad(y, wide, grad.double())[0].float()


class ToyBits(ToyProducts):
    """A sound backend that packs spikes and multiplies bits."""

    capabilities = BackendCapabilities(spike_products=("conv2d", "linear"), spike_bits=True)

    def pack(self, x):
        if not self.is_spikes(x):
            return None
        rows = x.permute(0, 2, 3, 1).flatten(0, 2) if x.dim() == 4 else x
        padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % 32)).long().unflatten(1, (-1, 32))
        words = (padded << torch.arange(32)).sum(-1).to(torch.int32)
        height, width = x.shape[2:] if x.dim() == 4 else (1, 1)
        return SpikeBits(words.reshape(-1), x.shape[1], height, width, int(x.sum()), x.dim() == 4)

    def prepare(self, geometry, weight):
        return weight.clone()

    def product_of_bits(self, geometry, bits, weight, bias, prepared, always):
        y = self.multiply(geometry, bits.floats(), prepared, bias)
        return SpikeProduct(y.contiguous(memory_format=torch.channels_last) if y.dim() == 4 else y)


class WritesBits(ToyBits):
    """A sound backend that notes the bits of a neuron's output."""

    def run(self, key, x, states, params, save, carry):
        results = super().run(key, x, states, params, save, carry)
        if self.gives_spikes(key, results[0]):
            self.note(results[0])
        return results

    def gives_spikes(self, key, out):
        return gives_spikes(self.program(key).forward, "out")

    def note(self, out):
        values = out.detach().clone().flatten()  # a copy, as a kernel would write it: the output may change later
        note_spikes(out, lambda layout: self.arrange(values, layout))

    def arrange(self, values, layout):
        if len(layout) == 2:
            return self.pack(values.view(-1, layout[0]))
        return self.pack(values.view(layout))


@fault("test_written_bits", "the bits of LIF")
class WritesOneLayout(WritesBits):
    """gives planes as if their channels lay side by side"""

    def arrange(self, values, layout):
        return self.pack(values.view(-1, layout[0] if len(layout) == 2 else layout[1]))


@fault("test_written_bits", "the bits of LIF")
class WritesBitsOfAnything(WritesBits):
    """takes what a neuron gives for spikes where it is not 0, whatever its equations are"""

    def gives_spikes(self, key, out):
        return True

    def pack(self, x):
        return super().pack((x != 0).float())


@fault("test_written_bits", "the bits of IF")
class WritesBitsOfAnotherCall(WritesBits):
    """writes all bits to one buffer, which the next call overwrites"""

    first = None

    def note(self, out):
        values = out.detach().clone().flatten()
        if self.first is None or self.first.numel() != values.numel():
            self.first = values
        note_spikes(out, lambda layout: self.arrange(self.first, layout))


@fault("test_products_of_bits", "the spikes that the bits stand for")
class HighestBitFirst(ToyBits):
    """packs the first channel into the highest bit"""

    def pack(self, x):
        return super().pack(x.flip(1))


@fault("test_products_of_bits", "packs 0.5")
class RoundsToSpikes(ToyBits):
    """takes what is not 0 for a spike"""

    def pack(self, x):
        return super().pack((x != 0).float())


@fault("test_products_of_bits", "counts")
class MiscountsBits(ToyBits):
    """counts the words"""

    def pack(self, x):
        bits = super().pack(x)
        return None if bits is None else replace(bits, count=bits.words.numel())


@fault("test_products_of_bits", "the product of the bits")
class PreparesInHalfPrecision(ToyBits):
    """keeps prepared weights in bfloat16"""

    def prepare(self, geometry, weight):
        return weight.bfloat16().float()


@fault("test_products_agree", "ulp from its exact sum")
class HalfPrecision(ToyProducts):
    """multiplies in bfloat16"""

    def multiply(self, geometry, x, weight, bias):
        return super().multiply(geometry, x, weight.bfloat16().float(), bias)


@fault("test_products_agree", "strides")
class ForgetsTheFormat(ToyProducts):
    """its output is contiguous whatever the input is"""

    def multiply(self, geometry, x, weight, bias):
        return super().multiply(geometry, x, weight, bias).contiguous()


@fault("test_products_agree", "although events were asked for")
class RefusesSpikes(ToyProducts):
    """runs densely although events were asked for, above some rate"""

    def product(self, geometry, x, weight, bias, always, save):
        if x.mean() > 0.5:
            return SpikeProduct(None, reason="too many")
        return super().product(geometry, x, weight, bias, always, save)


@fault("test_products_are_exact", "the output")
class ForgetsTheBias(ToyProducts):
    """leaves the bias out"""

    def multiply(self, geometry, x, weight, bias):
        return super().multiply(geometry, x, weight, None)


@fault("test_products_are_exact", "the gradient of the weight")
class TurnsTheKernel(ToyProducts):
    """wrong gradient: the kernel's rows come out upside down"""

    def product_grad(self, geometry, kept, x_shape, grad, weight):
        gradient = super().product_grad(geometry, kept, x_shape, grad, weight)
        return gradient if geometry.kind == "linear" else gradient.flip(2)


@fault("test_products_are_exact", "the gradient of the weight")
class ReadsGradientsAsContiguous(ToyProducts):
    """reads a gradient by its memory, not by its strides"""

    def product_grad(self, geometry, kept, x_shape, grad, weight):
        same = grad.is_contiguous() or (grad.dim() == 4 and grad.is_contiguous(memory_format=torch.channels_last))
        return super().product_grad(geometry, kept, x_shape, grad if same else torch.zeros_like(grad), weight)


@fault("test_products_do_not_depend_on_the_batch", "in parts")
class DependsOnTheBatch(ToyProducts):
    """sums in an order that depends on the size of the batch"""

    def multiply(self, geometry, x, weight, bias):
        y = super().multiply(geometry, x, weight, bias)
        return y * (1 + 2.0**-22) if len(x) > 1 else y


@fault("test_products_do_not_depend_on_the_batch", "threads")
class DependsOnThreads(ToyProducts):
    """sums in an order that depends on the number of threads"""

    def multiply(self, geometry, x, weight, bias):
        y = super().multiply(geometry, x, weight, bias)
        return y * (1 + 2.0**-22) if torch.get_num_threads() == 3 else y


@fault("test_products_look_at_their_input", "for a spike")
class LooksAtTheFirstValues(ToyProducts):
    """looks only at the beginning of the input"""

    def is_spikes(self, x):
        return super().is_spikes(x.reshape(-1)[: x.numel() // 2])


@fault("test_products_look_at_their_input", "takes nan")
class MissesNaN(ToyProducts):
    """takes NaN for a spike, since it compares the wrong way round"""

    def is_spikes(self, x):
        return not bool(((x != 0) & (x != 1) & ~x.isnan()).any())


@fault("test_products_look_at_their_input", "without a reason")
class GivesNoReason(ToyProducts):
    """refuses without a reason"""

    def product(self, *arguments):
        outcome = super().product(*arguments)
        return SpikeProduct(None) if outcome is FOREIGN else outcome


@fault("test_products_look_at_their_input", "the shape rules the product out")
class RefusesForGood(ToyProducts):
    """blames the shape for values, so that no layer would ask again"""

    def product(self, *arguments):
        outcome = super().product(*arguments)
        return replace(outcome, by_shape=True) if outcome is FOREIGN else outcome


@fault("test_products_at_the_edges", "the output")
class IgnoresDilation(ToyProducts):
    """takes a dilated kernel for a plain one of the same size of output"""

    def multiply(self, geometry, x, weight, bias):
        y = super().multiply(geometry, x, weight, bias)
        return y + 1 if geometry.dilation != (1, 1) else y


@fault("test_products_write_all_their_memory", "a NaN weight")
class MultipliesZeros(ToyProducts):
    """multiplies zeros by the weights too"""

    def multiply(self, geometry, x, weight, bias):
        return dense_product(geometry, x, weight, bias)


@fault("test_products_write_all_their_memory", "in memory that held NaN")
class AddsToWhatIsThere(ToyProducts):
    """adds to memory that it did not clear"""

    def product_grad(self, geometry, kept, x_shape, grad, weight):
        room = torch.empty(weight.shape)
        return room.add_(super().product_grad(geometry, kept, x_shape, grad, weight)) if room.isnan().any() else (
            super().product_grad(geometry, kept, x_shape, grad, weight)
        )  # fmt: skip


@fault("test_products_keep_their_own", "modified by an inplace operation")
class KeepsTheInput(ToyProducts):
    """keeps x itself, which its owner may overwrite"""

    def keep(self, x):
        return x


@fault("test_products_keep_their_own", "without `save`")
class KeepsForNothing(ToyProducts):
    """keeps bits that nobody will ask for"""

    def product(self, geometry, x, weight, bias, always, save):
        return super().product(geometry, x, weight, bias, always, True)


@fault("test_products_keep_their_own", "the rate is")
class CountsWrong(ToyProducts):
    """its rate is that of the zeros"""

    def product(self, *arguments):
        outcome = super().product(*arguments)
        return SpikeProduct(outcome.y, outcome.kept, None if outcome.rate is None else 1 - outcome.rate)


@fault("test_gradients_of_products_are_deterministic", "the gradient of the weight")
class GradientDependsOnThreads(ToyProducts):
    """sums the weight's gradient in an order that depends on the number of threads"""

    def product_grad(self, geometry, kept, x_shape, grad, weight):
        gradient = super().product_grad(geometry, kept, x_shape, grad, weight)
        return gradient * (1 + 2.0**-22) if torch.get_num_threads() == 2 else gradient


@pytest.fixture
def registry():
    with use(Registry(blocking=Blocking())) as own:
        yield own


CHECKS = sorted({fault.check for fault in FAULTS})


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_the_fault_is_caught(fault, registry):
    assert_caught(fault, registry)


@pytest.mark.parametrize("check", CHECKS)
def test_the_sound_backend_passes(check, registry):
    assert_passes("backend", check, WritesBits, registry)
