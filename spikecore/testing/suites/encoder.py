"""Checks of an encoder: shape, range, rate, random numbers, decoding, what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any, ClassVar

import pytest
import torch
from torch import Generator, Tensor

from spikecore.errors import InputError, ShapeError
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.suite import needs, skip
from spikecore.testing.suites.encoder_limits import LimitChecks
from spikecore.testing.values import distinct

MANY = 64
"""T where a long sequence is wanted."""


class EncoderSuite(LimitChecks):
    """`[B, ...]` → `[num_steps, B, ...]`; values as declared; random numbers from the generator alone."""

    kind: ClassVar[str] = "encoder"
    minimum = 10

    @property
    def bounds(self) -> tuple[float, float]:
        """The range that inputs are drawn from."""
        return self.capabilities.input_range or (0.0, 1.0)

    def input(self, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values all over the range, its ends included."""
        low, high = self.bounds
        x = torch.rand(shape or (3, 4, 5), generator=Generator().manual_seed(seed), dtype=torch.float64)
        x = low + (high - low) * x
        if x.numel() > 1:
            x.view(-1)[0], x.view(-1)[-1] = low, high
        return x.to(dtype)

    def long(self) -> Any:
        """An encoder of `MANY` steps."""
        if not hasattr(self.make().config, "num_steps"):
            skip("Config has no num_steps")
        return self.make(num_steps=MANY)

    def test_time_comes_first(self) -> None:
        """`[B, ...]` of any rank becomes `[num_steps, B, ...]`, for another `num_steps` too."""
        encoders = [self.make()]
        if hasattr(encoders[0].config, "num_steps"):
            encoders.append(self.make(num_steps=encoders[0].config.num_steps + 3))
        for encoder in encoders:
            steps = getattr(encoder.config, "num_steps", None)
            keeps_shape = self.capabilities.keeps_shape
            for shape in ((3,), (2, 4), (3, 1, 5, 2)) if keeps_shape else ((2, 4), (3, 1, 5, 2)):
                out = self.encode(encoder, self.input(*shape))
                last = shape[-1] if keeps_shape else out.shape[-1] - out.shape[-1] % shape[-1]
                wanted = (len(out) if steps is None else steps, *shape[:-1], last)
                assert out.shape == wanted, f"expected {wanted}, got {tuple(out.shape)}"

    def test_dtype_and_device_stay(self) -> None:
        """The output has the input's dtype and device."""
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            out = self.encode(self.make(), self.input(dtype=dtype))
            assert out.dtype == dtype, f"expected {dtype}, got {out.dtype}"
            assert out.isfinite().all(), f"{dtype}: the output holds NaN or infinity"
        if torch.cuda.is_available():
            x = self.input()
            on_gpu = self.make()(x.cuda(), Generator().manual_seed(0))
            assert on_gpu.is_cuda
            assert_close(on_gpu.cpu(), self.encode(self.make(), x), "the output on the GPU")

    @needs("spiking")
    def test_spikes_are_zero_or_one(self) -> None:
        """Every output is 0 or 1, and both occur."""
        self._only({0.0, 1.0})

    @needs("signed")
    def test_signed_spikes(self) -> None:
        """Every output is -1, 0 or 1, and a falling input gives -1."""
        assert not self.capabilities.spiking, "capabilities.spiking means 0 and 1, signed means -1 too"
        self._only({-1.0, 0.0, 1.0})
        if not self.capabilities.takes_sequences:
            return
        fall = torch.linspace(1.0, -1.0, MANY).reshape(-1, 1, 1)
        assert -1.0 in distinct(self.encode(self.make(sequences=True), fall)), "a falling input gives no -1"

    def _only(self, allowed: set[float]) -> None:
        encoder = self.long() if hasattr(self.make().config, "num_steps") else self.make()
        values = distinct(self.encode(encoder, self.input(4, 25)))
        assert values <= allowed, f"expected {sorted(allowed)}, got {sorted(values)[:8]}"
        assert len(values) > 1, f"every output is {values}"

    @needs("rate")
    def test_the_mean_is_the_input(self) -> None:
        """The mean over time equals the input, within five standard errors where it is random."""
        steps = 400
        encoder = self.make(num_steps=steps) if hasattr(self.make().config, "num_steps") else self.make()
        x = self.input(4, 25, dtype=torch.float64)
        mean = self.encode(encoder, x).double().mean(0)
        error = (mean - x).abs()
        allowed = torch.full_like(x, 1.0 / steps)
        if self.capabilities.stochastic:
            low, high = self.bounds
            allowed = allowed + 5 * ((x - low) * (high - x) / steps).clamp(min=0).sqrt()
        worst = (error - allowed).argmax()
        at = f"x = {x.flatten()[worst]:.4f} has the mean {mean.flatten()[worst]:.4f}"
        assert (error <= allowed).all(), f"{at}, further away than {allowed.flatten()[worst]:.4f}"

    @needs("stochastic")
    def test_seeds(self) -> None:
        """Equal seeds give equal outputs, others differ, and only the generator that is given is drawn from."""
        encoder, x = self.make(), self.input(4, 50)
        before = torch.get_rng_state()
        first = self.encode(encoder, x)
        untouched = torch.equal(before, torch.get_rng_state())
        torch.manual_seed(99)
        assert_same(self.encode(encoder, x), first, "the output with the same seed")
        assert untouched, "it drew from torch's global generator although one was given"
        assert not torch.equal(self.encode(encoder, x, seed=1), first), "two seeds give the same output"
        generator = Generator().manual_seed(0)
        again = [encoder(x, generator) for _ in range(2)]
        assert not torch.equal(again[0], again[1]), "two calls with one generator give the same output"

    @needs("stochastic", False)
    def test_draws_no_random_numbers(self) -> None:
        """Whatever the seed, the output is the same, and no generator is drawn from."""
        encoder, x, generator = self.make(), self.input(), Generator().manual_seed(0)
        before = torch.get_rng_state(), generator.get_state()
        first = encoder(x, generator)
        after = torch.get_rng_state(), generator.get_state()
        torch.manual_seed(99)
        assert_same(encoder(x), first, "the output without a generator")
        assert_same(self.encode(encoder, x, seed=1), first, "the output with another seed")
        assert all(map(torch.equal, before, after)), "it drew random numbers, but capabilities.stochastic is False"

    @needs("decodable")
    def test_decode_gives_the_input_back(self) -> None:
        """`decode(encode(x))` is x within one level of the code (five standard errors where it is random)."""
        encoder = self.long()
        low, high = self.bounds
        x = torch.linspace(low, high, 401, dtype=torch.float64).unsqueeze(0)
        decoded = encoder.decode(self.encode(encoder, x))
        assert decoded.shape == x.shape, f"expected {tuple(x.shape)}, got {tuple(decoded.shape)}"
        if self.capabilities.stochastic:
            allowed = 1.0 / MANY + 5 * ((x - low) * (high - x) / MANY).clamp(min=0).sqrt()
        else:
            levels = decoded.unique()
            assert len(levels) > 1, f"every input is decoded to {levels.tolist()}"
            assert (decoded.diff() >= 0).all(), "a larger input is decoded to a smaller value"
            allowed = levels.diff().max() + 1e-6
        error = (decoded - x).abs()
        worst = (error - allowed).argmax()
        assert (error <= allowed).all(), f"x = {x[0, worst]:.4f} is decoded to {decoded[0, worst]:.4f}"

    @needs("decodable", False)
    def test_no_decoder(self) -> None:
        """What declares no decoder has none that answers."""
        encoder = self.make()
        with pytest.raises(NotImplementedError):
            encoder.decode(self.encode(encoder, self.input()))

    def test_bytes_are_read_as_shares_of_255(self) -> None:
        """uint8 input is value / 255."""
        low, high = self.bounds
        if low > 0 or high < 1:
            skip("capabilities.input_range does not hold 0 to 1")
        x = torch.arange(0, 256, 5, dtype=torch.uint8).reshape(4, 13)
        encoder = self.make()
        out = self.encode(encoder, x)
        assert out.dtype == torch.get_default_dtype(), f"expected {torch.get_default_dtype()}, got {out.dtype}"
        assert_same(out, self.encode(encoder, x.float() / 255), "the output for uint8")

    def test_out_of_range_is_refused(self) -> None:
        """Where a range is declared, values below and above it and NaN raise InputError."""
        if self.capabilities.input_range is None:
            x = self.input() * 50 - 20
            assert self.encode(self.make(), x).isfinite().all()
            return
        low, high = self.bounds
        for wrong in (low - 0.01, high + 0.01, math.nan, math.inf):
            x = self.input()
            x[1, 2, 3] = wrong
            with pytest.raises(InputError):
                self.encode(self.make(), x)

    def test_wrong_input_is_refused(self) -> None:
        """Other integers raise TypeError, a number without a batch axis raises ShapeError."""
        with pytest.raises(TypeError):
            self.encode(self.make(), torch.ones(2, 3, dtype=torch.int64))
        with pytest.raises(ShapeError):
            self.encode(self.make(), torch.tensor(0.5))

    @needs("takes_sequences")
    def test_sequences_have_their_length(self) -> None:
        """With `sequences=True`, `[T, B, ...]` of any T stays that long, or becomes `num_steps` long, as declared."""
        encoder = self.make(sequences=True)
        for steps in (1, 7):
            wanted = steps if self.capabilities.keeps_length else encoder.config.num_steps
            out = self.encode(encoder, self.input(steps, 3, 4))
            assert out.shape[:2] == (wanted, 3), f"T = {steps} became {len(out)}, expected {wanted}"

    def test_input_is_left_alone(self) -> None:
        """The input is not written to; a non-contiguous one, and an empty batch, give what they should."""
        encoder, x = self.make(), self.input()
        kept = x.clone()
        out = self.encode(encoder, x)
        assert_same(x, kept, "the input after the call")
        strided = torch.stack([x, x], dim=-1)[..., 0]
        assert_same(self.encode(encoder, strided), out, "the output for a non-contiguous input")
        assert self.encode(encoder, x[:0]).shape == (len(out), 0, *out.shape[2:])

    @needs("stochastic", False)
    def test_samples_are_independent(self) -> None:
        """One sample alone gives what it gives within a batch."""
        encoder, x = self.make(), self.input()
        assert_same(self.encode(encoder, x[1:2]), self.encode(encoder, x)[:, 1:2], "sample 1 alone")

    def test_copies(self) -> None:
        """A `torch.nn.Module` without memory; `deepcopy` and `pickle` give one that encodes alike."""
        encoder, x = self.make(), self.input()
        assert isinstance(encoder, torch.nn.Module)
        low = self.bounds[0]
        self.encode(encoder, low + (self.input(seed=3) - low) / 4)
        first = self.encode(encoder, x)
        assert_same(first, self.encode(self.make(), x), "the output of one that saw another input before")
        for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
            assert_same(self.encode(twin, x), first, "the output of a copy")
