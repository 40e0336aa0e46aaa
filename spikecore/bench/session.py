"""Runs a benchmark: collect candidates, compare them, then measure times, floor, memory and first use → rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spikecore.bench import fresh, gate, nets, stacks, timing
from spikecore.bench.candidates import Candidate, Unsupported, backends
from spikecore.bench.cases import (
    FORWARD,
    SHAPES,
    STEP,
    STEP_SHAPE,
    TRAINING,
    Case,
    Runner,
    call_context,
    elementwise_neurons,
    is_elementwise,
)
from spikecore.bench.floor import Bandwidth, bytes_per_step, copies
from spikecore.bench.peers import COMPILE_STEPS, peers
from spikecore.bench.rows import FAILED, OK, UNAVAILABLE, UNSUPPORTED, Row, fill
from spikecore.errors import BackendError, ConfigError
from spikecore.registry import registry

LIF = "lif"
ALL = "all"
Verdicts = dict[tuple[str, str], "gate.Verdict | Unsupported"]
TOTAL_S, MOST_S = 90.0, 4.0
NUM_STACK_CELLS = len(stacks.RATES) * sum(len(stack.measures) for stack in stacks.STACKS.values())


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Args:
        neurons: registered names; `("all",)` for every elementwise one.
        shapes: `(T, B, N)`, each.
        backends: names; none for every usable one.
        device: torch device.
        dtype: of the input.
        effort: how long one cell may take; None: as long as lets all of them take `TOTAL_S`.
        with_peers: other libraries too.
        with_nets: whole layers and nets too.
        with_fresh: memory and first use too, of the first neuron.
        is_quick: deep stacks with one sample of two steps, at one rate.
        compile_steps: the longest T that torch.compile is given.
    """

    neurons: tuple[str, ...] = (LIF,)
    shapes: tuple[tuple[int, ...], ...] = SHAPES
    backends: tuple[str, ...] = ()
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (immutable)
    dtype: torch.dtype = torch.float32
    effort: timing.Effort | None = None
    with_peers: bool = False
    with_nets: bool = False
    with_fresh: bool = True
    is_quick: bool = False
    compile_steps: int = COMPILE_STEPS


@dataclass
class Report:
    """The results.

    Args:
        rows: one per measurement, and one per candidate and case that was not measured.
        notes: what was left out, and why.
    """

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Row]:
        """Rows of backends that computed something else, or raised."""
        return [row for row in self.rows if row.status == FAILED and row.kind == "backend"]


class Session:
    """Runs a plan.

    Args:
        plan: what to measure.
        clock: times calls; by default the one for the device.
        tell: called with a line about the next part.

    Raises:
        PluginError: a neuron or backend that was asked for does not exist or cannot be used.
        ConfigError: there is no such device.
    """

    def __init__(
        self, plan: Plan, clock: timing.Clock | None = None, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self.plan = plan
        self.tell = tell
        self.report = Report()
        _check_device(plan.device)
        self.clock = clock or timing.clock_for(plan.device)
        self.neurons = self._neurons()
        self.candidates, unusable = backends(plan.backends)
        self.reference = self.candidates[0]
        for name, reason in unusable.items():
            self._unavailable(name, "backend", reason)
        if plan.with_peers:
            installed, absent = peers(plan.compile_steps, device=plan.device)
            self.candidates += installed
            for name, reason in absent.items():
                self._unavailable(name, "peer", reason)
        self.bandwidth = Bandwidth()
        self.effort = plan.effort or timing.Effort(min(MOST_S * len(self.neurons), TOTAL_S / self._num_cells()))

    def _num_cells(self) -> int:
        return 2 * len(self.plan.shapes) + 1 + (len(nets.NETS) + NUM_STACK_CELLS) * self.plan.with_nets

    def run(self) -> Report:
        """Everything in the plan."""
        for shape in self.plan.shapes:
            self._shape(shape)
        self._cell(STEP_SHAPE, STEP, self._step_verdicts())
        if self.plan.with_fresh:
            self._fresh(self.neurons[0])
        if self.plan.with_nets:
            self._nets()
            self._stacks()
        self._finish()
        self._check_that_backends_ran()
        return self.report

    def case(self, neuron: str, shape: tuple[int, ...]) -> Case:
        """A case of this plan."""
        return Case(neuron, shape, self.plan.device, self.plan.dtype)

    def _neurons(self) -> tuple[str, ...]:
        if ALL not in self.plan.neurons:
            for name in self.plan.neurons:
                if not is_elementwise(registry().load("neuron", name)):
                    raise ConfigError(f"--neuron {name}: is not elementwise, so no backend runs it; name another")
            return self.plan.neurons
        names, left_out = elementwise_neurons()
        self.report.notes += [f"neuron {name} is left out: {reason}" for name, reason in left_out.items()]
        return tuple(sorted(names, key=lambda name: (name != LIF, name)))

    def _unavailable(self, name: str, kind: str, reason: str) -> None:
        row = Row("", "", "", name, kind=kind, device=str(self.plan.device), status=UNAVAILABLE, reason=reason)
        self.report.rows.append(row)

    def row(self, candidate: Candidate, subject: str, shape: str, measure: str, **values: Any) -> Row:
        """A row of this plan."""
        kind = "backend" if candidate.is_backend else "peer"
        dtype = str(self.plan.dtype).removeprefix("torch.")
        version = candidate.version
        return Row(subject, shape, measure, candidate.name, version, kind, str(self.plan.device), dtype, **values)

    def _shape(self, shape: tuple[int, ...]) -> None:
        """Both measures of every neuron at one shape; all neurons take turns too, so that they can be compared."""
        verdicts: Verdicts = {}
        for neuron in self.neurons:
            case = self.case(neuron, shape)
            self.tell(f"{neuron} {case.title}: comparing")
            for candidate in self.candidates:
                verdicts[neuron, candidate.name] = self._verdict(candidate, case)
        for measure in (FORWARD, TRAINING):
            self._cell(shape, measure, verdicts)

    def _verdict(self, candidate: Candidate, case: Case) -> gate.Verdict | Unsupported:
        if candidate is self.reference:
            return gate.Verdict(True, "is the reference")
        compare = gate.backend_gate if candidate.is_backend else gate.peer_gate
        try:
            return compare(candidate, self.reference, case)
        except Unsupported as error:
            return error
        except Exception as error:  # a candidate's own fault is a row, not the end of the others
            return gate.Verdict(False, f"{type(error).__name__}: {error}")

    def _step_verdicts(self) -> Verdicts:
        """Verdicts for single steps: a candidate may be timed if no earlier comparison of the neuron failed."""
        compared: dict[tuple[str, str], str] = {}
        for row in self.report.rows:
            if row.kind == "backend":
                compared[row.subject, row.candidate] = row.compared
        failed = {(row.subject, row.candidate): row.reason for row in self.report.failed}
        verdicts: Verdicts = {}
        for neuron in self.neurons:
            for candidate in self.candidates:
                key = (neuron, candidate.name)
                if key in failed:
                    verdicts[key] = gate.Verdict(False, failed[key])
                else:
                    verdicts[key] = gate.Verdict(True, compared.get(key, ""))
        return verdicts

    def _cell(self, shape: tuple[int, ...], measure: str, verdicts: Verdicts) -> None:
        """One shape, one measure: all neurons on all candidates in turns, with the copies that give the floor."""
        case = self.case(self.neurons[0], shape)
        self.tell(f"{case.title}: {measure}")
        x, grad = case.input(), case.grad()
        rows: dict[str, dict[str, Row]] = {neuron: {} for neuron in self.neurons}
        runs: dict[tuple[str, str], timing.Run] = {}
        for neuron in self.neurons:
            for candidate in self.candidates:
                row = self.row(candidate, neuron, case.title, measure)
                verdict = verdicts[neuron, candidate.name]
                runner = _runner_if_admitted(candidate, self.case(neuron, shape), measure, verdict, row)
                if runner is not None:
                    runs[neuron, candidate.name] = runner.once(measure, x, grad)
                rows[neuron][candidate.name] = row
        own = ((candidate.name, candidate.backend) for candidate in self.candidates if candidate.backend is not None)
        copying = {} if measure == STEP else {("", name): run for name, run in copies(case, own).items()}
        with call_context(measure):
            times = timing.interleave({**runs, **copying}, self.clock, self.effort)
        for key in copying:
            self.bandwidth.add(case.num_bytes, [sample.wall for sample in times[key].samples])
        for neuron, own_rows in rows.items():
            fill(own_rows, {name: times[of, name] for of, name in runs if of == neuron}, self.reference.name)
            rate = None if measure == STEP else self._rate(self.case(neuron, shape), x)
            for row in own_rows.values():
                row.rate = rate
            self.report.rows += own_rows.values()

    def _rate(self, case: Case, x: Tensor) -> float:
        with torch.no_grad():
            return float(self.reference.make(case, FORWARD).call(x).double().mean())

    def _fresh(self, neuron: str) -> None:
        cases = [self.case(neuron, shape) for shape in self.plan.shapes]
        for candidate in self.candidates:
            own = [row for row in self.report.rows if (row.subject, row.candidate) == (neuron, candidate.name)]
            if all(row.status != OK for row in own):
                continue
            self.tell(f"{neuron}: {candidate.name} in a fresh process")
            figures = fresh.measure(candidate, cases, self.plan.compile_steps)
            for row in own:
                key = (row.shape, row.measure)
                if row.status != OK:
                    continue
                row.peak_mib = figures.peak_mib.get(key)
                row.first_cold_ms, row.first_warm_ms = figures.cold_ms.get(key), figures.warm_ms.get(key)
                if key in figures.cold_ms:
                    row.load_cold_ms, row.load_warm_ms = figures.load_cold_ms, figures.load_warm_ms
            if figures.problem:
                self.report.notes.append(f"{candidate.name}: memory or first use is missing: {figures.problem}")
        if len(self.neurons) > 1:
            self.report.notes.append(f"memory and first use: of {neuron}; for another, name it alone")

    def _nets(self) -> None:
        candidates = {who.name: who for who in self.candidates if who.is_backend or who.name == nets.PEER}
        for name, net in nets.NETS.items():
            subject, shape = f"{name} net", ",".join(map(str, net.shape))
            rows: dict[str, Row] = {}
            runs: dict[str, timing.Run] = {}
            self.tell(f"{subject}: comparing")
            for who, candidate in candidates.items():
                row = rows[who] = self.row(candidate, subject, shape, net.measure)
                row.dtype = "float32"
                if _let_in(candidate, self._net_verdict(name, who), row):
                    runs[who] = nets.step_of(name, who, str(self.plan.device))
            if not net.is_direct:  # without neurons, everything would run for one step
                rows[nets.BOUND] = Row(subject, shape, net.measure, nets.BOUND, "", "bound", str(self.plan.device))
                runs[nets.BOUND] = nets.step_of(name, nets.BOUND, str(self.plan.device))
            self.tell(f"{subject}: {net.measure}")
            fill(rows, timing.interleave(runs, self.clock, self.effort), self.reference.name)
            for who in runs if self.plan.with_fresh else ():
                self.tell(f"{subject}: {who} in a fresh process")
                rows[who].peak_mib, problem = fresh.measure_net(name, who, self.plan.device)
                if problem:
                    self.report.notes.append(f"{subject}, {who}: memory is missing: {problem}")
            self.report.rows += rows.values()
        if nets.PEER not in candidates:
            self.report.notes.append(f"nets beside {nets.PEER}: with --peers, where it is installed")

    def _stacks(self) -> None:
        if self.plan.device.type != "cpu":
            self.report.notes.append("deep stacks: on the CPU, where a backend has spike products")
            return
        for name, stack in stacks.STACKS.items():
            shape = (2, 1, *stack.shape[2:]) if self.plan.is_quick else stack.shape
            for rate in stacks.RATES[:1] if self.plan.is_quick else stacks.RATES:
                for measure in stack.measures:
                    self._stack(name, rate, measure, shape)

    def _stack(self, name: str, rate: float, measure: str, shape: tuple[int, ...]) -> None:
        """One stack at one rate: all candidates in turns, spikes compared with those of dense float32."""
        subject, text = f"{name} at {rate:.0%}", ",".join(map(str, shape))
        self.tell(f"{subject}: {measure}")
        candidates = stacks.candidates_of(name, rate, measure, shape)
        runs: dict[str, Callable[[], Tensor]] = dict(candidates.runs)
        kinds = {who: "backend" if who in (stacks.EVENTS, stacks.OPTIMIZED) else "peer" for who in runs}
        if self.plan.with_peers:
            try:
                runs[nets.PEER] = stacks.peer_of(name, rate, measure, shape)
                kinds[nets.PEER] = "peer"
            except ImportError as error:
                self.report.notes.append(f"{subject}: without {nets.PEER}: {error}")
        rows = {who: Row(subject, text, measure, who, "", kinds[who]) for who in runs}
        right = runs[stacks.DENSE]()
        changed = f"{candidates.flips} of {candidates.num_spikes} spikes change, block by block"
        timed: dict[str, timing.Run] = {}
        for who, run in runs.items():
            row = rows[who]
            row.rate = candidates.rate
            row.compared = f"{int((right != run()).sum())} of {right.numel()} outputs differ from dense float32"
            if kinds[who] == "backend":
                row.compared = f"{changed}; {row.compared}"
            if kinds[who] == "backend" and candidates.flips > stacks.FLIPS * candidates.num_spikes:
                row.status, row.reason = FAILED, row.compared
            else:
                timed[who] = run
        fill(rows, timing.interleave(timed, self.clock, self.effort), stacks.DENSE)
        for row in rows.values():
            row.floor_ms = candidates.floor_ms
            if row.wall_ms:
                row.times_floor = row.wall_ms / candidates.floor_ms
        self.report.rows += rows.values()
        shares = ", ".join(f"{share:.3f}" for share in candidates.rates)
        text = f"ones at the convolutions {shares}; of the output {candidates.rate:.3f}"
        self.report.notes.append(f"{subject}, {measure}: {text}")

    def _net_verdict(self, name: str, candidate: str) -> gate.Verdict | Unsupported:
        try:
            return nets.gate(name, candidate, self.reference.name, str(self.plan.device))
        except Unsupported as error:
            return error

    def _finish(self) -> None:
        """What needs the whole run: the best copy of each size, and LIF."""
        per_byte: dict[tuple[str, str, str], float] = {}
        for row in self.report.rows:
            if row.wall_ms is None or row.subject not in self.neurons or row.measure not in (FORWARD, TRAINING):
                continue
            case = Case(row.subject, tuple(map(int, row.shape.split(","))), self.plan.device, self.plan.dtype)
            moved = case.num_elements * bytes_per_step(row.measure, case.dtype)
            row.ps_per_byte = row.wall_ms * 1e9 / moved
            floor_s, best = self.bandwidth.floor_s(case, row.measure), self.bandwidth.of(case.num_bytes)
            if floor_s is not None and best is not None:
                row.floor_ms, row.copy_gb_s = 1000 * floor_s, best / 1e9
                row.times_floor = row.wall_ms / row.floor_ms
            if row.subject == LIF:
                per_byte[row.candidate, row.measure, row.shape] = row.ps_per_byte
        for row in self.report.rows:
            lif = per_byte.get((row.candidate, row.measure, row.shape))
            if lif and row.ps_per_byte is not None:
                row.per_byte_of_lif = row.ps_per_byte / lif

    def _check_that_backends_ran(self) -> None:
        """A backend that was asked for and ran nothing is an error, not an empty column."""
        for name in self.plan.backends:
            own = [row for row in self.report.rows if row.candidate == name]
            if own and all(row.status == UNSUPPORTED for row in own):
                raise BackendError(f"backend {name!r} runs none of this: {own[0].reason}")


def _runner_if_admitted(
    candidate: Candidate, case: Case, measure: str, verdict: gate.Verdict | Unsupported, row: Row
) -> Runner | None:
    """The runner, if the verdict admits it; otherwise the row gets the reason."""
    if not _let_in(candidate, verdict, row):
        return None
    try:
        return candidate.make(case, measure)
    except Unsupported as error:
        row.status, row.reason = UNSUPPORTED, str(error)
        return None


def _let_in(candidate: Candidate, verdict: gate.Verdict | Unsupported, row: Row) -> bool:
    """Whether the verdict admits the candidate; the row gets the result."""
    if isinstance(verdict, Unsupported):
        row.status, row.reason = UNSUPPORTED, str(verdict)
        return False
    row.compared = verdict.text
    if not verdict.ok:
        row.status, row.reason = FAILED if candidate.is_backend else UNSUPPORTED, verdict.text
    return verdict.ok


def _check_device(device: torch.device) -> None:
    if device.type == "cpu":
        return
    present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if present is None or present.type != device.type or (device.index or 0) >= torch.accelerator.device_count():
        seen = "no accelerator" if present is None else f"{torch.accelerator.device_count()} × {present.type}"
        raise ConfigError(f"--device {device}: torch sees {seen} here; use cpu")
