"""One target under atheris, in a process of its own: `python -m tests.fuzz.one TARGET [libFuzzer's options]`."""

from __future__ import annotations

import sys

import atheris

OWN = ["spikecore", "spikecore_datasets_dvs", "spikecore_datasets_vision", "spikecore_deploy_nir", "zipfile", "tarfile"]
with atheris.instrument_imports(include=OWN):
    from tests.fuzz.targets import scratch, targets


def main() -> None:
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], targets(scratch())[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
