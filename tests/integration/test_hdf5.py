"""HDF5 of strangers: another process reads it first, and damage ends that process's fork and nothing here."""

import os
import resource
import subprocess
import sys
import threading
import zlib

import h5py
import numpy as np
import pytest
from spikecore_deploy_lava.net_file import read_net_file
from spikecore_deploy_nir.reading import read_graph

from spikecore import hdf5
from spikecore.errors import ConversionError, DatasetError
from spikecore.hdf5 import check_hdf5
from tests.fuzz.targets import CORPUS


@pytest.fixture
def fresh(monkeypatch):
    """A reader of its own, whose forks do as a test says in place of reading."""
    reader = hdf5._Reader()
    monkeypatch.setattr(hdf5, "_READER", reader)
    monkeypatch.setattr(hdf5, "LIMIT_S", 3.0)

    def instead(code):
        change = f"import os, spikecore.hdf5_server as s; s.walk = lambda path: {code}; s.main()"
        monkeypatch.setattr(hdf5, "COMMAND", f"import sys; sys.path[:] = sys.argv[1:]; {change}")

    yield instead
    reader.close()


def numbers(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(1000), **options)
    return path


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.abort()", "ended with signal 6"),
        ("max(iter(int, 1))", "was not done with it after 3 s"),
        ("bytearray(1 << 30)", "more memory than a file of its size needs"),
        ("os._exit(7)", "ended the process"),
        ("exec('raise OSError(chr(27))')", r"OSError: \\x1b"),
    ],
)
def test_a_library_that_crashes_hangs_or_grows_is_an_error(tmp_path, fresh, code, says):
    path = numbers(tmp_path / "a.h5")
    fresh(code)
    with pytest.raises(DatasetError, match=f"is damaged: .*{says}.*; get it again"):
        check_hdf5(path, DatasetError)


def test_a_file_that_passed_is_not_read_twice_unless_it_changes(tmp_path, fresh):
    path = numbers(tmp_path / "a.h5")
    check_hdf5(path, DatasetError)
    hdf5._READER._process.kill()  # the next question starts another
    fresh("os._exit(7)")
    check_hdf5(path, DatasetError)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DatasetError, match="ended the process"):
        check_hdf5(path, DatasetError)


def test_sigterm_ends_neither_the_reader_nor_a_file_that_is_being_read(tmp_path, fresh):
    """A batch system sends it to all processes of a run."""
    fresh("os.kill(os.getpid(), 15) or os.kill(os.getppid(), 15)")
    check_hdf5(numbers(tmp_path / "a.h5"), DatasetError)
    first = hdf5._READER._process
    check_hdf5(numbers(tmp_path / "b.h5"), DatasetError)
    assert hdf5._READER._process is first
    assert first.poll() is None


def lengthened(path, text):
    """The same file, in which a text of varying length names 4 GiB: libhdf5 takes them before it looks."""
    raw = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        place = file[text].id.get_offset()
    assert int.from_bytes(raw[place : place + 4], "little") < 100
    raw[place : place + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(raw)
    return path


def test_a_small_graph_that_names_gigabytes(tmp_path):
    path = tmp_path / "a.nir"
    path.write_bytes((CORPUS / "nir" / "seed").read_bytes())
    read_graph(path, 1 << 20)
    lengthened(path, "node/type")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConversionError, match=r"a\.nir: is damaged"):
        read_graph(path, 1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_chunk_that_unpacks_to_more_than_its_file_justifies(tmp_path):
    """2 MiB on the disk, 400 MiB of zeros in one chunk."""
    path = tmp_path / "a.net"
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((400 << 20,))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((400 << 20,))
        plist.set_deflate(1)
        dataset = h5py.h5d.create(file.id, b"layer", h5py.h5t.NATIVE_INT8, space, plist)
        dataset.write_direct_chunk((0,), packed)
    assert path.stat().st_size < 3 << 20
    with pytest.raises(ConversionError, match="is damaged"):
        read_net_file(path, 1 << 31)


def test_many_rows_that_share_one_piece_of_the_heap(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("rows", (4000,), h5py.vlen_dtype("u1"))
        rows[0] = np.ones(1 << 20, np.uint8)
        place = rows.id.get_offset()
    raw = bytearray(path.read_bytes())
    raw[place : place + 16 * 4000] = raw[place : place + 16] * 4000
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=r"the rows of /rows name more than"):
        check_hdf5(path, DatasetError)


def test_sound_files_pass_whatever_they_hold(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["empty"] = h5py.Empty("f4")
        file["scalar"] = 3.5
        file["texts"] = np.array(["a", "bc"] * 50, object)
        file.create_dataset("rows", (3,), h5py.vlen_dtype("i4"))[1] = np.arange(5)
        file.create_dataset("unwritten", (1 << 50,), "f4", chunks=(1 << 20,))
        file.create_dataset("packed", data=np.zeros((70, 30)), chunks=(32, 7), compression="gzip", fletcher32=True)
        file["deep/group/of/numbers"] = np.zeros((2, 0, 3))
        file["deep/again"] = file["deep"]
        file["lost"] = h5py.ExternalLink("nowhere.h5", "/")
        file.attrs["names"] = np.array(["x", "y"], object)
        file["deep"].attrs["self"] = file["deep"].ref
    check_hdf5(path, DatasetError)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="is no regular file"):
        check_hdf5(tmp_path / "pipe", DatasetError)


def test_modules_in_the_current_directory_are_not_imported(tmp_path):
    """A received folder may hold an h5py.py."""
    (tmp_path / "h5py.py").write_text("open('ran', 'w')")
    path = numbers(tmp_path / "a.h5")
    code = f"""
import sys; sys.path[:] = [place for place in sys.path if place]
from pathlib import Path
from spikecore.errors import DatasetError
from spikecore.hdf5 import check_hdf5
check_hdf5(Path({str(path)!r}), DatasetError)"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert not (tmp_path / "ran").exists()


def test_threads_and_forks_get_their_own_answers(tmp_path):
    good = [numbers(tmp_path / f"{i}.h5") for i in range(8)]
    bad = [tmp_path / f"bad {i}\n.h5" for i in range(8)]
    for path in bad:
        path.write_bytes(good[0].read_bytes()[:700])
    wrong = []

    def check(path):
        try:
            check_hdf5(path, DatasetError)
        except DatasetError:
            if path in good:
                wrong.append(path)
        else:
            if path in bad:
                wrong.append(path)

    threads = [threading.Thread(target=check, args=(path,)) for pair in zip(good, bad, strict=True) for path in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    pid = os.fork()
    if not pid:
        os.utime(good[0])
        check(good[0])
        check(bad[0])
        os._exit(len(wrong))
    assert os.waitpid(pid, 0)[1] == 0
