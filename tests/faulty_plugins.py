"""Plugins that go wrong in every way we know, and how to install them for a test."""

import json
from dataclasses import dataclass

from spikecore.kinds import KINDS
from spikecore.testing.distributions import fake_distribution

SOUND = '''
from dataclasses import dataclass
from spikecore.interfaces.backend import Backend
class Good(Backend):
    """A sound backend."""
    api_version = 2
    @dataclass(frozen=True)
    class Config:
        depth: int = 3
    @dataclass(frozen=True)
    class Capabilities:
        priority: int = 0
    capabilities = Capabilities()
'''


@dataclass(frozen=True)
class Fault:
    source: str
    says: str
    requires: tuple = ()
    target: str = "rotten:Good"


FAULTS = {
    "raises": Fault("raise RuntimeError('no licence')", "no licence"),
    "exits": Fault("import sys; sys.exit(7)", "SystemExit"),
    "exits-late": Fault(
        "class Odd(Exception):\n    def __str__(self): raise SystemExit(3)\nraise Odd\n",
        "Odd: its text cannot be shown: SystemExit",
    ),
    "syntax": Fault("def :", "SyntaxError"),
    "newer-core": Fault(SOUND, "needs spikecore>=99", ("spikecore>=99",)),
    "api-version": Fault(SOUND.replace("api_version = 2", "api_version = 9"), "api_version 9"),
    "older-api": Fault(SOUND.replace("api_version = 2", "api_version = 1"), "Upgrade spikecore-"),
    "dependency": Fault(
        "import certainly_missing\n" + SOUND, "pip install 'certainly-missing'", ("certainly-missing",)
    ),
    "undeclared": Fault("import certainly_missing\n" + SOUND, "No module named 'certainly_missing'"),
    "attribute": Fault(SOUND, "Nowhere", target="rotten:Nowhere"),
    "members-raise": Fault(
        "class Odd(type):\n    def __getattr__(cls, name): raise RuntimeError('odd ' + name)\n"
        "class Good(metaclass=Odd): pass\n",
        "failed when it was asked for its members: RuntimeError: odd api_version",
    ),
    "members-exit": Fault(
        "class Odd(type):\n"
        "    def __getattribute__(cls, name):\n"
        "        if name == 'Config': raise SystemExit(0)\n"
        "        return type.__getattribute__(cls, name)\n"
        "class Good(metaclass=Odd):\n    api_version = 2\n",
        "failed when it was asked for its members: SystemExit",
    ),
    "api-list": Fault(SOUND.replace("api_version = 2", "api_version = [2]"), "speaks api_version [2]"),
    "api-odd": Fault(
        "class Odd:\n    def __repr__(self): raise RuntimeError('no text')\n" + SOUND + "Good.api_version = Odd()\n",
        "failed when it was asked for its members: RuntimeError: no text",
    ),
    "documentation": Fault(
        "class Odd(str):\n    def expandtabs(self): raise RuntimeError('no words')\n"
        + SOUND
        + "Good.__doc__ = Odd('x')\n",
        "failed when it was asked for its members: RuntimeError: no words",
    ),
    "other-kind": Fault("Good = 3", "not a backend"),
}


def install(path, name, source, requires=(), target="rotten:Good", component="mine"):
    module = target.partition(":")[0]
    group = {KINDS["backend"].group: {component: target}, "spikecore.plugins": {name: f"{module}_hooks"}}
    fake_distribution(path / "site", f"spikecore-{name}", group, requires=requires, modules={f"{module}.py": source})


def rows(result):
    assert result.returncode == 0, result.stderr
    listing = json.loads(result.stdout)
    assert listing["schema"] == 1
    return {(row["distribution"], row["kind"], row["name"]): row for row in listing["components"]}
