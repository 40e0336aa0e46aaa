"""The part of `make bench-gpu` about nets, on the CPU with tiny sizes: what it would time runs, and is compared."""

import csv

import pytest
import torch

from tests.benchmarks import gpu, gpu_nets


def test_nets_run(tmp_path):
    path = tmp_path / "nets.csv"
    assert gpu_nets.main(["--device", "cpu", "--tiny", "--backend", "cpu", "--csv", str(path)]) == 0
    with path.open(newline="") as file:
        rows = {(row["subject"], row["candidate"]): row for row in csv.DictReader(file)}
    expected = {
        ("sew_resnet18", "torch"),
        ("sew_resnet18", "cpu"),
        ("conv, neuron", "torch"),
        ("conv, neuron", "torch, compiled"),
        ("conv, neuron", "cpu"),
        ("conv, neuron", "cpu, compiled"),
        ("norm, neuron", "torch"),
        ("norm, neuron", "cpu, pair"),
        ("norm, neuron", "cpu, one call"),
        ("exponential", "torch"),
        ("exponential", "cpu"),
    }
    assert {key for key, row in rows.items() if row["status"] == "ok" and row["kind"] == "backend"} == expected
    assert all(float(rows[key]["wall_ms"]) > 0 for key in expected)
    assert "outputs differ from eager torch's" in rows["exponential", "cpu"]["compared"]
    assert "fast_exp" in rows["exponential", "cpu, fast_exp"]["reason"], "an option of backends for GPUs"
    peer = rows["sew_resnet18", "spikingjelly"]
    assert peer["status"] == "ok" or "spikingjelly" in peer["reason"]


def test_a_backend_that_computes_something_else_is_not_timed(monkeypatch):
    right = gpu_nets.pair_step

    def wrong(run, params, x):
        step = right(run, params, x)
        return lambda: step() * 1.1 if run is wrong_run else step()

    def wrong_run(x):
        return x * 2.0

    candidates = {
        "torch": lambda: right(lambda x: x, (), torch.ones(2, 1, 1, 1, 1)),
        "cpu": lambda: wrong(wrong_run, (), torch.ones(2, 1, 1, 1, 1)),
    }
    subject = gpu_nets.Subject(lambda *given: candidates, "forward+backward", "maps")
    monkeypatch.setattr(gpu_nets, "SUBJECTS", {"one": subject})
    rows = {row.candidate: row for row in gpu_nets.measure(["cpu"], gpu_nets.TINY, torch.device("cpu"))}
    assert rows["torch"].status == "ok"
    assert rows["cpu"].status == "failed"
    assert rows["cpu"].wall_ms is None


def test_a_candidate_that_raises_is_a_row(monkeypatch, tmp_path):
    """The figures of the others are kept. A peer's fault is none of ours."""

    def broken():
        raise AttributeError("there is no set_backend")

    def working():
        return gpu_nets.pair_step(lambda x: x, (), torch.ones(2, 1, 1, 1, 1))

    for name, status in (("spikingjelly", 0), ("cpu", 1)):
        candidates = {"torch": working, name: broken}
        subject = gpu_nets.Subject(lambda *given, made=candidates: made, "forward+backward", "maps")
        monkeypatch.setattr(gpu_nets, "SUBJECTS", {"one": subject})
        path = tmp_path / f"{name}.csv"
        assert gpu_nets.main(["--device", "cpu", "--tiny", "--backend", "cpu", "--csv", str(path)]) == status
        with path.open(newline="") as file:
            rows = {row["candidate"]: row for row in csv.DictReader(file)}
        assert rows["torch"]["status"] == "ok"
        assert rows[name]["status"] == "failed"
        assert rows[name]["reason"] == "AttributeError: there is no set_backend"


def test_a_process_that_a_signal_ended_is_a_failure():
    assert gpu.exit_status([0, 0]) == 0
    assert gpu.exit_status([0, 2, 1]) == 2
    assert gpu.exit_status([-11, 0]) == 1


def test_spikes_that_differ_are_counted():
    right = torch.zeros(1000)
    right[::4] = 1.0
    ours = right.clone()
    ours[:2] = 1.0 - ours[:2]
    assert gpu_nets.compare_spikes(ours, right) == ("2 of 1000 outputs differ from eager torch's 250 spikes", True)
    ours[:4] = 1.0 - right[:4]
    assert not gpu_nets.compare_spikes(ours, right)[1]


def test_a_backend_that_is_not_here_is_a_row_with_its_reason():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    rows = gpu_nets.measure(["triton"], gpu_nets.TINY, torch.device("cpu"))
    absent = [row for row in rows if row.candidate.startswith("triton")]
    assert absent
    assert {row.status for row in absent} == {"unavailable"}
    assert all("CUDA" in row.reason or "GPU" in row.reason for row in absent)
