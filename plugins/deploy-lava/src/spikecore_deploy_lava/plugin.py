"""The hooks of this plugin, loaded at every run: import nothing heavy here.

Which hooks there are: `spikecore.registry.hookspecs`. The module also gives the plugin its id.
"""

from spikecore import DoctorCheck, hookimpl
from spikecore.errors import PluginUnavailable


@hookimpl
def spike_doctor_checks() -> list[DoctorCheck]:
    """Whether lava-nc runs, here or in another Python; everything but running it works without."""
    from spikecore_deploy_lava.interpreter import description

    try:
        return [DoctorCheck("lava-nc", "ok", description())]
    except PluginUnavailable as error:
        reason, _, recipe = str(error).rpartition(": ")
        return [DoctorCheck("lava-nc", "missing", reason, recipe)]
