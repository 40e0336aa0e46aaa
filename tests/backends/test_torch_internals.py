"""Private names of torch: all of them stand in one module, with the version they were checked with."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import torch

import spikecore
from spikecore import torch_internals
from spikecore.torch_internals import CHECKED_WITH, NAMES

CORE = Path(spikecore.__file__).parent


def test_the_version_of_torch_is_the_one_they_were_checked_with():
    assert re.match(r"\d+\.\d+", torch.__version__)[0] == CHECKED_WITH, (
        f"torch is {torch.__version__}, the private names in spikecore/torch_internals.py were checked with "
        f"{CHECKED_WITH}: run all tests, read that module again, then raise CHECKED_WITH"
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("torch.") and "_hooks" not in name])
def test_every_name_is_there(name):
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            value = getattr(value, part)
        return
    pytest.fail(f"no module in {name}")


def test_every_module_has_its_hooks():
    names = {name.rpartition(".")[2] for name in NAMES if "Module" in name and "_hooks" in name}
    assert len(names) == 2
    assert names <= set(vars(torch.nn.Identity()))
    assert torch.zeros(1)._backward_hooks is None


def test_every_name_has_a_reason():
    assert len(NAMES) >= 12
    assert all(len(reason) > 20 and "\n" not in reason for reason in NAMES.values())


def private_names(text):
    """`(line, what)` of each private name of torch that a module touches."""
    tree = ast.parse(text)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "torch":
                    imported[(alias.asname or alias.name).partition(".")[0]] = alias.name
                    if "._" in alias.name:
                        yield node.lineno, alias.name
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if "._" in f"{node.module}.{alias.name}":
                    yield node.lineno, f"{node.module}.{alias.name}"
    hidden = {name.rpartition(".")[2] for name in NAMES}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        root = node.value
        while isinstance(root, ast.Attribute):
            root = root.value
        is_torchs = isinstance(root, ast.Name) and root.id in imported
        if is_torchs or node.attr in hidden:
            yield node.lineno, ast.unparse(node)
    for node in ast.walk(tree):  # getattr(x, "_name") and super(Function, …) hide one just as well
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "super" and len(node.args) == 2 and "Function" in ast.unparse(node.args[0]):
                yield node.lineno, ast.unparse(node)
            if node.func.id in ("getattr", "hasattr", "setattr") and len(node.args) > 1:
                first, name = node.args[0], node.args[1]
                is_private = isinstance(name, ast.Constant) and str(name.value).startswith("_")
                if is_private and (str(name.value) in hidden or ast.unparse(first).partition(".")[0] in imported):
                    yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize(
    "text",
    [
        "from torch import _C",
        "from torch._subclasses import fake_tensor",
        "import torch._dynamo",
        "import torch\ntorch._C._get_tracing_state()",
        "import torch as t\nt.nn.modules.batchnorm._NormBase",
        "from torch import nn\nnn.modules.batchnorm._BatchNorm",
        "from torch.autograd import forward_ad\nforward_ad._current_level",
        "x._is_zerotensor()",
        "module._forward_hooks",
        "import torch\nactive = getattr(torch._C, '_are_functorch_transforms_active', None)",
        "function._dynamo_marked_constant = True",
        "from torch.autograd import Function\nsuper(Function, _Run).apply",
    ],
)
def test_a_private_name_elsewhere_is_seen(text):
    assert list(private_names(text))


def test_no_other_module_of_core_touches_one():
    modules = [path for path in CORE.rglob("*.py") if path.name != "torch_internals.py"]
    assert len(modules) > 100
    uses = [
        f"{path.relative_to(CORE)}:{line}: {what}" for path in modules for line, what in private_names(path.read_text())
    ]
    assert not uses, "\n".join(uses)
    assert list(private_names((CORE / "torch_internals.py").read_text()))


def test_hooks_are_seen():
    module = torch.nn.Identity()
    assert not torch_internals.has_hooks(module)
    first, second = module.register_forward_hook(print), module.register_forward_pre_hook(print)
    assert (torch_internals.has_hooks(module), torch_internals.num_hooks(module)) == (True, 2)
    first.remove()
    assert torch_internals.has_hooks(module)
    second.remove()
    assert torch_internals.num_hooks(module) == 0
