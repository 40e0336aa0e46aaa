"""The hooks of this plugin: `spike doctor` hears whether cupy and a GPU are here."""

from __future__ import annotations

from spikecore import DoctorCheck, hookimpl
from spikecore.errors import PluginUnavailable


@hookimpl  # type: ignore[untyped-decorator]
def spike_doctor_checks() -> list[DoctorCheck]:
    """Looks for cupy and for a GPU."""
    from spikecore_cupy_backend.backend import check_cupy, check_device

    checks = []
    for name, check in (("cupy", check_cupy), ("GPU for cupy", check_device)):
        try:
            check()
        except PluginUnavailable as error:
            checks.append(DoctorCheck(name, "missing", error.reason, error.hint))
        else:
            checks.append(DoctorCheck(name, "ok", "here"))
    return checks
