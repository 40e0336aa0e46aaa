"""What a sample must be, and its label by the target; see the table in `interfaces.dataset`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikecore.interfaces.dataset import Target


def sample_problem(sample: object, target: Target, is_sequence: bool, shape: tuple[int, ...] | None = None) -> str:
    """What is wrong with a sample; "" where nothing is.

    Args:
        sample: should be `(x, label)`.
        target: what its label should be.
        is_sequence: its x should have a time axis in front.
        shape: its x should have, without T; None for any.
    """
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        return f"it is of type {type(sample).__name__}; a sample must be a pair (x, label)"
    x, label = sample
    return input_problem(x, is_sequence, shape) or label_problem(label, target, len(x) if is_sequence else None)


def label_problem(label: object, target: Target, num_steps: int | None = None) -> str:
    """What is wrong with the label of a sample; "" where nothing is.

    Args:
        label: of one sample.
        target: what it should be.
        num_steps: T of the sample, where it has a time axis: a label per step has as many.
    """
    if target.kind == "class":
        return _class_problem(label, target.num_outputs)
    if not isinstance(label, Tensor):
        return f"its label is {label!r} ({type(label).__name__}); for the target {target.kind!r} it must be a tensor"
    if target.kind == "value":
        return _values_problem(label, target.num_outputs, axis=0)
    if target.kind == "items":
        return _items_problem(label)
    if num_steps is not None and label.dim() and len(label) != num_steps:
        return f"its label has {len(label)} steps, the sample itself {num_steps}: a sequence has a label for each step"
    if label.is_floating_point():
        return _values_problem(label, target.num_outputs, axis=1)
    return _classes_problem(label, target.num_outputs)


def input_problem(x: object, is_sequence: bool = False, shape: tuple[int, ...] | None = None) -> str:
    """What is wrong with the x of a sample; "" where nothing is. A net of spikes would hide nan: it never fires.

    Args:
        x: of one sample.
        is_sequence: it should have a time axis in front.
        shape: it should have, without T; None for any.
    """
    if not isinstance(x, Tensor):
        return (
            f"its x is of type {type(x).__name__}; it must be a tensor: torch.from_numpy or torch.as_tensor makes one"
        )
    return _dtype_problem(x, is_sequence) or _shape_problem(x, is_sequence, shape) or _input_infinity(x)


def _dtype_problem(x: Tensor, is_sequence: bool) -> str:
    if x.dtype == torch.float32:
        return ""
    if not is_sequence:
        return (
            "" if x.dtype == torch.uint8 else f"its x is of {x.dtype}; it must be float32 or uint8: call .float() on it"
        )
    # No encoder reads a sequence, so nobody turns bytes into numbers that a net takes.
    return f"its x is of {x.dtype}; the x of a sequence must be float32: call .float() on it"


def _shape_problem(x: Tensor, is_sequence: bool, shape: tuple[int, ...] | None) -> str:
    if is_sequence and (x.dim() < 1 or len(x) < 1):
        return f"its x has the shape {tuple(x.shape)}; a sequence must be [T, ...] with T of 1 or more"
    own = tuple(x.shape[1:] if is_sequence else x.shape)
    if shape is None or own == shape:
        return ""
    wanted = f"[T, {', '.join(map(str, shape))}]" if is_sequence else str(shape)
    return (
        f"its x has the shape {tuple(x.shape)}; the dataset's sample_shape asks for {wanted}: make all samples of this "
        "shape, or correct sample_shape"
    )


def _input_infinity(x: Tensor) -> str:
    # The sum is finite only where all are, and is cheaper to look at; it may also overflow where all are finite.
    if not x.is_floating_point() or math.isfinite(float(x.sum())):
        return ""
    bad = x[~x.isfinite()]
    return f"its x holds {float(bad.flatten()[0])}; inputs must be finite numbers" if len(bad) else ""


def _class_problem(label: object, num_classes: int) -> str:
    if type(label) is not int:
        return (
            f"its label is {label!r} ({type(label).__name__}); a class must be an int from 0 to {num_classes - 1}: "
            "convert it with int()"
        )
    if not 0 <= label < num_classes:
        return f"its label is {label}; a class must lie in 0 .. {num_classes - 1}: correct the label or num_outputs"
    return ""


def _values_problem(label: Tensor, num_outputs: int, axis: int) -> str:
    """`label` must be floating point and finite, with `num_outputs` values along the axis."""
    form = f"[{num_outputs}, ...]" if axis == 0 else f"[T, {num_outputs}, ...]"
    if not label.is_floating_point():
        return f"its label is of {label.dtype}; values must be floating point, {form}: call .float() on them"
    if label.dim() <= axis or label.shape[axis] != num_outputs:
        return f"its label has the shape {tuple(label.shape)}; values must be {form}"
    return _infinity(label)


def _classes_problem(label: Tensor, num_classes: int) -> str:
    """`label` must hold a class for each step."""
    if label.dtype != torch.int64:
        return f"its label is of {label.dtype}; classes of steps must be int64 [T], values of steps floating point"
    if label.dim() < 1:
        return f"its label has the shape {tuple(label.shape)}; classes of steps must be [T, ...]"
    outside = label[(label < 0) | (label >= num_classes)]
    if len(outside):
        return f"its label holds the class {int(outside[0])}; classes must lie in 0 .. {num_classes - 1}"
    return ""


def _items_problem(label: Tensor) -> str:
    if label.dim() < 1:
        return "its label has no axis; items must be [N, ...], N of them"
    return _infinity(label) if label.is_floating_point() else ""


def _infinity(label: Tensor) -> str:
    bad = label[~label.isfinite()]
    return f"its label holds {float(bad.flatten()[0])}; values must be finite numbers" if len(bad) else ""
