"""A dataset in a fresh process: another hash seed, nothing imported before, no state of this process.

`digests_elsewhere` starts `python -m spikecore.testing.fresh`, which reads one request from its standard input.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

Digests = dict[str, list[str]]
"""Split → the digest of each sample that was looked at."""
LIMIT_S = 600


def is_importable(component: Any) -> bool:
    """Whether another process can import the component: it is not made inside a function."""
    module = sys.modules.get(component.__module__)
    return "<locals>" not in component.__qualname__ and getattr(module, "__file__", None) is not None


def digests_elsewhere(
    component: Any, options: Mapping[str, Any], most_samples: int, stand_ins: Path | None = None
) -> Digests:
    """The digests of a dataset's samples, as a fresh process computes them.

    Args:
        component: the dataset's class; see `is_importable`.
        options: of its `Config`.
        most_samples: of each split.
        stand_ins: the directory of small files that stand for published ones, if there is one.

    Raises:
        AssertionError: the other process failed; the message ends with what it said.
    """
    request = {
        "module": component.__module__,
        "name": component.__qualname__,
        "file": sys.modules[component.__module__].__file__,
        "path": sys.path,
        "options": base64.b64encode(pickle.dumps(dict(options))).decode(),
        "most_samples": most_samples,
        "stand_ins": None if stand_ins is None else str(stand_ins),
    }
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-m", "spikecore.testing.fresh"],
        input=json.dumps(request),
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"in a fresh process it fails: {done.stderr.strip()[-2000:]}"
    digests: Digests = json.loads(done.stdout.splitlines()[-1])
    return digests


def _imported(module_name: str, name: str, file: str) -> Any:
    """The class, from its module or, where that cannot be imported by name, from its file."""
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        spec = importlib.util.spec_from_file_location(module_name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    component: Any = module
    for part in name.split("."):
        component = getattr(component, part)
    return component


def _answer(request: dict[str, Any]) -> Digests:
    sys.path[:] = request["path"]
    from spikecore.registry import Blocking, Registry, use
    from spikecore.testing.stand_ins import no_network, stand_ins
    from spikecore.testing.suite import suite_for

    with ExitStack() as stack:
        component = _imported(request["module"], request["name"], request["file"])
        registry = stack.enter_context(use(Registry(blocking=Blocking())))
        # An installed dataset may have this name: new plugins do until they are renamed.
        registry.register("dataset", "fresh", component, replace=True)
        if request["stand_ins"] is not None:
            stack.enter_context(stand_ins(Path(request["stand_ins"])))
            stack.enter_context(no_network())
        options = pickle.loads(base64.b64decode(request["options"]))
        suite: Any = suite_for("dataset", "fresh", options)
        suite.most_samples = request["most_samples"]
        digests: Digests = suite().digests()
        return digests


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
