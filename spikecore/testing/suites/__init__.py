"""One conformance suite per kind, in a module of the kind's name; `spikecore.kinds` says which."""
