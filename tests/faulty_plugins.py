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
    "syntax": Fault("def :", "SyntaxError"),
    "newer-core": Fault(SOUND, "needs spikecore>=99", ("spikecore>=99",)),
    "api-version": Fault(SOUND.replace("api_version = 2", "api_version = 9"), "api_version 9"),
    "older-api": Fault(SOUND.replace("api_version = 2", "api_version = 1"), "Upgrade spikecore-"),
    "dependency": Fault(
        "import certainly_missing\n" + SOUND, "pip install 'certainly-missing'", ("certainly-missing",)
    ),
    "undeclared": Fault("import certainly_missing\n" + SOUND, "No module named 'certainly_missing'"),
    "attribute": Fault(SOUND, "Nowhere", target="rotten:Nowhere"),
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
