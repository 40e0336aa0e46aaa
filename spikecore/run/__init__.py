"""Runs: from a configuration to a run directory. The package itself can be called: `spikecore.run(config)`."""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    # The public function and this package share the name `spikecore.run`, so the module is callable.
    def __call__(self, config: Any = None, **options: Any) -> Any:
        from spikecore.run.experiment import run

        return run(config, **options)


sys.modules[__name__].__class__ = _Callable
