"""Spike products on the CPU: 3×3 and 1×1 convolutions and linear maps as sums over lists of events, `c/products.c`."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikecore.backends.kit import Layout, bits_of, note_bits, note_spikes
from spikecore.errors import BackendError
from spikecore.interfaces import ProductGeometry, SpikeBits, SpikeProduct
from spikecore_cpu_backend.crossover import Crossovers, ShapeClass
from spikecore_cpu_backend.kernels import Runtime
from spikecore_cpu_backend.memory import Recycler
from spikecore_cpu_backend.source import products_source

WORD = 32
"""Channels of a word of bits."""
LEAST_TERMS = 1 << 26
"""Multiplications of a dense product below which looking at its input costs too much: it takes about a millisecond."""
MEASURED_TERMS = 1 << 27
"""Multiplications of the dense product that is timed for a crossover: a few milliseconds."""
SAMPLES = 128
"""Runs of 32 values that are looked at before all of them are packed."""
PLANE_SAMPLES = 16
"""The same of planes, of which a word of 32 channels is 32 places in memory."""
DOUBT = 0.03
"""By how much a sample may be off: where the share of all ones is further above the crossover, the product is dense."""
GRAD_POSITIONS = 256
GRAD_BYTES = 60 << 10
LIST_WORDS = 1 << 18
"""Most 16-bit words of the lists of a backward pass that are held at once."""
WIDEST = 1 << 14
"""Columns of an image: events of a tile, which holds whole rows, are numbered in 16 bits."""
TILE_POSITIONS = 512
"""Positions of a tile: its lists and sums fit in the second-level cache, and a slice of the weights is used often."""


def _words(name: str, fields: str) -> Any:
    """A struct of 64-bit words, as `c/products.c` declares it."""
    return type(name, (ctypes.Structure,), {"_fields_": [(field, ctypes.c_int64) for field in fields.split()]})


PackJob = _words(
    "PackJob", "x bits num_positions channels words num_images block num_blocks num_threads is_foreign count"
)
OrderJob = _words("OrderJob", "source bits num_positions channels words num_images num_threads")
ProductJob = _words(
    "ProductJob",
    "bits weight bias y slices num_images height width channels words outputs out_height out_width kernel stride "
    "padding channels_first num_threads rows has_slices weight_last failed",
)


GradJob = _words(
    "GradJob",
    "bits grad grad_weight sums lists num_images height width channels words outputs out_height out_width kernel "
    "stride padding channels_first num_threads rows segment failed first_tile weight_last",
)


@dataclass(frozen=True)
class Sizes:
    """A product as the kernels see it; a linear map is a 1×1 convolution of images of one pixel."""

    num_images: int
    height: int
    width: int
    channels: int
    outputs: int
    kernel: int
    stride: int
    padding: int

    @property
    def words(self) -> int:
        """Of bits, for each position."""
        return -(-self.channels // WORD)

    @property
    def common(self) -> dict[str, int]:
        """What the jobs of the forward and backward pass share."""
        return {
            "num_images": self.num_images,
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "words": self.words,
            "outputs": self.outputs,
            "out_height": self.out_height,
            "out_width": self.out_width,
            "kernel": self.kernel,
            "stride": self.stride,
            "padding": self.padding,
        }

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return (self.height + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return (self.width + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def num_positions(self) -> int:
        """Of the input."""
        return self.num_images * self.height * self.width

    @property
    def num_terms(self) -> int:
        """Multiplications of the dense product."""
        return self.num_images * self.out_height * self.out_width * self.outputs * self.channels * self.kernel**2


def sizes_of(geometry: ProductGeometry, x_shape: Sequence[int], weight_shape: Sequence[int]) -> Sizes | str:
    """The sizes, or why there is no kernel for such a product."""
    if geometry.kind == "linear":
        return Sizes(math.prod(x_shape[:-1]), 1, 1, x_shape[-1], weight_shape[0], 1, 1, 0)
    if geometry.groups != 1:
        return f"no kernel for {geometry.groups} groups"
    kernel = tuple(weight_shape[2:])
    if kernel not in ((1, 1), (3, 3)):
        return f"no kernel for a convolution of {kernel[0]}×{kernel[1]}"
    if kernel == (3, 3) and geometry.dilation != (1, 1):
        return "no kernel for a dilation"
    (stride, stride_w), (padding, padding_w) = geometry.stride, geometry.padding
    if stride != stride_w or stride not in (1, 2):
        return f"no kernel for stride {geometry.stride}"
    if padding != padding_w or padding > (2 if kernel == (3, 3) else 0):
        return f"no kernel for padding {geometry.padding}"
    if len(x_shape) != 4:
        return "no batch"
    sizes = Sizes(x_shape[0], x_shape[2], x_shape[3], x_shape[1], weight_shape[0], kernel[0], stride, padding)
    if sizes.width > WIDEST:
        return f"no kernel for images of more than {WIDEST} columns"
    if min(sizes.out_height, sizes.out_width) < 1 or weight_shape[1] != sizes.channels:
        return "shapes that torch refuses"
    return sizes


class Products:
    """The kernels.

    Args:
        runtime: whose threads they use.
        recycler: of memory for outputs.
        crossover: see `CPUBackend.Config`.

    Attributes:
        runs_by_events: some product has run by events in this process, so that neurons should write bits.

    Raises:
        BackendError: they do not compile or load.
    """

    def __init__(self, runtime: Runtime, recycler: Recycler, crossover: float | None) -> None:
        self.recycler = recycler
        source = products_source()
        self.library = runtime.cache.load(source)
        identity = f"{runtime.cache.compiler.identity}\n{source}"
        self.crossovers = Crossovers(runtime.cache.store.folder, identity, crossover)
        self.library.sp_sample.restype = ctypes.c_int64
        self.library.sp_agree.restype = ctypes.c_int
        self.runs_by_events = False
        for name in ("sp_slice_floats", "sp_list_words", "sp_sum_floats", "sp_count"):
            getattr(self.library, name).restype = ctypes.c_int64
        share, scratch = (
            ctypes.cast(getattr(runtime.library, name), ctypes.c_void_p) for name in ("sc_share", "sc_scratch")
        )
        self.library.sp_prepare(share, scratch)

    def sample(self, x: Tensor) -> float | None:
        """About the share of ones, from a few of the values; None where one of these is neither 0 nor 1."""
        if x.numel() < WORD or not _is_dense(x):
            return 0.0
        runs = min(SAMPLES, x.numel() // WORD)
        count = self.library.sp_sample(ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(x.numel()), ctypes.c_int64(runs))
        return None if count < 0 else count / (runs * WORD)

    def crossover(self, geometry: ProductGeometry, sizes: Sizes, channels_first: bool, save: bool) -> float:
        """The rate up to which such products run by events."""
        positions = sizes.num_images * sizes.out_height * sizes.out_width
        shape = ShapeClass(
            sizes.kernel, sizes.stride, sizes.channels, sizes.outputs, positions.bit_length() - 1, channels_first, save,
            torch.get_num_threads(),
        )  # fmt: skip
        return self.crossovers.of(shape, partial(self._candidates, geometry, sizes, channels_first, save))

    def _candidates(
        self, geometry: ProductGeometry, sizes: Sizes, channels_first: bool, save: bool, rate: float
    ) -> tuple[Callable[[], object], Callable[[], object]]:
        """A dense product and the same one by events, on random spikes; as many images as a few milliseconds allow."""
        sizes = replace(
            sizes, num_images=max(1, min(sizes.num_images, MEASURED_TERMS * sizes.num_images // sizes.num_terms))
        )
        generator = torch.Generator("cpu").manual_seed(0)
        if geometry.kind == "linear":
            shape: tuple[int, ...] = (sizes.num_images, sizes.channels)
            weight_shape: tuple[int, ...] = (sizes.outputs, sizes.channels)
        else:
            shape = (sizes.num_images, sizes.channels, sizes.height, sizes.width)
            weight_shape = (sizes.outputs, sizes.channels, sizes.kernel, sizes.kernel)
        x = (torch.rand(shape, generator=generator, device="cpu") < rate).float()
        if len(shape) == 4 and not channels_first:
            x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.randn(weight_shape, generator=generator, device="cpu")
        grad = torch.empty_like(self._dense(geometry, x, weight)).fill_(1.0)

        def dense() -> None:
            self._dense(geometry, x, weight)
            if save:
                _dense_weight_gradient(geometry, x, grad, weight)

        def event() -> None:
            packed = self.pack(x, sizes)
            assert packed is not None
            y, planes = empty_output(self.recycler, geometry, sizes, x)
            self.multiply(sizes, packed.words, weight, None, y, planes)
            if save:
                self.weight_gradient(sizes, packed.words, grad, weight)

        return dense, event

    @staticmethod
    def _dense(geometry: ProductGeometry, x: Tensor, weight: Tensor) -> Tensor:
        if geometry.kind == "linear":
            return torch.nn.functional.linear(x, weight)
        return torch.nn.functional.conv2d(x, weight, None, geometry.stride, geometry.padding)

    def pack(self, x: Tensor, sizes: Sizes) -> SpikeBits | None:
        """The bits of x; None where a value is neither 0 nor 1."""
        channels_first = _has_planes(x, sizes)
        if channels_first or x.dim() != 4 or sizes.height * sizes.width == 1:
            x = x.contiguous()
        bits = self.recycler.empty((sizes.num_positions * sizes.words,), torch.int32)
        job = PackJob(
            x=x.data_ptr(),
            bits=bits.data_ptr(),
            num_positions=sizes.height * sizes.width if channels_first else sizes.num_positions,
            channels=sizes.channels,
            words=sizes.words,
            num_images=sizes.num_images,
            num_threads=torch.get_num_threads(),
        )
        self.library.sp_pack(ctypes.byref(job), int(channels_first))
        return (
            None
            if job.is_foreign
            else SpikeBits(bits, sizes.channels, sizes.height, sizes.width, job.count, x.dim() == 4)
        )

    def agree(self, x: Tensor, bits: SpikeBits) -> bool:
        """Do the bits, as far as a sample tells, belong to x, whose memory is dense?"""
        channels_first = bits.is_image and not x.is_contiguous(memory_format=torch.channels_last)
        positions = bits.height * bits.width
        job = PackJob(
            x=x.data_ptr(),
            bits=bits.words.data_ptr(),
            num_positions=positions if channels_first else positions * bits.num_images,
            channels=bits.channels,
            words=bits.num_words,
            num_images=bits.num_images,
        )
        samples = PLANE_SAMPLES if channels_first else SAMPLES
        return bool(self.library.sp_agree(ctypes.byref(job), int(channels_first), ctypes.c_int64(samples)))

    def order(self, memory_bits: Tensor, layout: Layout) -> SpikeBits:
        """Bits in the order of memory as those of a layout; see `Arrange` of core."""
        num_images, channels, height, width = layout if len(layout) == 4 else (layout[1] // layout[0], layout[0], 1, 1)
        is_image = len(layout) == 4
        words = -(-channels // WORD)
        count = num_images * height * width * words
        if not is_image and channels % WORD == 0:
            return SpikeBits(memory_bits[:count], channels, is_image=False)
        bits = self.recycler.empty((count,), torch.int32)
        job = OrderJob(
            source=memory_bits.data_ptr(),
            bits=bits.data_ptr(),
            num_positions=height * width if is_image else num_images,
            channels=channels,
            words=words,
            num_images=num_images,
            num_threads=torch.get_num_threads(),
        )
        self.library.sp_order(ctypes.byref(job), int(is_image))
        return SpikeBits(bits, channels, height, width, is_image=is_image)

    def count(self, words: Tensor) -> int:
        """How many bits are 1."""
        return int(self.library.sp_count(ctypes.c_void_p(words.data_ptr()), ctypes.c_int64(words.numel())))

    def multiply(
        self, sizes: Sizes, bits: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, channels_first: bool,
        prepared: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Write the product of bits and weight to y; `prepared` is the weight as `prepare` gives it."""
        threads = torch.get_num_threads()
        weight, weight_last = _readable(weight)
        bias = None if bias is None else bias.contiguous()
        job = ProductJob(
            bits=bits.data_ptr(),
            weight=weight.data_ptr(),
            bias=0 if bias is None else bias.data_ptr(),
            y=y.data_ptr(),
            **sizes.common,
            channels_first=int(channels_first),
            num_threads=threads,
            rows=_tile_rows(sizes, threads),
            weight_last=weight_last,
        )
        if prepared is None:
            slices, job.slices = self._aligned(self.library.sp_slice_floats(ctypes.byref(job)))
        else:
            slices, job.slices, job.has_slices = prepared, prepared.data_ptr(), 1
        if self.library.sp_product(ctypes.byref(job)):
            raise BackendError("no memory for the lists of a spike product")
        del slices

    def prepare(self, sizes: Sizes, weight: Tensor) -> Tensor:
        """The weight in the order of the kernels."""
        weight, weight_last = _readable(weight)
        job = ProductJob(
            weight=weight.data_ptr(), **sizes.common, num_threads=torch.get_num_threads(), weight_last=weight_last
        )
        # Zeros: what stands for channels that fill up the last word is read by no event, but belongs to the tensor.
        slices = self.recycler.empty((self.library.sp_slice_floats(ctypes.byref(job)),), torch.float32).zero_()
        job.slices = slices.data_ptr()
        self.library.sp_turn(ctypes.byref(job))
        return slices

    def weight_gradient(self, sizes: Sizes, bits: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
        """Of the product of these bits."""
        is_image = grad.dim() == 4 and sizes.out_height * sizes.out_width > 1
        channels_first = is_image and not grad.is_contiguous(memory_format=torch.channels_last)
        grad = grad.contiguous() if channels_first or not is_image else grad
        weight_last = _is_last(weight)
        grad_weight = torch.empty(
            weight.shape,
            dtype=torch.float32,
            device="cpu",
            memory_format=torch.channels_last if weight_last else torch.contiguous_format,
        )
        rows = _grad_rows(sizes)
        job = GradJob(
            bits=bits.data_ptr(),
            grad=grad.data_ptr(),
            grad_weight=grad_weight.data_ptr(),
            **sizes.common,
            channels_first=int(channels_first),
            num_threads=torch.get_num_threads(),
            rows=rows,
            weight_last=int(weight_last),
        )
        tiles = -(-sizes.num_images * (sizes.height if sizes.kernel == 3 else sizes.out_height) // rows)
        list_words = self.library.sp_list_words(ctypes.byref(job))
        job.segment = max(1, min(tiles, LIST_WORDS // list_words))
        lists, job.lists = self._aligned(job.segment * list_words // 2)
        sums, job.sums = self._aligned(self.library.sp_sum_floats(ctypes.byref(job)))
        if self.library.sp_weight_gradient(ctypes.byref(job)):
            raise BackendError("no memory for the gradient of a spike product")
        del lists, sums
        return grad_weight

    def _aligned(self, count: int) -> tuple[Tensor, int]:
        """Floats that begin on a cache line: their owner and their address."""
        owner = self.recycler.empty((count + 16,), torch.float32)
        return owner, -(-owner.data_ptr() // 64) * 64


def _is_last(weight: Tensor) -> bool:
    """Do the channels of a convolution's weight lie side by side?"""
    return weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def _readable(weight: Tensor) -> tuple[Tensor, int]:
    """The weight, or a copy, as kernels read it; 1 where its channels lie side by side."""
    return (weight, 1) if _is_last(weight) else (weight.contiguous(), 0)


def _has_planes(x: Tensor, sizes: Sizes) -> bool:
    """Are images read as one plane for each channel, not as positions with their channels side by side?"""
    is_image = x.dim() == 4 and sizes.height * sizes.width > 1
    return is_image and not x.is_contiguous(memory_format=torch.channels_last)


def _is_dense(x: Tensor) -> bool:
    """Do the values fill their memory without gaps?"""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _dense_weight_gradient(geometry: ProductGeometry, x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    if geometry.kind == "linear":
        return grad.t() @ x
    gradient: Tensor = torch.ops.aten.convolution_backward(
        grad, x, weight, None, geometry.stride, geometry.padding, geometry.dilation, False, [0, 0], 1,
        [False, True, False],
    )[1]  # fmt: skip
    return gradient


def _tile_rows(sizes: Sizes, threads: int) -> int:
    """Rows of output of a tile; every thread should get two tiles. No result depends on it."""
    rows = max(1, TILE_POSITIONS // max(sizes.out_width, 1))
    all_rows = sizes.num_images * sizes.out_height
    return max(1, min(rows, -(-all_rows // (2 * threads)))) if threads > 1 else rows


def _grad_rows(sizes: Sizes) -> int:
    """Rows of a tile of the weight's gradient, so that the gradient of y around it stays in the nearer caches."""
    if sizes.kernel == 1:
        return max(1, GRAD_POSITIONS // sizes.out_width)
    columns = sizes.width + 2 if sizes.stride == 1 else (sizes.width + sizes.padding) // 2 + 2
    around = 2 if sizes.stride == 1 else 1
    lines = GRAD_BYTES // (64 * columns)
    lines_of_image = sizes.height // sizes.stride + around
    if lines_of_image <= lines:
        return lines // lines_of_image * sizes.height
    rows = max(1, lines - around) * sizes.stride
    num_tiles = -(-sizes.height // rows)  # of one image, of about equal sizes
    return -(-sizes.height // num_tiles)


def empty_output(recycler: Recycler, geometry: ProductGeometry, sizes: Sizes, x: Tensor) -> tuple[Tensor, bool]:
    """The output, in the memory format of x; and whether it has one plane for each channel."""
    if geometry.kind == "linear":
        return recycler.empty((*x.shape[:-1], sizes.outputs), torch.float32), False
    shape = (sizes.num_images, sizes.outputs, sizes.out_height, sizes.out_width)
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        rows = recycler.empty((shape[0], shape[2], shape[3], shape[1]), torch.float32)
        return rows.permute(0, 3, 1, 2), False
    return recycler.empty(shape, torch.float32), True


def known_bits(products: Products, x: Tensor, is_image: bool) -> SpikeBits | None:
    """The bits of x, if they are known and were not written past: through `.data`, or from another library."""
    known = bits_of(x, is_image)
    return known if known is not None and products.agree(x, known) else None


class WrittenBits:
    """Room for the bits of a neuron's output, which its kernel writes.

    Args:
        products: that will read them.
        num_values: of the output.
    """

    def __init__(self, products: Products, num_values: int) -> None:
        self._products = products
        # The kernels of products read eight bytes at a time.
        self._words = products.recycler.empty((-(-num_values // WORD) + 2,), torch.int32)

    @property
    def address(self) -> int:
        """Where they go."""
        return self._words.data_ptr()

    def note(self, out: Tensor) -> None:
        """Remember them as those of `out`."""
        note_spikes(out, partial(self._products.order, self._words))


def run_product(
    products: Products, geometry: ProductGeometry, x: Tensor, weight: Tensor, bias: Tensor | None, always: bool,
    save: bool,
) -> SpikeProduct:  # fmt: skip
    """See `interfaces.backend.Backend.product`."""
    if x.dtype != torch.float32 or weight.dtype != torch.float32:
        reason = f"kernels are for float32, x is {x.dtype} and the weight {weight.dtype}"
        return SpikeProduct(None, reason=reason, by_shape=True)
    if bias is not None and bias.dtype != torch.float32:
        return SpikeProduct(None, reason=f"kernels are for float32, the bias is {bias.dtype}")
    sizes = sizes_of(geometry, x.shape, weight.shape)
    if isinstance(sizes, str):
        return SpikeProduct(None, reason=sizes, by_shape=True)
    if not x.numel() or not weight.numel():
        return SpikeProduct(None, reason="nothing to multiply", by_shape=True)
    if sizes.num_terms < LEAST_TERMS and not always:
        return SpikeProduct(None, reason="too small to pay", by_shape=True)
    crossover = 1.0
    if not always:
        # Before the sample decides, lest the first call of a class, which measures, be different.
        crossover = products.crossover(geometry, sizes, _has_planes(x, sizes), save)
        if not crossover:
            return SpikeProduct(None, crossover=crossover, reason="events are not faster for such shapes")
    sampled = products.sample(x)
    if sampled is None:
        return SpikeProduct(None, reason="the input has values other than 0 and 1")
    dense = SpikeProduct(None, rate=sampled, crossover=crossover, reason="so many ones are faster densely")
    # The sample alone decides near the crossover, where both ways take equally long, and packing only to decline would
    # cost the most. So the choice depends on the values of x, and not on whether their bits are known.
    if sampled > crossover:
        return dense
    known = known_bits(products, x, geometry.kind == "conv2d")
    spikes = products.pack(x, sizes) if known is None else known
    if spikes is None:
        return SpikeProduct(None, reason="the input has values other than 0 and 1")
    if known is None:
        note_bits(x, replace(spikes, is_image=geometry.kind == "conv2d"), products.recycler.owns(x))
    bits, count = spikes.words, spikes.count
    if count is None:
        count = products.count(bits)
    rate = count / x.numel()
    if rate > crossover + DOUBT:
        return replace(dense, rate=rate)
    y, channels_first = empty_output(products.recycler, geometry, sizes, x)
    products.multiply(sizes, bits, weight, bias, y, channels_first)
    products.runs_by_events = True
    kept = [bits] if save else []
    if always:
        return SpikeProduct(y, kept, rate, reason="asked for")
    return SpikeProduct(y, kept, rate, crossover, "fewer ones than the crossover")


def run_product_grad(
    products: Products, geometry: ProductGeometry, kept: Sequence[Tensor], x_shape: Sequence[int], grad: Tensor,
    weight: Tensor,
) -> Tensor:  # fmt: skip
    """See `interfaces.backend.Backend.product_grad`."""
    sizes = sizes_of(geometry, x_shape, weight.shape)
    if isinstance(sizes, str):
        raise BackendError(f"no product of this kind ran here: {sizes}")
    return products.weight_gradient(sizes, kept[0], grad, weight)


def pack_spikes(products: Products, x: Tensor) -> SpikeBits | None:
    """See `interfaces.backend.Backend.pack`."""
    if x.dtype != torch.float32 or not x.is_cpu or x.dim() not in (2, 4) or not x.numel():
        return None
    products.runs_by_events = True
    known = known_bits(products, x, x.dim() == 4)
    if known is not None:
        return known
    height, width = (x.shape[2], x.shape[3]) if x.dim() == 4 else (1, 1)
    bits = products.pack(x, Sizes(x.shape[0], height, width, x.shape[1], 1, 1, 1, 0))
    if bits is not None:
        note_bits(x, bits, products.recycler.owns(x))
    return bits


def prepare_weight(products: Products, geometry: ProductGeometry, weight: Tensor) -> Tensor | None:
    """See `interfaces.backend.Backend.prepare`."""
    if weight.dtype != torch.float32 or not weight.is_cpu or not weight.numel():
        return None
    if geometry.kind == "linear":
        sizes = sizes_of(geometry, (1, weight.shape[1]), weight.shape)
    else:
        sizes = sizes_of(geometry, (1, weight.shape[1] * geometry.groups, 9, 9), weight.shape)
    return None if isinstance(sizes, str) else products.prepare(sizes, weight)


def run_product_of_bits(
    products: Products, geometry: ProductGeometry, bits: SpikeBits, weight: Tensor, bias: Tensor | None,
    prepared: Tensor, always: bool,
) -> SpikeProduct:  # fmt: skip
    """See `interfaces.backend.Backend.product_of_bits`."""
    shape = (
        (bits.num_images, bits.channels, bits.height, bits.width) if bits.is_image else (bits.num_images, bits.channels)
    )
    if bias is not None and bias.dtype != torch.float32:
        return SpikeProduct(None, reason=f"kernels are for float32, the bias is {bias.dtype}")
    sizes = sizes_of(geometry, shape, weight.shape)
    if isinstance(sizes, str):
        return SpikeProduct(None, reason=sizes)
    if sizes.num_terms < LEAST_TERMS and not always:
        return SpikeProduct(None, reason="too small to pay")
    rate = (products.count(bits.words) if bits.count is None else bits.count) / math.prod(shape)
    crossover = 1.0 if always else products.crossover(geometry, sizes, False, False)
    if rate > crossover or not crossover:
        return SpikeProduct(None, rate=rate, crossover=crossover, reason="so many ones are faster densely")
    if bits.is_image:
        rows = products.recycler.empty(
            (sizes.num_images, sizes.out_height, sizes.out_width, sizes.outputs), torch.float32
        )
        y = rows.permute(0, 3, 1, 2)
    else:
        rows = y = products.recycler.empty((sizes.num_images, sizes.outputs), torch.float32)
    products.multiply(sizes, bits.words, weight, bias, rows, False, prepared)
    return SpikeProduct(y, [], rate, crossover, "the spikes came as bits")
