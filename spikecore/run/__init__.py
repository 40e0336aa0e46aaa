"""Runs: from a configuration to a run directory. The package itself can be called: `spikecore.run(config)`."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikecore.run.experiment import Result


class _Callable(types.ModuleType):
    # The public function and this package share the name `spikecore.run`, so the module is callable.
    def __call__(
        self,
        config: Mapping[str, Any] | str | Path | None = None,
        *,
        out: str | Path | None = None,
        hooks: Sequence[object] = (),
    ) -> Result:
        """See `spikecore.run.experiment.run`."""
        from spikecore.run.experiment import run

        return run(config, out=out, hooks=hooks)


sys.modules[__name__].__class__ = _Callable
