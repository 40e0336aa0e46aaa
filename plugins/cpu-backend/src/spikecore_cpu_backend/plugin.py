"""The hooks of this plugin: `spike doctor` hears whether a C compiler works here."""

from __future__ import annotations

from spikecore import DoctorCheck, hookimpl
from spikecore.errors import BackendError, PluginUnavailable


@hookimpl  # type: ignore[untyped-decorator]
def spike_doctor_checks() -> list[DoctorCheck]:
    """Finds the compiler and builds the runtime with it."""
    from spikecore_cpu_backend.backend import CPUBackend

    try:
        backend = CPUBackend()
    except PluginUnavailable as error:
        return [DoctorCheck("C compiler", "missing", error.reason, error.hint)]
    except BackendError as error:
        return [DoctorCheck("C compiler", "broken", str(error))]
    return [DoctorCheck("C compiler", "ok", f"{backend.compiler.path}: {backend.compiler.version}")]
