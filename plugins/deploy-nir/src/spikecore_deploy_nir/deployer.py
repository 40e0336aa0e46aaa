"""`nir`: nets ↔ files of the Neuromorphic Intermediate Representation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore.errors import ConversionError
from spikecore.interfaces import (
    Artefact,
    Configurable,
    DeployerCapabilities,
    OperatorRecord,
    Range,
    make_config,
    require_mapped,
)
from spikecore_deploy_nir.exporting import planned
from spikecore_deploy_nir.importing import imported
from spikecore_deploy_nir.order import Ordered, ordered
from spikecore_deploy_nir.profiles import DEFAULT_DT_S, PROFILES
from spikecore_deploy_nir.reading import read_graph
from spikecore_deploy_nir.running import run_graph
from spikecore_deploy_nir.settings import Settings
from spikecore_deploy_nir.writing import write_graph


class NIR(Configurable):
    """Neuromorphic Intermediate Representation: one file, which norse, snntorch, sinabs, lava-dl and others read.

    The file gives equations in continuous time, and every reader has its own steps. The profile says which steps are
    meant; profile, dt and dtype are written into the file's metadata and read back from there. A threshold that is
    reached is exported as the next number below, since readers fire above the threshold only. What NIR cannot say is
    refused. `simulate` computes the file as a reader with that profile does.

    Source: Pedersen et al., Neuromorphic intermediate representation (Nature Communications 2024).

    Example:
        >>> from spikecore import nn
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), nn.LIF(tau=3.0), nn.LIF(reset="soft"))
        >>> [record.outcome for record in NIR().check(net, torch.zeros(4, 1, 2))]
        ['mapped', 'mapped', 'refused']
    """

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[DeployerCapabilities] = DeployerCapabilities(
        simulates=True, bit_exact=False, imports=True, suffix=".nir"
    )
    config: Any

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            profile: what a reader computes: `euler` (norse, snntorch, spyx), `held`, `decay_soft` (rockpool, sinabs),
                `late` (lava); None for what a file says, and `euler` for those that say nothing and for export.
            dt: of a step, in seconds; None for what a file says, and 2**-10 for others and for export.
            dtype: in which readers compute; for export.
            if_input: `rate`: IF adds dt r x, as NIR's equation says; `step`: r x, as norse, snntorch and sinabs do.
                None for what a file says, and `rate` for others and for export.
            max_bytes: of the arrays of a file that is read.
        """

        profile: Literal["euler", "held", "decay_soft", "late"] | None = None
        dt: Annotated[float | None, Range(gt=0, lt=math.inf)] = None
        dtype: Literal["float32", "float64"] = "float32"
        if_input: Literal["rate", "step"] | None = None
        max_bytes: Annotated[int, Range(ge=1)] = 2**31

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)

    def check(self, model: torch.nn.Module, example_input: Tensor) -> tuple[OperatorRecord, ...]:
        """What becomes of every operator of the net."""
        return planned(model, example_input, self._settings()).records

    def export(self, model: torch.nn.Module, example_input: Tensor, path: Path) -> Artefact:
        """Write the file, whole or not at all, in the place of one that is there.

        Raises:
            ConversionError: an operator is refused; names all of them. Also where the file cannot be written.
        """
        plan = planned(model, example_input, self._settings())
        require_mapped(plan.records, "NIR")
        write_graph(plan.graph, path)
        settings = plan.settings
        about = (
            f"Profile {settings.profile.name!r}, dt = {settings.dt_s:g} s, {settings.dtype}: another reader computes "
            "something else."
        )
        return Artefact(path, plan.records, (about, *plan.notes))

    def simulate(self, artefact: Artefact, x: Tensor) -> Tensor:
        """What a reader with the file's profile gives for `x` `[T, B, ...]`.

        Raises:
            ConversionError: the file cannot be read.
            ShapeError: it takes another shape.
        """
        return self._run(artefact, x)[0]

    def trace(self, artefact: Artefact, x: Tensor) -> dict[str, Tensor]:
        """What each of its neurons gives."""
        return self._run(artefact, x)[1]

    def load(self, path: Path) -> torch.nn.Module:
        """The net of a file, of ours or of another tool; in evaluation mode.

        Raises:
            ConversionError: the file is damaged, or holds what no net of ours computes.
        """
        graph, settings = self._read(path)
        return imported(graph, settings)

    @torch.no_grad()
    def _run(self, artefact: Artefact, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        graph, settings = self._read(artefact.path)
        return run_graph(graph, settings, x)

    def _settings(self) -> Settings:
        config = self.config
        return Settings(
            PROFILES[config.profile or "euler"], config.dt or DEFAULT_DT_S, config.dtype, config.if_input or "rate"
        )

    def _read(self, path: Path) -> tuple[Ordered, Settings]:
        graph = read_graph(Path(path), self.config.max_bytes)
        try:
            settings = Settings.of(graph, self.config.profile, self.config.dt, self.config.if_input)
            return ordered(graph, tuple(settings.names)), settings
        except (ValueError, TypeError, OverflowError) as error:
            raise ConversionError(f"{path}: a value has the wrong form ({error}): write the file again") from error
        except ConversionError as error:
            raise ConversionError(f"{path}: {error}") from error
