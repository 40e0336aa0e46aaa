"""`lava`: nets → process networks of Lava and files of lava-dl, for Loihi."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore.errors import ConversionError, ShapeError
from spikecore.interfaces import (
    Artefact,
    Configurable,
    DeployerCapabilities,
    OperatorRecord,
    Range,
    make_config,
    require_mapped,
)
from spikecore_deploy_lava import runner
from spikecore_deploy_lava.building import LavaNet
from spikecore_deploy_lava.files import read_network, write_network
from spikecore_deploy_lava.interpreter import run_in_lava
from spikecore_deploy_lava.net_file import NET_FILE, read_net_file, unwritten_part, write_net_file
from spikecore_deploy_lava.network import Network
from spikecore_deploy_lava.planning import planned

TOLERANCE = 0.05
"""Mean difference of spikes that is declared: weights have 8 bits, decays 12, states are whole numbers."""


class Lava(Configurable):
    """Lava for Loihi: IF, LIF, CubaLIF and `loihi_lif` behind Linear, convolutions, average pools and norms.

    The artefact is a directory: `network.json` and `arrays/` describe the process network, `run.py` makes and runs it
    with lava-nc alone, `network.net` is the same as a file of lava-dl. Weights become integers of 8 bits (those of a
    record of quantization, where it has one scale for the layer), decays 12 bits, thresholds 17 bits. Where the net
    fires at its threshold, the exported one is the next whole number below, since Lava fires above it only. `simulate`
    computes the network with `loihi_lif`, whose bits are those of lava-nc, or runs lava-nc itself.

    Example:
        >>> from spikecore import nn
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), nn.LIF(), torch.nn.Linear(3, 2), nn.LIF(reset="soft"))
        >>> [record.outcome for record in Lava().check(net, torch.zeros(4, 1, 2))]
        ['approximated', 'mapped', 'approximated', 'refused']
    """

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[DeployerCapabilities] = DeployerCapabilities(
        simulates=True, bit_exact=True, tolerance=TOLERANCE, imports=True
    )
    config: Any

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            precision: `fixed_pt`: as Loihi computes; `floating_pt`: doubles, for looking at what fixed point changes.
            executor: what simulates: `loihi_lif`, or `lava`: lava-nc, here or in a Python 3.10 (SPIKE_LAVA_PYTHON).
            timeout: seconds after which a run of lava-nc is ended.
            max_bytes: of a network that is read.
        """

        precision: Literal["fixed_pt", "floating_pt"] = "fixed_pt"
        executor: Literal["loihi_lif", "lava"] = "loihi_lif"
        timeout: Annotated[float, Range(gt=0.0)] = 300.0
        max_bytes: Annotated[int, Range(ge=1)] = 2**31

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)

    def check(self, model: torch.nn.Module, example_input: Tensor) -> tuple[OperatorRecord, ...]:
        """What becomes of every operator of the net."""
        return planned(model, example_input, self.config.precision).records

    def export(self, model: torch.nn.Module, example_input: Tensor, path: Path) -> Artefact:
        """Write the directory, whole or not at all.

        Raises:
            ConversionError: an operator is refused; names all of them.
        """
        plan = planned(model, example_input, self.config.precision)
        require_mapped(plan.records, "Lava")
        notes = [*plan.notes]
        path = Path(path)
        with _whole(path) as aside:
            write_network(plan.network, aside)
            shutil.copyfile(runner.__file__, aside / "run.py")
            missing = unwritten_part(plan.network)
            if missing:
                notes.append(f"{NET_FILE} is not written: {missing}.")
            else:
                notes += write_net_file(plan.network, aside / NET_FILE)
        return Artefact(path, plan.records, tuple(notes))

    def simulate(self, artefact: Artefact, x: Tensor) -> Tensor:
        """What the network gives for whole numbers `x` `[T, B, ...]`.

        Raises:
            ConversionError: the files cannot be read.
            ShapeError: it takes another shape, or whole numbers.
            PluginUnavailable: lava-nc was asked for and is not here, or does not work.
        """
        return self._run(artefact, x)[-1]

    def trace(self, artefact: Artefact, x: Tensor) -> dict[str, Tensor]:
        """What each population gives."""
        network = self._read(Path(artefact.path))
        outs = self._run(artefact, x)
        return {
            layer.name: out for layer, out in zip(network.layers, outs, strict=True) if layer.population is not None
        }

    def load(self, path: Path) -> torch.nn.Module:
        """The net of a directory, or of a `.net` file of lava-dl; in evaluation mode, with `loihi_lif`.

        Raises:
            ConversionError: it is damaged, or holds what no net of ours computes.
        """
        return LavaNet(self._read(Path(path)), str(path)).eval()

    @torch.no_grad()
    def _run(self, artefact: Artefact, x: Tensor) -> list[Tensor]:
        path = Path(artefact.path)
        network = self._read(path)
        if x.dim() < 2 or tuple(x.shape[2:]) != network.input_shape:
            raise ShapeError(f"the network takes [T, B, *{network.input_shape}], got {tuple(x.shape)}")
        if not torch.equal(x, x.round()):
            raise ShapeError("the network takes whole numbers, since Lava sends spikes: encode the input")
        if self.config.executor == "lava":
            if path.is_file():
                raise ConversionError(
                    f"{path}: lava-nc runs a directory of this deployer; load it, and export it again"
                )
            return [
                torch.from_numpy(out).to(x.dtype) for out in run_in_lava(path, x.cpu().numpy(), self.config.timeout)
            ]
        # Doubles hold sums of counts that float32 would round; what is beyond 24 bits wraps, as in lava-nc.
        net = LavaNet(network, str(path)).eval().double()
        return [out.to(x.dtype) for out in net.all_layers(x.double())]

    def _read(self, path: Path) -> Network:
        if path.is_file():
            return read_net_file(path, self.config.max_bytes)
        return read_network(path, self.config.max_bytes)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A new directory beside `path`, which becomes `path` if the body succeeds."""
    if path.exists():
        raise ConversionError(f"{path} exists already: give a path that does not")
    aside = path.with_name(f".{path.name}.unfinished")
    try:
        aside.mkdir()
    except OSError as error:
        raise ConversionError(f"{aside} cannot be made ({error}): remove it, or give another path") from error
    try:
        yield aside
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
