"""What plugin authors test with: conformance suites for every kind, and distributions made on the spot.

    from spikecore.testing.suites.neuron import NeuronSuite

    class TestMine(NeuronSuite):
        component = "mine"

`spike test neuron:mine` and `pytest --pyargs spikecore.testing --spike-component neuron:mine` run the same checks. The
suites need `pip install 'spikecore[testing]'`.
"""
