"""Deployer: turns a spiking net into an artefact for a device or an exchange format, with comparable numbers.

    records  = deployer.check(net, x)                 every operator: mapped, folded, approximated or refused
    artefact = deployer.export(net, x, path)          writes all of it or nothing; artefact.mapping is these records
    out      = deployer.simulate(artefact, x)         [T, B, ...] → [T, B, outputs], computed from the files
    spikes   = deployer.trace(artefact, x)            {layer: [T, B, ...]}, for spikecore.analysis.compare_traces

Deployers map *declared* neurons by registered name and parameters and refuse the rest: a net never becomes another one
silently. A deployer reads and writes the net in evaluation mode and leaves the given one as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

from spikecore.errors import ConversionError, OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

API_VERSION = 2
"""2: `check` and `trace` are part of the contract, `Artefact.mapping` is a tuple of `OperatorRecord`."""

Outcome = Literal["mapped", "folded", "approximated", "refused"]


@dataclass(frozen=True)
class DeployerCapabilities:
    """What a deployer promises.

    Args:
        simulates: `simulate` and `trace` run the artefact here, without the device.
        bit_exact: the simulation computes what the target computes, in every bit: it rounds as the target does, and
            what a sample gives does not depend on the batch that it is in. Not a statement about the net: the distance
            to that is `tolerance`, whether the target is exact or not.
        tolerance: largest distance of the simulation from the net, of every neuron layer and of the output: the mean of
            |net - simulation| over outputs, samples and steps; 0: every spike is the same. Of outputs that are not
            spikes, relative to their mean size, and besides the rounding of float32.
        deterministic: equal nets give equal artefacts, byte for byte.
        fixed_shape: an artefact runs for the shape of the example input only, T and B included.
        imports: `load` reads an artefact back as a net.
        suffix: how the name of an artefact ends, such as `.nir`; empty where it is a directory or ends in nothing.
    """

    simulates: bool = False
    bit_exact: bool = False
    tolerance: float = 0.0
    deterministic: bool = True
    fixed_shape: bool = False
    imports: bool = False
    suffix: str = ""


@dataclass(frozen=True)
class OperatorRecord:
    """What happens to one operator of the net.

    Args:
        name: that of its node in the net's graph (`spikecore.nn.trace_net`): the qualified name of its module
            (`layers.1`; a second call of the same module is `layers.1#2`), or that of a function call (`layer1.0.add`).
        operator: what it is in the net, such as `Linear` or `LIF`.
        outcome: `mapped`: the target has it; `folded`: it is part of another operator on the target;
            `approximated`: the target has something near it; `refused`: the target has nothing for it.
        target: what it is on the target; empty where it is refused.
        reason: why it is not simply mapped; required where it is folded, approximated or refused.
        cure: what the user can do about it; required where it is refused.

    Raises:
        OptionError: the fields contradict each other.
    """

    name: str
    operator: str
    outcome: Outcome
    target: str = ""
    reason: str = ""
    cure: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise OptionError(
                f"operator {self.name!r}: outcome must be one of {', '.join(get_args(Outcome))}; got {self.outcome!r}"
            )
        is_refused = self.outcome == "refused"
        missing = [] if is_refused or self.target.strip() else ["target"]
        if self.outcome != "mapped" and not self.reason.strip():
            missing.append("reason")
        if is_refused and not self.cure.strip():
            missing.append("cure")
        if missing:
            raise OptionError(f"operator {self.name!r} is {self.outcome}, which needs a {' and a '.join(missing)}")
        if is_refused and self.target:
            raise OptionError(f"operator {self.name!r} is refused and has a target, {self.target!r}: leave it out")


@dataclass(frozen=True)
class Artefact:
    """What `export` wrote.

    Args:
        path: the file or directory. With a fresh `Artefact(path)` of a copy of it, `simulate` and `trace` work as well:
            they read the files and nothing else.
        mapping: what became of every operator, in the net's order, as `check` said.
        notes: losses and limits, one line each.
    """

    path: Path
    mapping: tuple[OperatorRecord, ...] = ()
    notes: tuple[str, ...] = ()


@runtime_checkable
class Deployer(Protocol):
    """What callers rely on; one whose capabilities say `imports` is an `ImportingDeployer`."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[DeployerCapabilities]
    config: Any

    def check(self, model: nn.Module, example_input: Tensor) -> tuple[OperatorRecord, ...]:
        """What happens to every operator of the net, in the net's order. Writes nothing and raises for no operator.

        The operators are the calls in `spikecore.nn.trace_net(model, example_input)` except those whose result is a
        number (`x.dim()`). A layer that is one call there may be split into several operators.

        Args:
            model: the net; left as it is.
            example_input: `[T, B, ...]`, as the net will be given.

        Raises:
            NetTraceError: the net cannot be traced; the message shows the line of its code.
            PluginUnavailable: the vendor's tools are missing here.
        """

    def export(self, model: nn.Module, example_input: Tensor, path: Path) -> Artefact:
        """Write the complete artefact, or nothing.

        Args:
            model: the net; left as it is.
            example_input: `[T, B, ...]`, as the net will be given.
            path: where to write; does not exist yet, its parent does.

        Returns:
            The artefact; its mapping is what `check` gives.

        Raises:
            ConversionError: an operator is refused; names all of them (see `require_mapped`).
            NetTraceError: as in `check`.
            PluginUnavailable: the vendor's tools are missing here.
        """

    def simulate(self, artefact: Artefact, x: Tensor) -> Tensor:
        """Run the artefact over `x` `[T, B, ...]`, where `capabilities.simulates`; the net's output `[T, B, ...]`.

        Every call starts from the initial state. It reads the files at `artefact.path` and nothing else.

        Raises:
            PluginUnavailable: it does not simulate, or not here.
        """

    def trace(self, artefact: Artefact, x: Tensor) -> dict[str, Tensor]:
        """The output of every neuron layer over `x` `[T, B, ...]`, where `capabilities.simulates`.

        Returns:
            Name in the net (that of its `OperatorRecord`) → `[T, B, ...]`, in the net's order; layer lag of the target
            taken out, so that step t is the net's step t.

        Raises:
            PluginUnavailable: it does not simulate, or not here.
        """


@runtime_checkable
class ImportingDeployer(Deployer, Protocol):
    """A deployer whose capabilities say `imports`."""

    def load(self, path: Path) -> nn.Module:
        """A net that computes what the artefact at `path` computes.

        Raises:
            ConversionError: the file is damaged, or holds what no net of ours computes.
        """


def require_mapped(records: Sequence[OperatorRecord], target: str) -> None:
    """Raise if an operator of the net is refused; `export` calls this first.

    Args:
        records: of `check`.
        target: the name of the target, for the message.

    Raises:
        ConversionError: names every refused operator, with reason and cure.

    Example:
        >>> require_mapped([OperatorRecord("0", "Linear", "mapped", "Affine")], "NIR")
    """
    refused = [record for record in records if record.outcome == "refused"]
    if not refused:
        return
    lines = [f"  {record.name!r} ({record.operator}): {record.reason}; {record.cure}" for record in refused]
    count = f"{len(refused)} of {len(records)} operators"
    raise ConversionError(f"{target} does not take this net, it refuses {count}:\n" + "\n".join(lines))


def records_to_json(records: Sequence[OperatorRecord]) -> list[dict[str, str]]:
    """Plain dictionaries, for a manifest."""
    return [dict(vars(record)) for record in records]


def records_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[OperatorRecord, ...]:
    """The records again.

    Raises:
        OptionError: a row is not that of a record.
    """
    try:
        records = tuple(OperatorRecord(**row) for row in rows)
    except (TypeError, AttributeError) as error:  # other names, no table, or a number in the place of a text
        raise OptionError(f"expected the rows of operator records, got {rows!r:.300}") from error
    for record in records:
        for name, value in vars(record).items():
            if not isinstance(value, str):
                raise OptionError(f"operator {record.name!r}: {name} must be a string, got {value!r:.300}")
    return records
