"""The neuron language: equations written once, traced to a graph, differentiated, printed by backends."""

from spikecore.dynamics.graph import Graph, Node, Param, Program

__all__ = ["Graph", "Node", "Param", "Program"]
