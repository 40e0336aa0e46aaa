"""What `pytest --pyargs spikecore.testing` collects: one test class for each component named on the command line."""

from spikecore.testing.pytest_plugin import make_suites

globals().update(make_suites())
if not any(name.startswith("Test") for name in globals()):
    raise ValueError("name what to prove: pytest --pyargs spikecore.testing --spike-component KIND:NAME")
