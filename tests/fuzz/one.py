"""One target under atheris, in a process of its own: `python -m tests.fuzz.one TARGET [libFuzzer's options]`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import atheris

READERS = ["rosbags", "PIL", "tomllib", "zipfile", "tarfile"]
OWN = ["spikecore", "spikecore_datasets_dvs", "spikecore_datasets_vision", "spikecore_deploy_nir"]


def instrumented(name: str) -> Callable[[bytes], None]:
    """The target, with all its modules imported under the instrumentation.

    Targets import their parsers on their first call. Whatever is imported later counts no branches, and the fuzzer
    works blindly; so the seeds go through it first.
    """
    with atheris.instrument_imports(include=OWN + READERS):
        from tests.fuzz.targets import CORPUS, scratch, targets

        function = targets(scratch())[name]
        for seed in sorted((CORPUS / name).iterdir()):
            function(seed.read_bytes())
    return function


HDF5_LIMIT_S = 5.0
"""Some inputs make libhdf5 loop for ever; it is given up after 30 s otherwise, which libFuzzer takes for a hang."""


def main() -> None:
    name, *options = sys.argv[1:]
    function = instrumented(name)
    from spikecore import hdf5  # not before, so that it is instrumented

    hdf5.LIMIT_S = HDF5_LIMIT_S
    atheris.Setup([sys.argv[0], *options], function)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
