"""The hooks of this plugin: it writes the animation of a greedy episode, and tells `spike doctor` what is missing.

Loaded at every run, so it imports nothing heavy before it is needed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from spikecore import DoctorCheck, hookimpl

if TYPE_CHECKING:
    from torch import nn

_nets: dict[Path, ref[nn.Module]] = {}
ANIMATION = "spikecore_rl_agents.animation"


@hookimpl
def spike_run_start(directory: Path, record: Mapping[str, Any], model: nn.Module) -> None:
    """Remember which net is trained in which directory."""
    if record["task"] == "environment":
        _nets[directory] = ref(model)


@hookimpl
def spike_run_end(directory: Path, status: str) -> None:
    """Write `episode.gif` of a run that has finished and shown one."""
    net = _nets.pop(directory, lambda: None)()
    if net is None or status != "finished" or ANIMATION not in sys.modules:
        return
    sys.modules[ANIMATION].write_gif(directory, net)


@hookimpl
def spike_doctor_checks() -> list[DoctorCheck]:
    """Which families of environments can be used."""
    return [
        _check("pictures of classic environments", ("pygame",), "render"),
        _check("Atari", ("ale_py", "cv2"), "atari"),
        _check("MuJoCo", ("mujoco",), "mujoco"),
        _check("Box2D", ("Box2D",), "box2d"),
    ]


def _check(name: str, modules: tuple[str, ...], extra: str) -> DoctorCheck:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if not missing:
        return DoctorCheck(f"rl-agents: {name}", "ok")
    return DoctorCheck(
        f"rl-agents: {name}",
        "missing",
        f"no {', '.join(missing)}",
        f"pip install 'spikecore-rl-agents[{extra}]'",
    )
