"""`spike convert-weights` from a file of torchvision's names to a net that loads it."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from spikecore import create, nn
from spikecore.cli.convert_weights import command
from spikecore.errors import CheckpointError

WIDTH = 4
SHAPE = "2,32,32"


def their_tensors():
    """Of an ANN's ResNet-18 of four planes, as torchvision names them."""
    generator = torch.Generator().manual_seed(0)
    convolutions = {"conv1": (WIDTH, 2, 7), "layer1.0.conv1": (WIDTH, WIDTH, 3)}
    channels = WIDTH
    for stage, factor in enumerate((1, 2, 4, 8), 1):
        planes = WIDTH * factor
        for block in range(2):
            convolutions[f"layer{stage}.{block}.conv1"] = (planes, channels, 3)
            convolutions[f"layer{stage}.{block}.conv2"] = (planes, planes, 3)
            if channels != planes:
                convolutions[f"layer{stage}.{block}.downsample.0"] = (planes, channels, 1)
            channels = planes
    tensors = {"fc.weight": torch.randn(3, channels, generator=generator), "fc.bias": torch.zeros(3)}
    for name, (out, inner, size) in convolutions.items():
        tensors[f"{name}.weight"] = torch.randn(out, inner, size, size, generator=generator)
        norm = name.replace("downsample.0", "downsample.1") if "downsample" in name else name.replace("conv", "bn")
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{norm}.{part}"] = torch.rand(out, generator=generator) + 0.1
    return tensors


def convert(file, out, *more):
    words = [file, "--from", "torchvision", "--model", "sew_resnet18", "--input-shape", SHAPE, "--num-outputs", 3]
    words += ["--set", f"width={WIDTH}", "--out", out, *more]
    return CliRunner().invoke(command, [str(word) for word in words])


def test_a_file_of_torchvision(tmp_path):
    tensors = their_tensors()
    torch.save(tensors, tmp_path / "ann.pth")
    result = convert(tmp_path / "ann.pth", tmp_path / "ours.safetensors")
    assert result.exit_code == 0, result.output
    net = create(
        "model",
        "sew_resnet18",
        lambda: nn.LIF(backend="torch"),
        (2, 32, 32),
        3,
        width=WIDTH,
        weights=Path(tmp_path / "ours.safetensors"),
    )
    assert torch.equal(net.layer3[0].downsample.conv.weight, tensors["layer3.0.downsample.0.weight"])
    assert torch.equal(net.layer4[1].conv2.norm.running_mean, tensors["layer4.1.bn2.running_mean"])


def test_a_tensor_too_few_is_listed(tmp_path):
    tensors = their_tensors()
    del tensors["layer2.1.bn1.bias"]
    tensors["layer2.1.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(tensors, tmp_path / "ann.pth")
    result = convert(tmp_path / "ann.pth", tmp_path / "ours.safetensors")
    assert isinstance(result.exception, CheckpointError)
    assert "missing     layer2.1.conv1.norm.bias [8]" in str(result.exception)
    assert "layer2.1.conv1.conv.weight: expected [8, 8, 3, 3], got [1, 2, 3, 3]" in str(result.exception)
    assert not (tmp_path / "ours.safetensors").exists()


def test_the_other_plan_does_not_fit(tmp_path):
    torch.save(their_tensors(), tmp_path / "ann.pth")
    result = convert(tmp_path / "ann.pth", tmp_path / "ours.safetensors", "--set", "width=8")
    with pytest.raises(CheckpointError, match="shape"):
        raise result.exception
