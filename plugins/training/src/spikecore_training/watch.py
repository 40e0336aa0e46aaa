"""Losses that are no numbers, and gradients that vanish or explode, in plain words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.trainers import whole

EXPLODING = 1e3
"""Norm of a gradient, compared with that of its weights."""
VANISHING = 1e-7
"""Norm of a gradient per element, compared with the largest of the net."""


@torch.no_grad()
def first_bad_layer(model: nn.Module, call: Callable[[], object]) -> str:
    """Where numbers stop to be finite: in a weight, or in what a layer puts out when the net is called.

    Args:
        model: the net.
        call: calls it with the batch in question.
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the parameter {name} is not finite"
    bad: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            if bad or not isinstance(out, Tensor) or out.isfinite().all():
                return
            comes_in = any(isinstance(x, Tensor) and not x.isfinite().all() for x in inputs)
            kind = type(module).__name__
            bad.append(f"the input of layer {name} ({kind})" if comes_in else f"the output of layer {name} ({kind})")

        return hook

    # Hooks of inner modules run first, so the first one to report is the place itself.
    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return (
        f"{bad[0]} is not finite"
        if bad
        else "all layers put out finite numbers, so it starts in the loss or on the way back"
    )


def gradient_warnings(model: nn.Module) -> dict[str, str]:
    """What is wrong with the gradients that the weights have, with the usual cures; waits for the device once.

    All processes must call it where the net is divided between them.

    Returns:
        Name of the weight and fault → a sentence.
    """
    named = [
        (name, weight) for name, weight in model.named_parameters() if weight.grad is not None and weight.dim() > 1
    ]
    if not named:
        return {}
    norms = torch.stack([whole(weight.grad.float().norm()) for _, weight in named])  # type: ignore[union-attr]
    sizes = torch.stack([whole(weight.detach().float().norm()) for _, weight in named])
    gradients, weights = norms.tolist(), sizes.tolist()
    per_element = [norm / weight.numel() ** 0.5 for norm, (_, weight) in zip(gradients, named, strict=True)]
    largest = max(per_element)
    warnings: dict[str, str] = {}
    for (name, _), norm, size, density in zip(named, gradients, weights, per_element, strict=True):
        if norm > EXPLODING * max(size, 1.0):
            warnings[f"{name} explodes"] = (
                f"the gradient of {name} explodes (norm {norm:.3g}, weights {size:.3g}): set trainer.clip_norm = 1, "
                "lower trainer.lr, or use a surrogate with a smaller slope"
            )
        elif density <= VANISHING * largest or density == 0:
            warnings[f"{name} vanishes"] = (
                f"the gradient of {name} vanishes (norm {norm:.3g}): use a wider surrogate, a lower v_threshold, a "
                "batch norm in front of the neurons, or residual connections"
            )
    return warnings
