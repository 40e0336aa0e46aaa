"""What every run pays for plugins that it does not use."""

import subprocess
import sys

SCRIPT = """
import sys
import torch
from spikecore import nn
from spikecore.registry import registry

before = {name.partition(".")[0] for name in sys.modules}
assert registry().hooks.active, "no plugin with hooks is installed"
after = {name.partition(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
print(*sorted(name for name in after if not name.startswith("spikecore")))
"""
QUICK = {"_cython_3_2_4", "cython_runtime", "farama_notifications", "google", "gymnasium", "h5py", "ml_dtypes", "onnx"}
QUICK |= {"packaging", "pluggy", "safetensors"}
"""Imported in hundredths of a second, with what they import."""


def test_hooks_import_no_slow_library():
    """Hooks are imported in every run; torchmetrics in one of them once took a third of the default run."""
    command = [sys.executable, "-c", SCRIPT]
    imported = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert set(imported) <= QUICK, "import slow libraries where they are used"
