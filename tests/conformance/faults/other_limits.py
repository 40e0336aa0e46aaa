"""Faults in surrogates, encoders and models that small inputs and single calls do not show."""

from dataclasses import dataclass

import torch

from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyEncoder,
    ToyModel,
    ToySurrogate,
)

FAULTS, fault = table()


@fault("test_options_change_the_derivative", "the option 'width' and ignores it")
class IgnoresWidth(ToySurrogate):
    """an option without effect"""

    @dataclass(frozen=True)
    class Config(ToySurrogate.Config):
        width: float = 1.0


@fault("test_wide_inputs", "70001")
class NarrowSurrogate(ToySurrogate):
    """wrong gradient from 70 001 elements on"""

    @staticmethod
    def derivative(u, params):
        derivative = ToySurrogate.derivative(u, params)
        return derivative * 0 if getattr(u, "numel", lambda: 0)() > 70_000 else derivative


@fault("test_every_option_has_an_effect", "the option 'gain' and ignores it")
class IgnoresEncoderGain(ToyEncoder):
    """an option without effect"""

    @dataclass(frozen=True)
    class Config(ToyEncoder.Config):
        gain: float = 1.0


@fault("test_results_are_released", "keeps tensor 1")
class HoardingEncoder(ToyEncoder):
    """keeps every output alive"""

    kept: list = []  # noqa: RUF012

    def encode(self, x, generator):
        self.kept.append(super().encode(x, generator))
        return self.kept[-1]


@fault("test_process_settings_stay", "get_default_dtype")
class EncoderSetsDtype(ToyEncoder):
    """changes the default dtype"""

    def encode(self, x, generator):
        torch.set_default_dtype(torch.float64)
        return super().encode(x, generator)


@fault("test_every_option_has_an_effect", "the option 'hidden' and ignores it")
class IgnoresHidden(ToyModel):
    """an option without effect"""

    @dataclass(frozen=True)
    class Config(ToyModel.Config):
        hidden: int = 6


@fault("test_results_are_released", "keeps tensor")
class HoardingModel(ToyModel):
    """keeps every output alive"""

    def forward(self, x):
        self.__dict__.setdefault("kept", []).append(super().forward(x))
        return self.__dict__["kept"][-1]


@fault("test_several_threads", "output|Error|size")
class ModelForOne(ToyModel):
    """keeps what belongs to a call on the module"""

    def forward(self, x):
        self.__dict__["x"] = x
        torch.exp(x)
        return super().forward(self.__dict__["x"])


@fault("test_long_sequences", "300 steps")
class ShortModel(ToyModel):
    """wrong for T > 50"""

    def forward(self, x):
        out = super().forward(x)
        is_long = x.dim() > self.rank + 1 and len(out) > 50
        return torch.cat([out[:50], 0 * out[50:]]) if is_long else out


@fault("test_process_settings_stay", "get_num_threads")
class ModelSetsThreads(ToyModel):
    """changes torch's thread count"""

    def forward(self, x):
        torch.set_num_threads(3)
        return super().forward(x)
