"""Small trained-looking nets with functions, joins and blocks, and data for them."""

import torch
from torch import nn
from torch.nn import functional as F

from spikecore import nn as snn


def settled(net, seed=0):
    """Weights by a generator; norms with statistics of their own; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.copy_(torch.rand(part.num_features, generator=generator) - 0.5)
                part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
                part.weight.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
                part.bias.copy_(torch.rand(part.num_features, generator=generator) - 0.3)
            elif isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                fan_in = part.weight[0].numel()
                part.weight.copy_(torch.randn(part.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
                if part.bias is not None:
                    part.bias.copy_(torch.rand(part.bias.shape, generator=generator) * 0.2)
    return net.eval()


class Everything(nn.Module):
    """Residual add, concat, in-place ReLU, ReLU6, clamp, both poolings, upsampling, dropout, methods and functions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)
        self.bn3 = nn.BatchNorm2d(12)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.bn4 = nn.BatchNorm2d(8)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)
        self.relu, self.relu6 = nn.ReLU(inplace=True), nn.ReLU6()
        self.fc1, self.fc2 = nn.Linear(8 * 4 * 4, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(x)) + x, inplace=True)
        z = F.max_pool2d(torch.cat([x, y], 1), 2)
        z = self.relu6(self.bn3(z))
        z = F.interpolate(z, scale_factor=2)
        z = F.avg_pool2d(self.bn4(self.up(z)).clamp(min=0), 4)
        z = self.drop(z).flatten(1)
        z = self.fc1(z).relu_()
        return self.fc2(F.dropout(z, 0.5, self.training))


class OverwrittenSkip(nn.Module):
    """The skip reads what an in-place ReLU has written."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.fc1(x)
        z = self.fc2(self.relu(y))
        z += y  # y is rectified by now
        return z


class TransformerBlock(nn.Module):
    """Pre-norm attention written out, and SDPA; a learned position; RMS norm, GELU, SiLU and ReLU."""

    def __init__(self, width=16, heads=2, norm=nn.RMSNorm):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), norm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate, self.up, self.down = (nn.Linear(width, width) for _ in range(3))
        self.place = nn.Parameter(torch.randn(1, 8, width, generator=torch.Generator().manual_seed(1)))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = x + self.place
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * (width // self.heads) ** -0.5
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(attended)
        x = x + F.scaled_dot_product_attention(x, x, F.relu(x))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * F.gelu(self.up(y)))
        return self.head(self.norm3(x).mean(1))


class QuantizedResNet(nn.Module):
    """Two residual blocks with QCFS activations."""

    def __init__(self, levels=8):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, bias=False) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(4))
        from spikecore_ann2snn import QCFS

        self.acts = nn.ModuleList(
            QCFS(levels=levels, v_threshold=1.0 + 0.3 * index, step_mode="single") for index in range(5)
        )
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.acts[0](self.norm(self.stem(x)))
        for block in range(2):
            y = self.acts[1 + 2 * block](self.norms[2 * block](self.convs[2 * block](x)))
            y = self.norms[2 * block + 1](self.convs[2 * block + 1](y))
            x = self.acts[2 + 2 * block](x + y)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class RunModel(nn.Module):
    """As a run's model is: folded layers and blocks around spikecore's ReLU."""

    def __init__(self):
        super().__init__()
        self.first = snn.fold_time(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)))
        self.relu = snn.ReLU()
        self.block = snn.ConvBNNeuron(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), snn.ReLU())
        self.last = snn.Linear(4 * 36, 4)

    def forward(self, x):
        return self.last(self.block(self.relu(self.first(x))).flatten(-3))


def mean_output(net, x, num_steps):
    """Over T steps of the same input."""
    with torch.no_grad():
        return net(x.expand(num_steps, *x.shape)).mean(0)
