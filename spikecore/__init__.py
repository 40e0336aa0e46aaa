"""spikecore: a PyTorch framework for spiking neural networks, built as a plugin microkernel."""
