"""The hooks of this plugin, loaded at every run: import nothing heavy here.

Which hooks there are: `spikecore.registry.hookspecs`. The module also gives the plugin its id.
"""
