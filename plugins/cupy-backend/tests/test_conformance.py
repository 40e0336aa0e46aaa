"""The checks that core offers to every backend, with the kernels compiled as C++."""

from spikecore.testing import BackendSuite


class TestOnHost(BackendSuite):
    component = "cupy"
    options = {"on_host": True}  # noqa: RUF012
