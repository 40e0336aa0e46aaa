"""The committed corpus and mutations of it through every parser: no error but ours, and little memory."""

import random
import resource

import pytest

from tests.fuzz.targets import CORPUS, LIBRARIES, targets

NUM_INPUTS = 150
NUM_OF = {"nir": 20, "hdf5": 20}
"""Read in a fork first: fewer inputs."""


def mutated(data, rng):
    """Between one and four changes: bits, numbers of implausible size, pieces cut out or doubled."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        length = rng.choice([1, 2, 4, 8, 64])
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + length] = rng.choice([b"\0", b"\xff", b"\x7f", b"["]) * length
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        else:
            data[at:at] = rng.randbytes(length)
    return bytes(data)


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_mutations_raise_errors_of_ours(name, tmp_path):
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    function = targets(tmp_path)[name]
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    rng = random.Random(name)
    for seed in seeds:
        function(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(NUM_OF.get(name, NUM_INPUTS)):
        function(mutated(rng.choice(seeds), rng))
    function(b"")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_every_target_has_a_corpus(tmp_path):
    assert sorted(targets(tmp_path)) == sorted(path.name for path in CORPUS.iterdir())
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 200_000
