"""The well-known datasets from tiny archives in the authors' form: every value, and every fault of a file."""

import dataclasses
import errno
import gzip
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import tarfile
import threading
import tracemalloc

import numpy as np
import pytest
import tiny
import torch
import writers

from spikecore import create
from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_vision import declarations
from spikecore_datasets_vision.cifar import CIFAR10, CIFAR100
from spikecore_datasets_vision.idx import IdxImages
from spikecore_datasets_vision.mnist import MNIST, FashionMNIST


def opened(name, **options):
    return create("dataset", name, allow_partial=True, **options)


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_mnist(data, monkeypatch, cls):
    tiny.put(monkeypatch, cls, data / cls.name, tiny.mnist_archives(seed=3))
    dataset = opened(cls.name)
    for number, (name, count) in enumerate({"train": tiny.NUM_TRAIN, "test": tiny.NUM_TEST}.items()):
        images, labels = tiny.digits(3 + number, count)
        split = dataset.split(name)
        assert len(split) == count
        assert split.labels.tolist() == labels.tolist()
        for i in (0, 7, count - 1):
            x, label = split[i]
            torch.testing.assert_close(x, torch.tensor(images[i] / 255, dtype=torch.float32)[None])
            assert label == labels[i]
    with pytest.raises(DatasetError, match=r"the split train has 60 of 60000 images: .* allow_partial"):
        create("dataset", cls.name).split("train")
    with pytest.raises(OptionError, match="has the splits train, test; got 'val'"):
        dataset.split("val")


def test_cifar10_comes_in_the_order_of_its_files(data, monkeypatch):
    archive = {"cifar-10-binary.tar.gz": writers.tar_gz(tiny.cifar10_members(seed=4))}
    tiny.put(monkeypatch, CIFAR10, data / "cifar10", archive)
    train, test = (opened("cifar10").split(name) for name in ("train", "test"))
    whole = [record for i in range(1, 6) for record in tiny.records(4 + i, 12, 1)]
    assert (len(train), len(test)) == (60, 20)
    for i in (0, 11, 12, 59):
        x, label = train[i]
        wanted = np.frombuffer(whole[i][1], np.uint8).reshape(3, 32, 32)
        torch.testing.assert_close(x, torch.tensor(wanted / 255, dtype=torch.float32))
        assert label == whole[i][0][0]
    assert test.labels.tolist() == [i % 10 for i in range(20)]


@pytest.mark.parametrize(("labels", "place", "count"), [("fine", 1, 100), ("coarse", 0, 20)])
def test_cifar100_has_two_kinds_of_labels(data, monkeypatch, labels, place, count):
    archive = {"cifar-100-binary.tar.gz": writers.tar_gz(tiny.cifar100_members(seed=4))}
    tiny.put(monkeypatch, CIFAR100, data / "cifar100", archive)
    dataset = opened("cifar100", labels=labels)
    assert dataset.num_outputs == len(dataset.info.classes) == count
    coarse_labels = dataset.split("train").labels.tolist()
    assert coarse_labels == [head[place] for head, _ in tiny.records(4, 60, 2)]


def test_the_classes_of_cifar100():
    assert len(set(declarations.CIFAR100.classes)) == 100
    assert all(len(names) == 5 for names in declarations.GROUPS.values())
    assert declarations.CIFAR100.classes[:3] == ("apple", "aquarium_fish", "baby")
    assert declarations.CIFAR100.classes[-1] == "worm"
    assert list(declarations.GROUPS) == sorted(declarations.GROUPS)


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST, CIFAR10, CIFAR100])
def test_what_is_declared(cls):
    info = cls.info
    for file in info.files:
        assert len(file.md5) == 32
        assert int(file.md5, 16)
        assert file.size > 1000
        assert all(url.endswith("/" + file.name) for url in file.urls)
        assert file.urls
    assert dict(info.num_samples) in ({"train": 60_000, "test": 10_000}, {"train": 50_000, "test": 10_000})


def test_files_that_a_person_unpacked(tmp_path):
    """Also within the directory that the archive makes; nothing is fetched, and nothing is written."""
    for name, content in tiny.cifar10_members().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    assert len(opened("cifar10", root=str(tmp_path)).split("train")) == 60
    assert sorted(tmp_path.rglob("*")) == before


def raw_mnist(directory, **changes):
    """Unpacked; `changes` replace the content of a file, by the first word and the kind (train_images …)."""
    directory.mkdir(exist_ok=True, parents=True)
    for name, content in tiny.mnist_archives().items():
        words = name.split("-")
        (directory / name.removesuffix(".gz")).write_bytes(
            changes.get(f"{words[0]}_{words[1]}", gzip.decompress(content)),
        )
    return directory


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train_labels": writers.idx([1] * 59, (59,))}, "has 59 labels for 60 images"),
        ({"train_labels": writers.idx([1] * 59 + [10], (60,))}, "the label of image 59 is 10; there are 10 classes"),
        ({"train_labels": writers.idx([1] * 59 + [-1], (60,), "b")}, "the label of image 59 is -1"),
        ({"train_labels": writers.idx([1] * 60, (60, 1))}, r"labels are \[N\] of uint8"),
        ({"train_labels": writers.idx([1] * 60, (60,), "f")}, r"labels are \[N\] of uint8"),
        ({"train_images": writers.idx([0] * 60 * 27 * 28, (60, 27, 28))}, r"its images are \(27, 28\)"),
        ({"train_images": writers.idx([], (0, 28, 28)), "train_labels": writers.idx([], (0,))}, "holds no images"),
        ({"train_images": b""}, "is empty"),
        ({"train_images": b"<html>moved</html>"}, "is no idx file"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, changes, says):
    with pytest.raises(DatasetError, match=says):
        opened("mnist", root=str(raw_mnist(tmp_path, **changes))).split("train")


def test_labels_beyond_the_classes_of_cifar(tmp_path):
    members = tiny.cifar100_members()
    members["cifar-100-binary/train.bin"] = writers.cifar([((20, 99), bytes(3072))])
    for name, content in members.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert len(opened("cifar100", root=str(tmp_path)).split("train")) == 1
    with pytest.raises(DatasetError, match="the label of image 0 is 20; there are 20 classes"):
        opened("cifar100", root=str(tmp_path), labels="coarse").split("train")


def link(name, target):
    item = tarfile.TarInfo(name)
    item.type, item.linkname = tarfile.SYMTYPE, target
    return item


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda whole: whole[: len(whole) // 2], "cannot be unpacked|is damaged"),
        (lambda whole: b"", "cannot be unpacked|is damaged"),
        (lambda whole: b"garbage" * 100, "cannot be unpacked"),
        (lambda whole: b"<!doctype html><html>sign in</html>", "cannot be unpacked"),
        (lambda whole: writers.tar_gz({"../../evil": b"x"}), "leads out"),
        (lambda whole: writers.tar_gz({"/tmp/evil": b"x"}), "leads out"),
        (lambda whole: writers.tar_gz({"a": link("a", "/etc/passwd")}), "is a link"),
        (lambda whole: writers.tar_gz({"other.bin": b"x"}), "data_batch_1.bin is missing; is this CIFAR-10"),
    ],
)
def test_damaged_and_malicious_archives(data, monkeypatch, change, says):
    whole = writers.tar_gz(tiny.cifar10_members())
    tiny.put(monkeypatch, CIFAR10, data / "cifar10", {"cifar-10-binary.tar.gz": change(whole)})
    with pytest.raises(DatasetError, match=says):
        opened("cifar10").split("train")
    assert not list(data.parent.rglob("evil"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda whole: whole[:-9], "cannot be unpacked"),
        (lambda whole: whole[:-5] + b"\0" * 5, "cannot be unpacked"),
        (lambda whole: b"", "is empty|cannot be unpacked"),
        (lambda whole: b"<html>", "cannot be unpacked"),
    ],
)
def test_damaged_gz(data, monkeypatch, change, says):
    files = tiny.mnist_archives()
    name = "train-images-idx3-ubyte.gz"
    tiny.put(monkeypatch, MNIST, data / "mnist", files | {name: change(files[name])})
    with pytest.raises(DatasetError, match=says):
        opened("mnist").split("train")
    assert not (data / "mnist" / "extracted").exists() or says.startswith("is empty")


def test_a_gz_that_unpacks_to_far_too_much(data, monkeypatch):
    monkeypatch.setattr("spikecore_datasets_vision.named.MOST_BYTES", 50_000)
    files = tiny.mnist_archives() | {"train-images-idx3-ubyte.gz": writers.gz(bytes(3_000_000))}
    tiny.put(monkeypatch, MNIST, data / "mnist", files)
    with pytest.raises(DatasetError, match="unpacks to more than 50000 bytes"):
        opened("mnist").split("train")
    assert not (data / "mnist" / "extracted").exists()


SIZES = {"train-images": 47_040_016, "train-labels": 60_008, "t10k-images": 7_840_016, "t10k-labels": 10_008}
"""Of MNIST's and Fashion-MNIST's files, unpacked, as the format has it: http://yann.lecun.com/exdb/mnist/."""


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_a_gz_that_unpacks_to_more_than_its_declared_size(data, monkeypatch, cls):
    declared = {file.name.partition("-idx")[0]: file.unpacked_bytes for file in cls.info.files}
    assert declared == SIZES
    files = tiny.mnist_archives()
    tiny.put(monkeypatch, cls, data / cls.name, files)
    name = "t10k-images-idx3-ubyte.gz"
    size = len(gzip.decompress(files[name]))

    def declare(num_bytes):
        others = [file for file in cls.info.files if file.name != name]
        own = next(file for file in cls.info.files if file.name == name)
        own = dataclasses.replace(own, unpacked_bytes=num_bytes)
        monkeypatch.setattr(cls, "info", dataclasses.replace(cls.info, files=(*others, own)))

    declare(size - 1)
    with pytest.raises(DatasetError, match=f"unpacks to more than {size - 1} bytes"):
        opened(cls.name).split("train")
    declare(size)
    opened(cls.name).split("train")


@pytest.mark.parametrize(("cls", "num_bytes"), [(CIFAR10, 184_380_000), (CIFAR100, 184_440_000)])
def test_cifar_declares_its_records_and_little_more(cls, num_bytes):
    assert 0 < cls.info.files[0].unpacked_bytes - num_bytes < 2_000_000


def test_a_wrong_digest(data, monkeypatch):
    files = tiny.mnist_archives()
    tiny.put(monkeypatch, MNIST, data / "mnist", files)
    name = "t10k-labels-idx1-ubyte.gz"
    (data / "mnist" / name).write_bytes(writers.gz(writers.idx([3] * 20, (20,))).ljust(len(files[name]), b"\0"))
    with pytest.raises(DatasetError, match=r"its md5 is .* instead of .*Delete it|bytes instead of"):
        opened("mnist").split("test")


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_archives_that_were_packed_anew(data, monkeypatch, cls):
    files = tiny.mnist_archives()
    tiny.put(monkeypatch, cls, data / cls.name, files)
    contents = {name.removesuffix(".gz"): gzip.decompress(packed) for name, packed in files.items()}
    for name, content in contents.items():
        anew = gzip.compress(content, compresslevel=1, mtime=7)
        assert anew != files[f"{name}.gz"]
        (data / cls.name / f"{name}.gz").write_bytes(anew)
    with pytest.raises(DatasetError, match=r"its md5 is .* instead of|bytes instead of"):  # of other images
        opened(cls.name).split("train")
    monkeypatch.setattr(cls, "contents", {name: hashlib.md5(content).hexdigest() for name, content in contents.items()})
    images, labels = tiny.digits(0, tiny.NUM_TRAIN)
    split = opened(cls.name).split("train")
    assert split.labels.tolist() == labels.tolist()
    torch.testing.assert_close(split[7][0], torch.tensor(images[7] / 255, dtype=torch.float32)[None])


def test_the_test_images_alone(data, monkeypatch):
    root = data / "mnist"
    tiny.put(monkeypatch, MNIST, root, tiny.mnist_archives())
    held = {path.name: path.read_bytes() for path in root.glob("train*")}
    for name in held:
        (root / name).unlink()
    assert len(opened("mnist").split("test")) == tiny.NUM_TEST
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte.gz must be downloaded manually"):
        opened("mnist").split("train")
    for name, content in held.items():
        (root / name).write_bytes(content)
    assert len(opened("mnist").split("train")) == tiny.NUM_TRAIN


@pytest.fixture
def server():
    """Serves `content`; the next answers end after so many bytes; `log` holds the ranges that were asked for."""
    state = type("State", (), {"content": {}, "cut_after": [], "log": []})()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            body, asked = state.content[self.path], self.headers.get("Range")
            state.log.append((self.path, asked))
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", '"1"')
            self.end_headers()
            cut = state.cut_after.pop(0) if state.cut_after else None
            self.wfile.write(body[start:] if cut is None else body[start:][:cut])
            self.close_connection = True

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{served.server_address[1]}"
    yield state
    served.shutdown()
    served.server_close()


def test_a_download_that_breaks_off_goes_on(data, monkeypatch, server):
    files = {"cifar-10-binary.tar.gz": writers.tar_gz(tiny.cifar10_members())}
    server.content = {f"/{name}": content for name, content in files.items()}
    server.cut_after = [70_000, 30_000]
    tiny.declare(monkeypatch, CIFAR10, files, [server.url])
    assert len(opened("cifar10").split("train")) == 60
    assert [asked is None for _, asked in server.log] == [True, False, False]
    assert len(opened("cifar10").split("test")) == 20
    assert len(server.log) == 3, "fetched once"


def test_a_web_page_instead_of_the_files(data, monkeypatch, server):
    files = tiny.mnist_archives()
    server.content = {f"/{name}": b"<!DOCTYPE html><html>403</html>" for name in files}
    tiny.declare(monkeypatch, MNIST, files, [server.url])
    with pytest.raises(DatasetError, match="cannot be fetched: .*(a web page came instead|bytes instead of)"):
        opened("mnist").split("train")


KILLED = """
import sys, time, gzip
from spikecore_datasets_vision import named
real = named.gunzip
def slow(archive, target, most_bytes):
    real(archive, target, most_bytes)
    print(target.name, flush=True)
    time.sleep(60 if target.name.startswith("t10k") else 0)
import spikecore_datasets_vision.mnist as module
module.gunzip = slow
module.MNIST(root=sys.argv[1], allow_partial=True).unpack(sorted(__import__("pathlib").Path(sys.argv[1]).glob("*.gz")),
    __import__("pathlib").Path(sys.argv[1]) / "extracted")
"""


def test_kill_9_while_unpacking(data, monkeypatch):
    root = data / "mnist"
    tiny.put(monkeypatch, MNIST, root, tiny.mnist_archives())
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("t10k")  # half of it is on the disk
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(root.glob(".extracted.partial/*")), "killed before there was anything to be mistaken for the whole"
    assert not (root / "extracted").exists()
    assert len(opened("mnist").split("train")) == tiny.NUM_TRAIN
    assert not list(root.glob(".extracted.partial"))


def test_two_at_once(data, monkeypatch):
    tiny.put(monkeypatch, MNIST, data / "mnist", tiny.mnist_archives())
    sizes = []
    threads = [threading.Thread(target=lambda: sizes.append(len(opened("mnist").split("train")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [tiny.NUM_TRAIN] * 4


def test_a_part_of_each_class(data, monkeypatch):
    tiny.put(monkeypatch, MNIST, data / "mnist", tiny.mnist_archives())
    part = opened("mnist", share=0.5).split("train")
    assert len(part) == 30
    assert torch.bincount(part.labels).tolist() == [3] * 10
    other = opened("mnist", share=0.5, seed=1).split("train")
    assert part.chosen.tolist() != other.chosen.tolist()
    whole = opened("mnist").split("train")
    torch.testing.assert_close(part[4][0], whole[int(part.chosen[4])][0])
    with pytest.raises(IndexError, match="sample 30 of 30"):
        part[30]
    torch.testing.assert_close(part[-1][0], part[29][0])
    assert part.__getitems__([]) == []


def test_normalisation_is_that_of_the_training_images(data, monkeypatch):
    archive = {"cifar-10-binary.tar.gz": writers.tar_gz(tiny.cifar10_members())}
    tiny.put(monkeypatch, CIFAR10, data / "cifar10", archive)
    plain, scaled = opened("cifar10"), opened("cifar10", normalise="channels")
    x = torch.stack([x for x, _ in plain.split("train")]).double()
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)
    images = torch.stack([x for x, _ in scaled.split("train")]).double()
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)
    monkeypatch.setattr("spikecore_datasets_vision.normalisation.CHUNK", 7)
    torch.testing.assert_close(opened("cifar10", normalise="channels").split("train")[2][0], images[2].float())
    split = opened("cifar10", normalise="channels").split("test")
    torch.testing.assert_close(split.unnormalised(split[1][0]), plain.split("test")[1][0])
    unit = plain.split("test")
    assert torch.equal(unit.unnormalised(unit[1][0]), unit[1][0])
    test = (plain.split("test")[3][0] - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(scaled.split("test")[3][0], test.float())
    given = opened("cifar10", normalise={"name": "channels", "mean": [0.5, 0.0, 0.1], "std": [2.0, 1.0, 0.5]})
    wanted = (x[0] - torch.tensor([0.5, 0.0, 0.1])[:, None, None]) / torch.tensor([2.0, 1.0, 0.5])[:, None, None]
    torch.testing.assert_close(given.split("train")[0][0], wanted.float())


@pytest.mark.parametrize(
    ("normalise", "says"),
    [
        ({"name": "channels", "mean": [0.5], "std": [1.0]}, "must have 3 numbers"),
        ({"name": "channels", "mean": [0.5] * 3}, "must have 3 numbers"),
        ({"name": "channels", "mean": [0.5] * 3, "std": [1.0, 0.0, 1.0]}, "'std' must be > 0"),
        ("chanels", "Did you mean 'channels'"),
        (lambda x: x, "takes channels, unit"),
    ],
)
def test_normalisations_that_cannot_be(normalise, says):
    with pytest.raises(OptionError, match=says):
        create("dataset", "cifar10", normalise=normalise)


def test_images_of_one_value_cannot_be_normalised(tmp_path):
    root = raw_mnist(tmp_path, train_images=writers.idx([9] * 60 * 28 * 28, (60, 28, 28)))
    with pytest.raises(DatasetError, match="cannot be normalised"):
        opened("mnist", root=str(root), normalise="channels").split("test")


def test_a_disk_that_is_full(data, monkeypatch):
    tiny.put(monkeypatch, MNIST, data / "mnist", tiny.mnist_archives())

    def full(archive, target, most_bytes):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("spikecore_datasets_vision.mnist.gunzip", full)
    with pytest.raises(DatasetError, match="free some space"):
        opened("mnist").split("train")
    assert not (data / "mnist" / "extracted").exists()


def test_a_file_is_mapped_and_not_read_as_a_whole(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    count = 300_000
    with path.open("wb") as file:
        file.write(writers.idx([], (count, 28, 28)))
        file.truncate(16 + count * 784)
    images = IdxImages(path)
    tracemalloc.start()
    assert images.take(np.array([0, count - 1])).shape == (2, 1, 28, 28)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_label_that_is_unknown_is_blamed_on_its_file(tmp_path):
    members = tiny.cifar10_members()
    for name, content in members.items():
        path = tmp_path / name.rpartition("/")[2]
        path.write_bytes(b"\xc8" + content[1:] if name.endswith("data_batch_3.bin") else content)
    with pytest.raises(DatasetError, match=r"data_batch_3\.bin: the label of image \d+ is 200"):
        opened("cifar10", root=str(tmp_path)).split("train")
