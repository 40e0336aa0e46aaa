"""Everything that `torch.jit` does here, and `torch.export` beside it, which will take its place.

torch deprecates TorchScript, and the vendor's compiler reads it: what has to change with torch is in this file alone.
An archive is rewritten so that equal nets give equal bytes: without the places in Python files that torch notes in it,
and without the number that it gives to the k-th module of a process.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spikecore_deploy_lynxi.straight import Layers, Straight

METHODS = ("forward", "layers")
"""Of a scripted net: its output alone, which is what the chip computes; and every neuron layer, for comparisons."""
OPERATORS = frozenset(
    f"aten::{name}"
    for name in (
        *("linear", "matmul", "t", "conv1d", "conv2d", "_convolution", "batch_norm", "avg_pool1d", "avg_pool2d"),
        *("max_pool1d", "max_pool2d", "relu", "add", "sub", "rsub", "mul", "div", "reciprocal", "neg", "slice", "cat"),
        *("reshape", "lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "logical_not", "exp", "log"),
        *("sqrt", "tanh", "sigmoid", "abs", "sign", "floor", "round", "sin", "cos", "atan", "erf", "minimum"),
        *("maximum", "clamp", "clamp_min", "clamp_max", "where", "to"),
    )
) | {"prim::Constant", "prim::ListConstruct", "prim::GetAttr", "prim::TupleConstruct", "prim::CallMethod"}
"""What a converted net consists of; anything else in a file was not written here."""

_jit: Any = torch.jit
"""Its functions have no types."""
_ALIGNMENT = 64
"""Of a tensor in an archive, so that it can be mapped into memory."""
_OPSET = 17


def scripted(net: Straight, x: Tensor) -> tuple[bytes, int]:
    """The net as TorchScript for inputs like `x`, with the methods of `METHODS`; and the most axes of any tensor."""
    with torch.no_grad(), _quietly():
        script = _jit.trace_module(net, dict.fromkeys(METHODS, x), check_trace=False)
        file = io.BytesIO()
        _jit.save(script, file)
    return _canonical(file.getvalue()), _largest_rank(script)


def loaded(data: bytes) -> Any:
    """The module of an archive.

    Raises:
        RuntimeError: it is none.
    """
    with _quietly():
        return _jit.load(io.BytesIO(data), map_location="cpu")


def operators_of(script: Any) -> Counter[str]:
    """How often each operator is called in `layers`, which calls whatever `forward` does."""
    return Counter(node.kind() for node in _nodes(script.layers.graph))


def foreign_operators(script: Any) -> list[str]:
    """Operators in any method that no converted net has: loops, writing into a tensor, files, Python."""
    kinds: set[str] = set()
    for name in script._c._method_names():
        kinds |= {node.kind() for node in _nodes(script._c._get_method(name).graph)}
    return sorted(kinds - OPERATORS)


def methods_of(script: Any) -> list[str]:
    """Names of its methods, of all of its modules."""
    return sorted({name for part in script.modules() for name in part._c._method_names()})


def run_script(script: Any, method: str, x: Tensor) -> Any:
    """What a method gives, operator by operator: nothing is fused, so that every number is as in eager torch."""
    with torch.no_grad(), _jit.optimized_execution(False):
        return getattr(script, method)(x)


def _largest_rank(script: Any) -> int:
    """The most axes of any tensor, as the tracer saw it."""
    ranks = [0]
    for node in _nodes(script.layers.graph):
        for value in node.outputs():
            if isinstance(value.type(), torch.TensorType) and value.isCompleteTensor():
                ranks.append(len(value.type().sizes()))
    return max(ranks)


def onnx_model(net: Straight, x: Tensor, outputs: Sequence[str]) -> bytes:
    """The net as ONNX, by the exporter that goes through TorchScript.

    Args:
        net: the net.
        x: its input.
        outputs: names of the results of `layers`.
    """
    file: Any = io.BytesIO()  # the exporter's types know paths only
    with torch.no_grad(), _quietly():
        torch.onnx.export(
            Layers(net),
            (x,),
            file,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["x"],
            output_names=list(outputs),
            training=torch.onnx.TrainingMode.PRESERVE,  # in evaluation mode it would fold norms, and round otherwise
        )
    return bytes(file.getvalue())


def exported(net: Straight, x: Tensor) -> bytes:
    """The net as a program of `torch.export`: gives the results of `layers`."""
    file = io.BytesIO()
    with torch.no_grad(), _quietly():
        torch.export.save(torch.export.export(Layers(net), (x,)), file)
    return file.getvalue()


def loaded_program(data: bytes) -> Any:
    """The module of a program of `torch.export`."""
    with _quietly():
        return torch.export.load(io.BytesIO(data)).module()


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from _nodes(block)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings about torch's own plans."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _canonical(data: bytes) -> bytes:
    """The same archive in bytes that depend on the net alone."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(file, "w") as written:
        for record in given.infolist():
            name = _without_number(record.filename.encode(), rb"/").decode()
            if name.endswith((".debug_pkl", "/serialization_id")) or "/traced_inputs" in name:
                continue
            content = given.read(record)
            if name.endswith((".py", ".pkl")):
                content = _without_number(content, rb".")
            _write_aligned(written, name, content)
    return file.getvalue()


def _without_number(text: bytes, dot: bytes) -> bytes:
    return re.sub(re.escape(dot) + rb"___torch_mangle_\d+", b"", text)


def _write_aligned(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a record whose content begins at a multiple of 64 bytes, as torch's own do."""
    record = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    record.external_attr = 0o644 << 16
    assert archive.fp is not None
    begin = archive.fp.tell() + 30 + len(name.encode()) + 4
    padding = -begin % _ALIGNMENT
    record.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    archive.writestr(record, content)
