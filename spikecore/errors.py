"""The tree of exceptions. Every message says what was expected, what came, and what to do.

SpikeError
├── PluginError                    a plugin or component cannot be used
│   ├── UnknownComponentError      no such (kind, name); also a LookupError
│   ├── AmbiguousComponentError    two distributions offer the same (kind, name)
│   ├── BlockedPluginError         disabled by flag, environment or config
│   ├── IncompatiblePluginError    needs another spikecore, or has another api_version
│   ├── BrokenPluginError          its import or construction failed
│   │   └── ContractError          it loaded, but does not satisfy the contract of its kind
│   └── PluginUnavailable          it cannot work on this machine (no GPU, no compiler); plugins raise this
├── OptionError                    a component was given a wrong option; also a ValueError
├── ConfigError                    a run configuration is wrong; carries every problem at once
├── ShapeError                     an input has the wrong rank or size; also a ValueError
├── InputError                     an input holds values outside the accepted range; also a ValueError
├── StateError                     the state of a net was used wrongly; also a RuntimeError
│   ├── StateShapeError            kept state and input differ in batch shape, device or dtype
│   ├── StateGraphError            backward through state whose graph is gone
│   └── StreamingError             `streaming` nested on the same net
├── DynamicsError                  a step function is outside the neuron language
│   └── StepError                  a step would compute something else, even on the reference
├── BackendError                   a backend that was named cannot run this
├── NetTraceError                  a net cannot be traced; shows the user's line
├── ConversionError                a converter or deployer refuses a model, with the reason
├── DatasetError                   files are missing, damaged or not what they claim
│   └── NotDownloadedError         a file is not here, and downloads are switched off
└── RunError                       a run cannot start or continue
    ├── CheckpointError            a checkpoint is damaged, foreign or of another model
    ├── ProcessError               another process of the run failed or is gone
    └── StopRun                    a hook ends the run on purpose; plugins raise this
"""

from __future__ import annotations

from collections.abc import Sequence


class SpikeError(Exception):
    """Base of every error that spikecore raises on purpose.

    Attributes:
        is_told: another process of the same run shows this error.
    """

    is_told: bool = False


class PluginError(SpikeError):
    """A plugin or component cannot be used."""


class UnknownComponentError(PluginError, LookupError):
    """Nothing is registered under this kind and name."""

    __str__ = Exception.__str__  # LookupError's subclasses may quote the message; show it plainly


class AmbiguousComponentError(PluginError):
    """Two distributions offer the same kind and name; the qualified form `distribution:name` chooses."""


class BlockedPluginError(PluginError):
    """The plugin was switched off by `--no-plugin`, `SPIKE_DISABLE_PLUGINS` or the config."""


class IncompatiblePluginError(PluginError):
    """The plugin needs another spikecore version or another `api_version` of its kind."""


class BrokenPluginError(PluginError):
    """Importing or constructing the component failed."""


class ContractError(BrokenPluginError):
    """The component loaded but lacks members that its kind's contract asks for."""


class PluginUnavailable(PluginError):
    """The component is sound but cannot work here. Plugins raise it, with a `hint` that says how to change that."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(f"{reason} ({hint})" if hint else reason)
        self.reason = reason
        self.hint = hint


class OptionError(SpikeError, ValueError):
    """A component was given an option it does not have, or a value out of range."""


class ConfigError(SpikeError):
    """A run configuration is wrong. `problems` holds one line per fault, each with its dotted path."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class ShapeError(SpikeError, ValueError):
    """An input has the wrong rank or size for the step mode or the layer."""


class InputError(SpikeError, ValueError):
    """An input holds values outside the range that is accepted."""


class StateError(SpikeError, RuntimeError):
    """The state of a net was used wrongly."""


class StateShapeError(StateError):
    """Kept state and input differ in batch shape, device or dtype."""


class StateGraphError(StateError):
    """A backward pass reached kept state whose graph has already been freed."""


class StreamingError(StateError):
    """`streaming` was entered on a net that is already streaming."""


class DynamicsError(SpikeError):
    """A step function or surrogate is outside the neuron language; the message shows the user's own source line."""


class StepError(DynamicsError):
    """A step branches on values or writes to them in place: on the reference, too, it would compute something else."""


class BackendError(SpikeError):
    """A backend that was asked for by name cannot run this neuron, input or device."""


class NetTraceError(SpikeError):
    """A net cannot be traced to a graph; the message shows the line of its code and what to write there."""


class ConversionError(SpikeError):
    """A converter or deployer refuses a model; the message names the layer and the reason."""


class DatasetError(SpikeError):
    """A dataset's files are missing, damaged, or not what they claim to be."""


class NotDownloadedError(DatasetError):
    """A file is not here, and downloads are switched off.

    Args:
        message: what is missing, and how to get it.
        directory: where the file would go.
    """

    def __init__(self, message: str, directory: str = "") -> None:
        super().__init__(message)
        self.directory = directory


class RunError(SpikeError):
    """A run cannot start or go on."""


class CheckpointError(RunError):
    """A checkpoint is damaged, from a foreign version, or belongs to another model."""


class ProcessError(RunError):
    """Another process of the run failed or is gone, so this one cannot go on."""


class StopRun(RunError):
    """A hook raises it with a reason to end the run at the next safe point, as when a sweep prunes a trial.

    The run is saved and can be resumed; its status is `stopped`. `spike run` then ends with exit status 0, and
    `spikecore.run.run` raises this error.
    """


__all__ = [
    "AmbiguousComponentError",
    "BackendError",
    "BlockedPluginError",
    "BrokenPluginError",
    "CheckpointError",
    "ConfigError",
    "ContractError",
    "ConversionError",
    "DatasetError",
    "DynamicsError",
    "IncompatiblePluginError",
    "InputError",
    "NotDownloadedError",
    "OptionError",
    "PluginError",
    "PluginUnavailable",
    "ProcessError",
    "RunError",
    "ShapeError",
    "SpikeError",
    "StateError",
    "StateGraphError",
    "StateShapeError",
    "StepError",
    "StopRun",
    "StreamingError",
    "UnknownComponentError",
]
