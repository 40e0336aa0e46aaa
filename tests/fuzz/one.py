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


def main() -> None:
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], instrumented(name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
