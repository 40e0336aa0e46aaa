"""Processors of one name that differ in generation are told apart."""

from pathlib import Path

import pytest

from spikecore import processor
from spikecore.processor import processor_name

ZEN_3 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
flags\t\t: fpu sse2 avx f16c avx2

processor\t: 1
model name\t: another
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve\nCPU architecture: 8\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (ZEN_3, "AMD EPYC (family 25, model 1, AVX2)"),
        (ZEN_3.replace("avx2", "avx2 avx512f").replace("25", "26"), "AMD EPYC (family 26, model 1, AVX-512)"),
        (ZEN_3.replace("flags\t\t: fpu sse2 avx f16c avx2\n", ""), "AMD EPYC (family 25, model 1)"),
        (ARM, "a machine (SVE)"),
        ("", "a machine"),
        ("no colon here\n\n", "a machine"),
    ],
)
def test_says_generation_and_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "a machine")
    assert processor_name() == name


def test_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "missing")
    monkeypatch.setattr("platform.processor", lambda: "a chip")
    assert processor_name() == "a chip"
