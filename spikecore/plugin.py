"""Core's own hooks, through the same machinery as every plugin's. Imports nothing heavy by itself."""

from __future__ import annotations

import os

from spikecore.registry.hookspecs import DoctorCheck, hookimpl


@hookimpl
def spike_report_header(device: str) -> str:
    """Versions and device of a run."""
    import platform

    import torch

    from spikecore.version import __version__

    threads = f", {_threads()}" if device == "cpu" else ""
    return f"spikecore {__version__}, torch {torch.__version__}, Python {platform.python_version()}, {device}{threads}"


@hookimpl
def spike_doctor_checks() -> list[DoctorCheck]:
    """Torch computes and differentiates; a run directory can be made here."""
    return [_torch(), _gpu(), _directory()]


def _torch() -> DoctorCheck:
    import torch

    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad((x * x).sum(), x)
    works = bool((gradient == 2).all())
    detail = f"{torch.__version__}, {_threads()}"
    return DoctorCheck("torch", "ok" if works else "broken", detail, "" if works else "install torch again")


def _threads() -> str:
    import torch

    number = torch.get_num_threads()
    return "1 thread" if number == 1 else f"{number} threads"


def _gpu() -> DoctorCheck:
    import torch

    if not torch.cuda.is_available():
        return DoctorCheck("GPU", "missing", "torch finds none; runs use the CPU", "")
    return DoctorCheck("GPU", "ok", torch.cuda.get_device_name(0))


def _directory() -> DoctorCheck:
    if os.access(".", os.W_OK):
        return DoctorCheck("run directory", "ok", "runs/ can be made here")
    return DoctorCheck("run directory", "missing", f"{os.getcwd()} is read-only", "give `spike run --out DIR`")
