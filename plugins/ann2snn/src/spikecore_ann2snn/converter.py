"""`Ann2SNN`: the converter `ann2snn`, from a trained net to a spiking one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError
from spikecore.interfaces import (
    Configurable,
    ConversionReport,
    ConverterCapabilities,
    LayerReport,
    Range,
    make_config,
)
from spikecore.nn import GraphNet, set_step_mode
from spikecore_ann2snn.calibration import Expected, calibrate
from spikecore_ann2snn.folding import fold_thresholds
from spikecore_ann2snn.measuring import measure
from spikecore_ann2snn.neurons import FewSpikeReLU
from spikecore_ann2snn.onnx_source import OnnxSource
from spikecore_ann2snn.operations import declared
from spikecore_ann2snn.preparation import Prepared, fold_norms
from spikecore_ann2snn.recipes import WITHOUT_DATA, Plan, Recipe


def expectations(given: Prepared) -> dict[str, Expected]:
    """What training left in the batch norms of a net, by the names of their calls."""
    return {
        node.name: Expected(node, node.module.weight, node.module.bias)  # type: ignore[union-attr, arg-type]
        for node in given.graph.layers
        if given.role(node) == "norm" and getattr(node.module, "weight", None) is not None
    }


class Ann2SNN(OnnxSource, Configurable):
    """Converts a trained net with rectifiers into a spiking net, by one of several recipes.

    Every call of the net is accounted for: what is linear stays, rectifiers become neurons, norms are folded, and what
    has no counterpart is an error that names it, unless `allow` names it too. The new net takes `[T, B, ...]`: the same
    input at every step; its output, averaged over time, is that of the given net.

    Raises (of `convert`):
        ConversionError: a call has no counterpart; calibration data are missing or unfit; half precision.
        NetTraceError: the net branches on values, or cannot be followed for another reason; shows the line.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x = torch.rand(64, 4)
        >>> snn, report = Ann2SNN(recipe="max", T=(32,)).convert(net, x[:1], [x])
        >>> report.names("became")
        ['1']
        >>> snn(x.expand(32, *x.shape)).mean(0).shape
        torch.Size([64, 2])
    """

    api_version = 2
    capabilities: ClassVar[ConverterCapabilities] = ConverterCapabilities(layers=declared(), reads=(".onnx",))

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            recipe: how thresholds are found, and what takes the place of what.
            per: one threshold for a layer, or one for each channel along axis 1.
            scale: with recipe max, thresholds are this times the largest activation.
            percentile: with recipe percentile, of all activations, zeros included.
            updates: with recipe threshold_balancing, steps for each batch.
            v_init: potential to start from, in thresholds; 0.5 rounds to the nearest rate, 0 rounds down.
            T: numbers of steps after which the report compares the nets.
            max_pool: by sums over time, exact in the mean, or replaced by average pooling.
            leaky_relu: refused, taken for a ReLU, or given a second neuron whose spikes are negative.
            fold: fold thresholds into weights where that is possible, so that layers exchange plain spikes.
            measure: inputs of the first calibration batch on which the nets are compared; 0 for none.
            allow: names of calls that stay as they are although they have no counterpart.
        """

        recipe: Literal["max", "percentile", "threshold_balancing", "qcfs", "few_spike", "temporal_difference"] = (
            "threshold_balancing"
        )
        per: Literal["layer", "channel"] = "channel"
        scale: Annotated[float, Range(gt=0.0)] = 1.0
        percentile: Annotated[float, Range(gt=0.0, le=100.0)] = 99.9
        updates: Annotated[int, Range(ge=1)] = 16
        v_init: Annotated[float, Range(ge=0.0, lt=1.0)] = 0.5
        T: Annotated[tuple[int, ...], Range(ge=1)] = (8, 16, 32, 64)
        max_pool: Literal["rate", "average"] = "rate"
        leaky_relu: Literal["refuse", "relu", "signed"] = "refuse"
        fold: bool = True
        measure: Annotated[int, Range(ge=0)] = 2
        allow: tuple[str, ...] = ()

    config: Config

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        needs_data = self.config.recipe not in WITHOUT_DATA
        changed = replace(type(self).capabilities, needs_calibration=needs_data, num_steps=max(self.config.T))
        self.capabilities = changed  # type: ignore[misc]

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        if not config.T:
            yield "T", "must name at least one number of steps"

    @classmethod
    def idle_options(cls, config: Any) -> Iterable[tuple[str, str]]:
        for option, recipe in (("scale", "max"), ("percentile", "percentile"), ("updates", "threshold_balancing")):
            if config.recipe != recipe:
                yield option, f"only recipe {recipe} reads it"

    def convert(
        self, model: nn.Module, example_input: Tensor, calibration: Iterable[Tensor] = ()
    ) -> tuple[nn.Module, ConversionReport]:
        """See `spikecore.interfaces.converter.Converter`."""
        if isinstance(example_input, Tensor) and example_input.dtype in (torch.float16, torch.bfloat16):
            raise ConversionError(f"the example input is {example_input.dtype}: convert in float32 or float64")
        given = Prepared.of(model, example_input)
        expected = expectations(given)
        given, folded = fold_norms(given)
        recipe = Recipe(self.config, given, folded)
        # Before the data, which are sequences where the net spikes already: their form is not what is wrong.
        self._refuse(
            given, {node.name: recipe.plan(node) for node in given.graph.layers if given.role(node) == "state"}
        )
        observers = recipe.observe()
        # Without thresholds to find there is no need to run the data.
        seen = {**observers, **expected} if observers else {}
        count, first = calibrate(given.graph, example_input, calibration, seen)
        if count > len(example_input):
            for norm in expected.values():
                norm.check()
        if not count and self.config.recipe not in WITHOUT_DATA:
            raise ConversionError(
                f"calibration batches are missing: recipe {self.config.recipe} finds thresholds from a few inputs"
            )
        plans = {node.name: recipe.plan(node) for node in given.graph.layers}
        self._check_refusals(given, plans)
        given.check_outputs()
        replaced = {name: plan.module for name, plan in plans.items() if plan.module is not None}
        unfolded = GraphNet(given.graph, replaced).eval()
        set_step_mode(unfolded, "multi")
        plain: list[str] = []
        if self.config.fold:
            replaced, plain = fold_thresholds(given, replaced)
        for name in plain:
            plans[name] = replace(plans[name], reason=f"{plans[name].reason}; θ folded into the weights around it")
        net = GraphNet(given.graph, replaced)
        set_step_mode(net, "multi")
        # Folded neurons give spikes of height 1; the mean outputs are those of the net before.
        return net.eval(), self._measured(given, unfolded, plans, first, self._report(given, plans))

    def _check_refusals(self, given: Prepared, plans: dict[str, Plan]) -> None:
        unknown = sorted(set(self.config.allow) - set(plans))
        if unknown:
            raise ConversionError(f"allow names {', '.join(unknown)}; the net calls {', '.join(plans)}")
        self._refuse(given, plans)

    def _refuse(self, given: Prepared, plans: dict[str, Plan]) -> None:
        refused = [name for name, plan in plans.items() if plan.outcome == "refused" and name not in self.config.allow]
        if refused:
            lines = "\n".join(f"  {given.graph[name]}: {plans[name].reason}" for name in refused)
            raise ConversionError(
                f"{len(refused)} of {len(given.graph.layers)} calls cannot be converted:\n{lines}\n"
                f"allow=({', '.join(map(repr, refused))},) leaves them as they are, whatever that does to the numbers"
            )

    def _measured(
        self, given: Prepared, net: GraphNet, plans: dict[str, Plan], first: Tensor | None, report: ConversionReport
    ) -> ConversionReport:
        """The report with what a comparison on a few inputs shows."""
        few = [plan.module.levels for plan in plans.values() if isinstance(plan.module, FewSpikeReLU)]
        num_steps = max(self.config.T)
        # A few-spike net does not run with fewer steps than levels.
        if first is None or not self.config.measure or not len(first) or num_steps < max(few, default=0):
            return report
        neurons = [name for name, plan in plans.items() if plan.is_neuron]
        x = first[: self.config.measure]
        fidelity, numbers = measure(given.graph, net, neurons, x, num_steps, bool(few), len(first))
        report = replace(fidelity.added_to(report), numbers=numbers)
        if few and fidelity.agreement:
            # Of whole sequences there is one value, after the last step.
            report = replace(report, curves={"agreement over T": ((float(num_steps), fidelity.agreement[-1]),)})
        return report

    def _report(self, given: Prepared, plans: dict[str, Plan]) -> ConversionReport:
        layers = [
            LayerReport(name, "kept", f"{kind}, taken apart: its parts are listed by themselves")
            for name, kind in given.taken_apart.items()
        ]
        for node in given.graph.layers:
            plan = plans[node.name]
            reason = plan.reason
            if plan.outcome == "refused":
                reason = f"{reason}; stays as it is, by the option allow"
            threshold: Any = None
            if plan.threshold is not None:
                threshold = tuple(plan.threshold.tolist()) if plan.threshold.dim() else float(plan.threshold)
            layers.append(LayerReport(node.name, plan.outcome, reason, threshold))
        return ConversionReport(tuple(layers))
