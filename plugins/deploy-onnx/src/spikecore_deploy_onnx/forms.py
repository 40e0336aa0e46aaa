"""Stages → an ONNX model, in one of three forms.

scan      x [T, B, ...] → y [T, B, ...], any T and B: layers without state see all steps at once, each layer with state
          is one Scan over time
unrolled  the same for one T: the steps of each layer with state stand one after the other, without control flow
step      x [B, ...] and every state → y [B, ...] and every next state, any B: for runtimes that keep the time
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, checker, helper

from spikecore_deploy_onnx.body import Body, Names
from spikecore_deploy_onnx.cells import Cell
from spikecore_deploy_onnx.exporting import Plan, Stage

KEY, FORM = "spikecore", 1
OPSET, IR_VERSION = 18, 9
INPUT, OUTPUT = "x", "y"


def written_model(plan: Plan, form: str, num_steps: int) -> ModelProto:
    """The model, checked.

    Args:
        plan: with no refusal.
        form: `scan`, `unrolled` or `step`.
        num_steps: T of the unrolled form.
    """
    writer = _Writer(plan, form, num_steps)
    graph = helper.make_graph(
        writer.body.nodes, "net", writer.inputs, writer.outputs, initializer=writer.body.constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "spikecore"
    helper.set_model_props(model, {KEY: json.dumps(writer.about)})
    checker.check_model(model, full_check=True)
    return model


class _Writer:
    def __init__(self, plan: Plan, form: str, num_steps: int) -> None:
        self.plan, self.form, self.num_steps = plan, form, num_steps
        self.names = Names({INPUT, OUTPUT})
        self.body = Body(self.names, plan.dtype)
        self.element = TensorProto.FLOAT if plan.dtype == "float32" else TensorProto.DOUBLE
        lead = ["B"] if form == "step" else ["T" if form == "scan" else num_steps, "B"]
        self.inputs = [self.info(INPUT, [*lead, *plan.input_shape])]
        self.outputs: list[ValueInfoProto] = []
        self.traced: dict[str, str] = {}
        self.states: list[dict[str, object]] = []
        if form == "scan":
            sizes = self.body.op("Shape", [INPUT], "time_and_batch", start=0, end=2)
            self.lead: Callable[[], str] = lambda: sizes
        else:
            self.lead = lambda: self.body.integers(num_steps, -1)
        # Name of a result → its name over time, and with time folded into the batch; either is made when it is needed.
        self.over_time: dict[str, str] = {"": INPUT}
        self.in_batch: dict[str, str] = {"": INPUT} if form == "step" else {}
        self.shapes = {"": plan.input_shape, **{stage.name: stage.shape for stage in plan.stages}}
        for stage in plan.stages:
            self.write(stage)
        result = self.time(plan.output)
        self.body.nodes.append(helper.make_node("Identity", [result], [OUTPUT], name="node_y"))
        self.outputs.insert(0, self.info(OUTPUT, [*lead, *self.shapes[plan.output]]))

    @property
    def about(self) -> dict[str, object]:
        return {"form": FORM, "kind": self.form, "layers": self.traced, "states": self.states}

    def info(self, name: str, shape: list[object]) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, self.element, shape)

    # one value, over time or in the batch

    def time(self, name: str) -> str:
        """`[T, B, ...]`; `[B, ...]` in the form `step`."""
        if self.form == "step":
            return self.in_batch[name]
        if name not in self.over_time:
            shape = self.body.op("Concat", [self.lead(), self.body.integers(*self.shapes[name])], axis=0)
            self.over_time[name] = self.body.op("Reshape", [self.in_batch[name], shape])
        return self.over_time[name]

    def batch(self, name: str) -> str:
        """`[T * B, ...]`; `[B, ...]` in the form `step`."""
        if name not in self.in_batch:
            shape = self.body.integers(-1, *self.shapes[name])
            self.in_batch[name] = self.body.op("Reshape", [self.over_time[name], shape])
        return self.in_batch[name]

    def write(self, stage: Stage) -> None:
        if stage.emit is not None:
            self.in_batch[stage.name] = stage.emit(self.body, [self.batch(source) for source in stage.sources])
            return
        assert stage.cell is not None
        source = stage.sources[0]
        if self.form == "step":
            out = self.in_batch[stage.name] = self.single(stage, stage.cell, self.in_batch[source])
        elif self.form == "scan":
            out = self.over_time[stage.name] = self.scan(stage, stage.cell, self.time(source), self.shapes[source])
        else:
            out = self.over_time[stage.name] = self.unrolled(stage.cell, self.time(source))
        self.traced[stage.neuron] = out

    # layers with state

    def single(self, stage: Stage, cell: Cell, x: str) -> str:
        states: dict[str, str] = {}
        for key, first in cell.states.items():
            name = states[key] = self.names.new(f"{stage.name}.{key}")
            self.inputs.append(self.info(name, ["B", *first.shape[1:]]))
        out, following = cell.step(self.body, x, states)
        for key, value in following.items():
            name = self.names.new(f"next {states[key]}")
            self.body.nodes.append(helper.make_node("Identity", [value], [name], name=f"node_{name}"))
            shape = cell.states[key].shape[1:]
            self.outputs.append(self.info(name, ["B", *shape]))
            first = cell.states[key]
            is_one = bool((first == first.flat[0]).all()) if first.size else True
            start = float(first.flat[0]) if is_one and first.size else first.reshape(-1).tolist()
            self.states.append({"input": states[key], "output": name, "first": start, "shape": list(shape)})
        return out

    def first_states(self, cell: Cell, like: str, skip: int) -> dict[str, str]:
        """The first states, broadcast over the batch of `like`, whose batch is the axis number `skip`."""
        batch = self.body.op("Shape", [like], start=skip, end=skip + 1)
        states: dict[str, str] = {}
        for key, first in cell.states.items():
            shape = self.body.op("Concat", [batch, self.body.integers(*first.shape[1:])], axis=0)
            states[key] = self.body.op("Expand", [self.body.number(first, f"first_{key}"), shape])
        return states

    def scan(self, stage: Stage, cell: Cell, x: str, shape: tuple[int, ...]) -> str:
        body = Body(self.names, self.plan.dtype)
        now = self.names.new(f"{stage.name}.now")
        states = {key: self.names.new(f"{stage.name}.{key}") for key in cell.states}
        out, following = cell.step(body, now, states)
        sizes = {key: list(first.shape[1:]) for key, first in cell.states.items()}
        inputs = [self.info(states[key], ["B", *sizes[key]]) for key in states] + [self.info(now, ["B", *shape])]
        outputs = [self.info(following[key], ["B", *sizes[key]]) for key in states]
        step = helper.make_graph(
            body.nodes, f"step of {stage.name}", inputs, [*outputs, self.info(out, ["B", *cell.shape])],
            initializer=body.constants,
        )  # fmt: skip
        first = self.first_states(cell, x, 1)
        results = [self.names.new(f"last_{states[key]}") for key in states] + [self.names.new(f"{stage.name}.spikes")]
        node = helper.make_node(
            "Scan", [*first.values(), x], results, name=f"scan of {stage.name}", num_scan_inputs=1, body=step
        )
        self.body.nodes.append(node)
        return results[-1]

    def unrolled(self, cell: Cell, x: str) -> str:
        states: Mapping[str, str] = self.first_states(cell, x, 1)
        axis, outs = self.body.integers(0), []
        for step in range(self.num_steps):
            now = self.body.op("Gather", [x, self.body.constant(np.array(step))], axis=0)
            out, states = cell.step(self.body, now, states)
            outs.append(self.body.op("Unsqueeze", [out, axis]))
        return self.body.op("Concat", outs, axis=0)
