"""The neuron language: equations written once."""

from spikecore.dynamics.graph import Graph, Node, Param, Program
from spikecore.dynamics.ops import atan, detach, exp, sigmoid, spike, where

__all__ = ["Graph", "Node", "Param", "Program", "atan", "detach", "exp", "sigmoid", "spike", "where"]
