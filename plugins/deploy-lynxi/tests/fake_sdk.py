"""Modules `lyngor` and `lynpy` with the interface that `sdk_interface.json` records: any other call is an error.

The fake compiler traces what it is given, as the vendor's does, and keeps the trace; the fake chip runs it.
"""

import inspect
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

RECORDED = json.loads((Path(__file__).parent / "sdk_interface.json").read_text())
CALLS = []
"""(class, method, arguments by name), in order."""


def _bound(class_name, method, names, args, kwargs):
    """The arguments by name; TypeError for what is not in the description."""
    parameters = []
    for index, name in enumerate(names):
        # A parameter after an optional one may be required, which Python allows for keywords only.
        is_after_optional = "?" in "".join(names[:index])
        kind = inspect.Parameter.KEYWORD_ONLY if is_after_optional else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = None if name.endswith("?") else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name.rstrip("?"), kind, default=default))
    arguments = dict(inspect.Signature(parameters).bind(*args, **kwargs).arguments)
    CALLS.append((class_name, method, arguments))
    return arguments


def _class(module_name, name, behaviour):
    about = RECORDED[module_name]["classes"][name]

    def method(method_name, names):
        def call(self, *args, **kwargs):
            arguments = _bound(name, method_name, names, args, kwargs)
            return getattr(behaviour, f"on_{method_name.strip('_')}")(self, **arguments)

        return call

    methods = {key: method(key, names) for key, names in about["methods"].items()}
    return type(name, (), {**methods, "__init__": method("init", about["init"])})


class DLModel:
    def on_init(self):
        pass

    def on_load(self, model_file, model_type, inputs_dict=None, in_type="float32", out_type="float32", **rest):
        assert model_type == "Pytorch"
        ((_, shape),) = inputs_dict.items()
        example = torch.zeros(shape, dtype=getattr(torch, in_type))
        self.graph = torch.jit.trace(model_file, example, check_trace=False)
        self.params = dict(self.graph.state_dict())
        assert str(self.graph(example).dtype) == f"torch.{out_type}"


class Builder:
    fails = False

    def on_init(self, target, **rest):
        assert target == "apu"

    def on_build(self, graph, params, out_path, **rest):
        directory = Path(out_path)
        directory.mkdir()
        if not Builder.fails:
            (directory / "Net_0").mkdir()
            graph.save(directory / "Net_0" / "trace")
            (directory / "net_params.json").write_text("{}")
        return out_path


class Tensor:
    def on_init(self, dev_id, size):
        self.size = size

    def on_from_numpy(self, data):
        self.data = np.asarray(data)
        return self

    def on_apu(self):
        self.is_on_chip = True
        return self

    def on_cpu(self):
        self.is_on_chip = False
        return self

    def on_numpy(self):
        assert not self.is_on_chip
        return self.data

    def on_view_as(self, shape, dtype):
        self.data = self.data.view(dtype).reshape(shape)
        return self


class Model:
    def on_init(self, path, dev_id=0, **rest):
        self.net = torch.jit.load(Path(path) / "trace")

    def on_input_tensor(self):
        return MODULES["lynpy"].Tensor(dev_id=0, size=0)

    def on_call(self, input):
        assert input.is_on_chip
        out = MODULES["lynpy"].Tensor(dev_id=0, size=0)
        # The SDK gives bytes, whose shape and type only the caller knows.
        out.from_numpy(self.net(torch.from_numpy(input.data)).numpy().reshape(-1).view(np.uint8))
        return out.apu()


def modules():
    """Fresh fakes by name."""
    behaviours = {"lyngor": (DLModel, Builder), "lynpy": (Model, Tensor)}
    for module_name, kinds in behaviours.items():
        module = ModuleType(module_name)
        module.version = RECORDED[module_name]["version"]
        for kind in kinds:
            setattr(module, kind.__name__, _class(module_name, kind.__name__, kind))
        MODULES[module_name] = module
    return MODULES


MODULES = {}
