"""Parity with other libraries; a part of `make check`, in an environment that has them.

Elsewhere what is missing is skipped, with its name. `SPIKE_PEERS=1` (set by `make check`) makes it a failure.
"""
