"""The checks that core offers to every backend, in Triton's interpreter."""

from spikecore.testing import BackendSuite


class TestInterpreted(BackendSuite):
    component = "triton"
    options = {"interpret": True}  # noqa: RUF012
