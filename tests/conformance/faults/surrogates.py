"""Faults planted in surrogates."""

from spikecore.dynamics import abs, exp, where
from spikecore.interfaces.surrogate import SurrogateCapabilities
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToySurrogate,
)

FAULTS, fault = table()


@fault("test_primitive_has_this_derivative", "the slope is another")
class Doubled(ToySurrogate):
    """wrong gradient: twice the derivative of its primitive"""

    @staticmethod
    def derivative(u, params):
        return 2 * ToySurrogate.derivative(u, params)


@fault("test_forward_is_heaviside", "spike\\(")
class Strict(ToySurrogate):
    """fires only above the threshold, not at it"""

    @staticmethod
    def forward(u, params):
        return where(u > 0, 1.0, 0.0, like=u)


@fault("test_gradient_is_not_zero", "derivative")
class Dead(ToySurrogate):
    """mis-declared capability: no gradient near the threshold"""

    @staticmethod
    def derivative(u, params):
        return where(abs(u) < 0.5, 0.0, 1.0, like=u)


@fault("test_finite_far_away", "nan")
class Overflow(ToySurrogate):
    """infinity over infinity far from the threshold"""

    @staticmethod
    def derivative(u, params):
        e = exp(-params.alpha * u)
        return params.alpha * e / ((1 + e) * (1 + e))


@fault("test_primitive_is_declared_or_not", "capabilities.primitive is False")
class Denied(ToySurrogate):
    """mis-declared capability: has a primitive and says it has none"""

    capabilities = SurrogateCapabilities(primitive=False)


@fault("test_is_pure", "the second call")
class Remembers(ToySurrogate):
    """memory: the derivative shrinks with every call"""

    calls: list = []  # noqa: RUF012

    @staticmethod
    def derivative(u, params):
        Remembers.calls.append(0)
        return ToySurrogate.derivative(u, params) / len(Remembers.calls)


@fault("test_is_a_value", "DID NOT RAISE")
class Mutable(ToySurrogate):
    """a value that can be changed"""

    __setattr__ = object.__setattr__
