"""Spiking reinforcement learning on gymnasium."""
