"""The table of bits: never those of another tensor, of an older value or of another layout; and their arithmetic."""

import gc
import weakref

import pytest
import torch
from torch.nn import functional

from spikecore.backends import spike_bits
from spikecore.backends.spike_bits import bits_of, forget_bits, note_bits
from spikecore.interfaces import SpikeBits
from spikecore.nn import MaxPool2d


def spikes(*shape, rate=0.3):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < rate).float()


def pack(x):
    """By the definition, value by value; x `[N, C, H, W]` or `[N, C]`."""
    is_image = x.dim() == 4
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) if is_image else x
    num_words = -(-x.shape[1] // 32)
    words = torch.zeros(len(rows), num_words, dtype=torch.int64)
    for channel in range(x.shape[1]):
        words[:, channel // 32] |= rows[:, channel].long() << channel % 32
    height, width = x.shape[2:] if is_image else (1, 1)
    return SpikeBits(words.to(torch.int32).reshape(-1), x.shape[1], height, width, int(x.sum()), is_image)


@pytest.fixture(autouse=True)
def empty_table():
    forget_bits()
    yield
    forget_bits()


def test_the_bits_of_a_tensor_are_those_of_its_whole_views():
    x = spikes(6, 40)
    bits = pack(x)
    note_bits(x, bits)
    for same in (x, x.view(2, 3, 40), x.detach(), x.view(2, 3, 40).flatten(0, 1)):
        assert bits_of(same, False).words is bits.words
    for other in (x[1:], x[:, :32], x.view(3, 80), x.view(12, 20), x.t(), x.clone(), x + 0):
        assert bits_of(other, False) is None


def test_images_are_no_rows_unless_they_lie_like_them():
    for form in (torch.contiguous_format, torch.channels_last):
        x = spikes(2, 3, 4, 5).contiguous(memory_format=form)
        note_bits(x, pack(x))
        assert torch.equal(bits_of(x.view(x.shape), True).floats(), x)
        assert bits_of(x, False) is None
        assert bits_of(x.permute(0, 1, 3, 2), True) is None
    rows = bits_of(x.permute(0, 2, 3, 1), False)
    assert torch.equal(rows.floats(), x.permute(0, 2, 3, 1).reshape(-1, 3))
    rows = spikes(2, 3, 4, 5)  # of a linear layer, with three axes in front of the channels
    note_bits(rows, pack(rows.view(-1, 5)))
    assert bits_of(rows, False) is not None
    assert bits_of(rows, True) is None


@pytest.mark.parametrize("write", [lambda x: x.add_(0), lambda x: x.view(-1)[3:].zero_(), lambda x: x.copy_(x + 1)])
def test_whatever_writes_to_the_tensor_ends_them(write):
    x = spikes(6, 40)
    note_bits(x, pack(x))
    write(x)
    assert bits_of(x, False) is None


def test_a_write_is_seen_by_a_reader_with_a_count_of_its_own():
    """`x.data` counts writes from 0 on, as x did when its bits were noted."""
    x = spikes(6, 40)
    note_bits(x, pack(x))
    assert bits_of(x.data, False) is not None
    x[0] = 1 - x[0]
    assert bits_of(x.data, False) is None


@pytest.mark.parametrize(
    "foreign",
    [
        lambda x: torch.from_numpy(x.numpy().copy()),
        lambda x: torch.frombuffer(bytearray(x.numpy().tobytes()), dtype=torch.float32).view(x.shape),
        lambda x: x.clone().share_memory_(),
        lambda x: (y := x.clone(), y.numpy())[0],
    ],
    ids=["from NumPy", "buffer", "shared memory", "given to NumPy"],
)
def test_memory_that_others_write_to_has_no_bits(foreign):
    """Torch counts none of their writes: a buffer of frames is filled anew before every call."""
    x = foreign(spikes(6, 40))
    note_bits(x, pack(x))
    assert bits_of(x, False) is None
    note_bits(x, pack(x), is_own=True)
    assert bits_of(x, False) is not None


def test_bits_end_when_the_tensor_is_given_to_numpy():
    x = spikes(6, 40)
    note_bits(x, pack(x))
    assert bits_of(x, False) is not None
    x.numpy()[0] = 0.5
    assert bits_of(x, False) is None


def test_memory_that_is_used_again_has_no_bits():
    """The next tensor gets the very memory of the last one, again and again."""
    addresses = []
    for _ in range(50):
        x = torch.zeros(64, 64)
        assert bits_of(x, False) is None
        addresses.append(x.data_ptr())
        note_bits(x, pack(spikes(64, 64)))
        del x
    assert len(set(addresses)) < 50, "no memory was used twice: this proves nothing"


def test_a_storage_that_points_elsewhere_has_no_bits():
    x, other = torch.zeros(6, 40), torch.ones(6, 40)
    note_bits(x, pack(x))
    x.set_(other.untyped_storage(), 0, x.shape, x.stride())
    assert bits_of(x, False) is None


def test_the_table_holds_neither_tensors_nor_their_bits():
    x = spikes(6, 40)
    bits = pack(x)
    words = weakref.ref(bits.words)
    note_bits(x, bits)
    del bits, x
    gc.collect()
    note_bits(y := spikes(2, 2), pack(spikes(2, 2)))
    assert len(spike_bits._ENTRIES) == 1
    assert words() is None
    assert y is not None


def test_tensors_of_inference_mode_have_none():
    with torch.inference_mode():
        x = spikes(6, 40)
        note_bits(x, pack(x))
        assert bits_of(x, False) is None


@pytest.mark.parametrize("channels", [1, 31, 32, 33, 70])
def test_bits_and_floats_and_pooling(channels):
    x = spikes(3, channels, 6, 8)
    bits = pack(x)
    assert torch.equal(bits.floats(), x)
    assert torch.equal(pack(x[:, :, 0, 0]).floats(), x[:, :, 0, 0])
    for kernel, stride in (((2, 2), (2, 2)), ((3, 2), (1, 2)), ((1, 1), (1, 1)), ((6, 8), (6, 8))):
        pooled = bits.max_pool(kernel, stride)
        assert torch.equal(pooled.floats(), functional.max_pool2d(x, kernel, stride))
        assert torch.equal(bits.floats(), x), "pooling wrote to its input"


def test_max_pooling_hands_bits_on():
    x = spikes(2, 3, 5, 6, 6)
    folded = x.flatten(0, 1)
    note_bits(folded, pack(folded))
    assert torch.equal(bits_of(MaxPool2d(2)(x).flatten(0, 1), True).floats(), functional.max_pool2d(folded, 2))
    for pool in (MaxPool2d(2, padding=1), MaxPool2d(4, ceil_mode=True), MaxPool2d(2, dilation=2)):
        assert bits_of(pool(x).flatten(0, 1), True) is None
    assert isinstance(MaxPool2d(2, return_indices=True)(x), tuple)
