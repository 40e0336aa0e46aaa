"""Neurons beyond IF and LIF, as a plugin of spikecore."""

from spikecore_neuron_zoo.neurons import EIF, Izhikevich

__all__ = ["EIF", "Izhikevich"]
