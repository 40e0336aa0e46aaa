"""The fresh process: `python -m spikecore.bench.worker`, a question on standard input, the answer on standard output.

first use   from `make` to the end of the first call, at each shape in turn, so that a candidate which compiles per
            shape pays again. Loading the plugin or library is a figure of its own.
memory      of one call, see `memory`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Mapping
from itertools import product
from typing import Any

import torch

from spikecore.bench.candidates import Candidate, Unsupported, backends, reference
from spikecore.bench.cases import FORWARD, TRAINING, Case, call_context
from spikecore.bench.memory import Run, peak_mib
from spikecore.registry import registry

MEASURES = (FORWARD, TRAINING)


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """First use and memory of one candidate at every shape; or memory of one net."""
    torch.set_num_threads(1)  # a fork must find no thread pool
    for file in question["files"]:
        registry().load_file(file)
    return _net(question) if "net" in question else _candidate(question)


def _candidate(question: Mapping[str, Any]) -> dict[str, Any]:
    cases = [Case.unpack(packed) for packed in question["cases"]]
    for measure in MEASURES:  # the first use of torch itself must not count for a candidate
        _first_use_ms(reference(), cases[0].tiny(), measure)
    gc.collect()  # what importing torch left belongs to no candidate
    start = time.perf_counter()
    candidate = _find(question)
    load_ms = 1000 * (time.perf_counter() - start)
    first: dict[str, float] = {}
    peak: dict[str, float] = {}
    problems: list[str] = []
    tasks = [(first, _first_use_ms)]
    if question["memory"]:
        # Children begin with what this process holds: a pool filled by an earlier call would hide what a call takes, so
        # they come first. An accelerator's memory is counted in this process, which is then no longer fresh.
        tasks.insert(0 if cases[0].device.type == "cpu" else 1, (peak, _peak_mib))
    for figures, task in tasks:
        for case, measure in product(cases, MEASURES):
            try:
                figures[f"{case.title} {measure}"] = task(candidate, case, measure)
            except Unsupported:
                continue
            except Exception as error:
                problems.append(f"{case.title} {measure}: {type(error).__name__}: {error}")
    return {"load_ms": load_ms, "first": first, "peak": peak, "problem": "; ".join(problems[:1])}


def _find(question: Mapping[str, Any]) -> Candidate:
    if question["is_backend"]:
        return backends([question["candidate"]])[0][-1]
    from spikecore.bench.peers import peers

    candidates, absent = peers(question["compile_steps"], only=question["candidate"])
    if not candidates:
        raise LookupError(f"no peer {question['candidate']!r}: {absent}")
    return candidates[0]


def _first_use_ms(candidate: Candidate, case: Case, measure: str) -> float:
    x, grad = case.input(), case.grad()
    start = time.perf_counter()
    run = candidate.make(case, measure).once(measure, x, grad)
    with call_context(measure):
        run()
    if case.device.type != "cpu":
        torch.accelerator.synchronize(case.device)
    return 1000 * (time.perf_counter() - start)


def _peak_mib(candidate: Candidate, case: Case, measure: str) -> float:
    def run_of(who: Candidate, what: Case) -> Run:
        return who.make(what, measure).once(measure, what.input(), what.grad())

    def make() -> Run:
        run = run_of(candidate, case)
        if candidate.compiles_per_shape:  # what the compiler takes is not what the call takes
            run()
        return run

    def warm_up() -> None:
        for who in (reference(), *([] if candidate.compiles_per_shape else [candidate])):
            run_of(who, case.tiny())()

    candidate.make(case, measure)  # raises here, not in the child, where it does not take the case
    with call_context(measure):
        return peak_mib(make, case.device, warm_up)


def _net(question: Mapping[str, Any]) -> dict[str, Any]:
    from spikecore.bench.nets import step_of, tiny

    name, candidate, device = question["net"], question["candidate"], question["device"]
    warm_up = step_of(name, candidate, device, tiny(name))
    return {"peak": peak_mib(lambda: step_of(name, candidate, device), torch.device(device), warm_up)}


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what plugins and libraries print is no answer
    print(json.dumps(answer(json.load(sys.stdin))), file=channel, flush=True)
