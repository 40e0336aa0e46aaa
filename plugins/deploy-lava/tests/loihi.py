"""Loihi's LIF in 64-bit integers, written from the equations: what the neuron and lava-nc are compared with."""

import numpy as np

HALF = 2**23


def decayed(n, kept):
    """Towards zero."""
    product = n * kept
    return np.sign(product) * (np.abs(product) >> 12)


def loihi(sums, du, dv, vth, bias=0, v=0):
    """(spikes, u, v) `[T, n]` of integer sums `[T, n]`; `bias` is aligned like a sum, `v` is the first potential."""
    u = np.zeros(sums.shape[1:], np.int64)
    v = np.broadcast_to(np.asarray(v, np.int64), u.shape).copy()
    spikes, currents, potentials = [], [], []
    for step in sums:
        u = decayed(u, 4096 - (du + 1)) + (step << 6)
        u = np.where(u > HALF, u - 2 * HALF, np.where(u <= -HALF, u + 2 * HALF, u))
        v = np.clip(decayed(v, 4096 - dv) + u + (bias << 6), 1 - HALF, HALF - 1)
        fires = v > (vth << 6)
        v = np.where(fires, 0, v)
        spikes.append(fires)
        currents.append(u)
        potentials.append(v)
    return np.array(spikes), np.array(currents), np.array(potentials)
