"""`spike bench`: how fast each backend runs a neuron, compared with the theoretical minimum.

A candidate (a backend or another library) is compared with eager torch before it is timed. One that computes something
else is shown as failed and is never timed.

    cases       what is measured: neuron × shape × device × dtype, and the input
    candidates  what can be measured: backends through the registry; peers, hand-written loops
    gate        comparison of outputs and gradients with the reference
    timing      interleaved rounds, percentiles
    floor       bytes that must move, over the best copy of the run
    fresh       peak memory and first use, in processes of their own
    nets        whole layers and training steps
    session     the order of all this → rows
    rows, show  a row per measurement: CSV, JSON, the terminal
"""
