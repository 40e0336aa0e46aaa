"""`torchvision`: any transform of `torchvision.transforms.v2`, through the extra of that name.

torchvision is imported when a dataset that names it is made, and never otherwise.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore.errors import DatasetError, OptionError, PluginUnavailable
from spikecore_datasets_vision.draws import Draws
from spikecore_datasets_vision.transforms import Size, Transform

MODULE = "torchvision.transforms.v2"
HINT = "pip install './plugins/datasets-vision[torchvision]', with the build that fits your torch"


@dataclass(frozen=True)
class Torchvision(Transform):
    """A transform of torchvision, of one sample at a time; slower than those of this plugin.

    It draws from torch's global generator, which is seeded for each sample and put back afterwards.

    Args:
        kind: its class in `torchvision.transforms.v2`.
        options: its arguments by name, as a JSON object.
    """

    name: ClassVar[str] = "torchvision"
    kind: str
    options: str = "{}"

    def size(self, size: Size) -> Size:
        self.theirs  # noqa: B018  what is wrong with it shows here
        return size

    @cached_property
    def theirs(self) -> Any:
        """torchvision's object.

        Raises:
            PluginUnavailable: torchvision is not installed.
            OptionError: it has no such transform, or that one not these options.
        """
        if find_spec("torchvision") is None:
            raise PluginUnavailable(f"the transform torchvision ({self.kind}) needs torchvision, not installed", HINT)
        module = importlib.import_module(MODULE)
        operation_type = getattr(module, self.kind, None)
        if not isinstance(operation_type, type):
            raise OptionError(f"torchvision: {MODULE} has no transform {self.kind!r}")
        try:
            options = json.loads(self.options)
        except ValueError as error:
            raise OptionError(f"torchvision: 'options' must be a JSON object, got {self.options!r}: {error}") from error
        if not isinstance(options, dict):
            raise OptionError(f"torchvision: 'options' must be a JSON object, got {self.options!r}")
        try:
            return operation_type(**options)
        except (TypeError, ValueError) as error:
            raise OptionError(f"torchvision: {self.kind} does not take {self.options}: {error}") from error

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        seeds = draws.integers(2**53).tolist()
        out = []
        with torch.random.fork_rng(devices=[]):
            for image, seed in zip(x, seeds, strict=True):
                torch.manual_seed(seed)
                changed = self.theirs(image)
                if not isinstance(changed, Tensor) or changed.shape != image.shape:
                    got = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
                    raise DatasetError(
                        f"torchvision: {self.kind} made {got} from an image {tuple(image.shape)}; it must keep the "
                        "shape: change sizes with this plugin's resize or crop"
                    )
                out.append(changed.to(x.dtype))
        return torch.stack(out) if out else x

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "options": self.options}
