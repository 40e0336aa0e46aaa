"""The hooks of this plugin: `spike doctor` hears whether triton and a GPU are here."""

from __future__ import annotations

from spikecore import DoctorCheck, hookimpl
from spikecore.errors import PluginUnavailable


@hookimpl  # type: ignore[untyped-decorator]
def spike_doctor_checks() -> list[DoctorCheck]:
    """Looks for triton and for a GPU."""
    from spikecore_triton_backend.backend import check_device, check_triton

    checks = []
    for name, check in (("triton", check_triton), ("GPU for triton", check_device)):
        try:
            check()
        except PluginUnavailable as error:
            checks.append(DoctorCheck(name, "missing", error.reason, error.hint))
        else:
            checks.append(DoctorCheck(name, "ok", "here"))
    return checks
