"""Small nets that a deployer exports, and what both compute: shared by the checks of its suite.

Every small net that it takes is exported and, where it simulates, run; exporting and running may be slow, so each is
done once for all checks.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from spikecore.analysis import compare_layer, record_spikes
from spikecore.errors import ConversionError, NetTraceError
from spikecore.interfaces.deployer import Artefact
from spikecore.testing.small_nets import SmallNet, small_nets
from spikecore.testing.suite import Suite

SILENT, SATURATED = 0.05, 0.95
REFUSALS = (ConversionError, NetTraceError)
ROUNDING = 1e-5
"""Relative, of outputs that are no spikes: sums of floats in another order."""


@dataclass(frozen=True)
class Exported:
    """A small net that the deployer takes, and what became of it."""

    net: SmallNet
    artefact: Artefact


@dataclass(frozen=True)
class Computed:
    """Output and trace over `net.input(SEED)`."""

    out: Tensor
    spikes: dict[str, Tensor]


SEED = 3
"""Of the inputs that are compared; the example input of `export` has another."""


class DeployedNets(Suite):
    """Exports small nets that spike in every layer."""

    kind: ClassVar[str] = "deployer"

    def nets(self) -> tuple[SmallNet, ...]:
        """The nets to try; a deployer that takes none of them names others. They must spike in every layer."""
        return small_nets()

    _shared: ClassVar[dict[str, Any]] = {}

    def _once(self, key: str, make: Any) -> Any:
        cls = type(self)
        if "_shared" not in cls.__dict__:
            cls._shared = {}
        if key not in cls._shared:
            cls._shared[key] = make()
        return cls._shared[key]

    def accepted(self) -> list[Exported]:
        """Every net that `check` lets pass, exported."""
        taken: list[Exported] = self._once("accepted", self._export_all)
        if not taken:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._once("refused", dict).items())
            raise AssertionError(f"it takes none of the small nets ({reasons}): override `nets` in a subclass")
        return taken

    def _export_all(self) -> list[Exported]:
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(type(self), shutil.rmtree, folder, ignore_errors=True)
        deployer, taken, refused = self.make(), [], self._once("refused", dict)
        for index, net in enumerate(self.nets()):
            model, x = net.make(), net.input()
            if reason := refusal_of(deployer, model, x):
                refused[net.name] = reason
                continue
            taken.append(Exported(net, deployer.export(model, x, folder / f"net{index}{self.capabilities.suffix}")))
        return taken

    def few(self) -> list[Exported]:
        """The first, the middle and the last one: for what does not depend on the equations."""
        taken = self.accepted()
        chosen = (taken[0], taken[len(taken) // 2], taken[-1])
        by_name = {exported.net.name: exported for exported in chosen}  # of one or two nets, some are the same
        return list(by_name.values())

    def expected(self, net: SmallNet) -> Computed:
        """What the net computes, after a look at whether it spikes."""
        computed: Computed = self._once(f"expected {net.name}", lambda: self._compute(net))
        return computed

    def _compute(self, net: SmallNet) -> Computed:
        out, spikes = record_spikes(net.make(), net.input(SEED))
        assert spikes, f"net {net.name!r} has no neurons"
        for name, values in spikes.items():
            rate = float((values != 0).double().mean())
            assert SILENT < rate < SATURATED, (
                f"net {net.name!r}: layer {name!r} fires in {rate:.1%} of its steps, so nothing can be learnt from it"
            )
        return Computed(out, spikes)

    def simulated(self, exported: Exported) -> Computed:
        """What its artefact computes."""

        def run() -> Computed:
            deployer, x = self.make(), exported.net.input(SEED)
            return Computed(deployer.simulate(exported.artefact, x), deployer.trace(exported.artefact, x))

        computed: Computed = self._once(f"simulated {exported.net.name}", run)
        return computed

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty directory."""
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)

    def path_in(self, folder: Path) -> Path:
        """Where to export to."""
        return folder / f"net{self.capabilities.suffix}"

    def assert_near(self, got: Any, expected: Tensor, what: str) -> None:
        """Within the declared distance; a distance at which silence would pass proves nothing."""
        assert isinstance(got, Tensor), f"{what}: expected a tensor, got {type(got).__name__}"
        assert got.shape == expected.shape, f"{what}: expected {tuple(expected.shape)}, got {tuple(got.shape)}"
        layer = compare_layer(what, expected, got)
        size = float(expected.abs().double().mean())
        are_spikes = bool(((expected == 0) | (expected == 1)).all())
        tolerance = self.capabilities.tolerance
        limit = tolerance if are_spikes else (tolerance + ROUNDING) * size
        assert limit < size, f"{what}: an output of zeros would lie within the declared tolerance {tolerance}"
        assert layer.mean_difference <= limit, (
            f"{what}: net and simulation differ by {layer.mean_difference:.4f} per output and step; declared is "
            f"{tolerance}. First: {layer.first}"
        )


def refusal_of(deployer: Any, model: nn.Module, x: Tensor) -> str:
    """Why `check` does not let the net pass; "" where it does."""
    try:
        records = deployer.check(model, x)
    except REFUSALS as error:
        return str(error)
    refused = [record for record in records if record.outcome == "refused"]
    return ", ".join(f"{record.name}: {record.reason}" for record in refused)


def files_below(path: Path) -> dict[str, bytes]:
    """Name below `path` → content."""
    path = Path(path)
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
