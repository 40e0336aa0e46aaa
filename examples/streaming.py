# python examples/streaming.py
"""One net, three ways to feed it: a whole sequence, the same sequence in chunks, one step at a time."""

import torch

from spikecore import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 32), nn.LIF(tau=3.0), nn.Linear(32, 2), nn.LIF(tau=3.0, v_threshold=0.1))
x = 4 * torch.randn(20, 1, 8)  # [T, B, N]

with torch.no_grad():
    whole = net(x)  # starts from the initial state, leaves nothing behind

    with nn.streaming(net):  # state runs on from call to call, and is dropped at the end
        chunks = torch.cat([net(chunk) for chunk in x.split(6)])

    nn.set_step_mode(net, "single")  # [B, N] per call; always streams
    steps = torch.stack([net(current) for current in x])
    nn.reset_state(net)  # before the next sequence

assert torch.equal(whole, chunks)
assert torch.equal(whole, steps)
assert whole.sum() > 0
print(f"{int(whole.sum())} spikes, the same in all three ways")
