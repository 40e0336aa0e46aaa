"""Tiny archives in the authors' form, and their declarations: sizes and digests are those of the archives made here."""

import hashlib
import random
from dataclasses import replace

import numpy as np
import writers
from PIL import Image

from spikecore.interfaces.dataset import DataFile
from spikecore_datasets_vision.cifar import CIFAR10, CIFAR100
from spikecore_datasets_vision.mnist import MNIST, FashionMNIST

NUM_TRAIN, NUM_TEST = 60, 20


def digits(seed, count):
    """Images of 28 × 28 in which the class is a bright column, on noise; and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = rng.integers(0, 40, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label + 4 : 2 * label + 6] += 200
    return images, labels


def mnist_archives(seed=0, num_train=NUM_TRAIN, num_test=NUM_TEST):
    made = {}
    for number, (prefix, count) in enumerate({"train": num_train, "t10k": num_test}.items()):
        images, labels = digits(seed + number, count)
        made[f"{prefix}-images-idx3-ubyte.gz"] = writers.gz(writers.idx(images.flatten().tolist(), (count, 28, 28)))
        made[f"{prefix}-labels-idx1-ubyte.gz"] = writers.gz(writers.idx(labels.tolist(), (count,)))
    return made


def records(seed, count, num_labels):
    """CIFAR's: random pixels; labels as the position says, so that tests can tell records apart."""
    rng = random.Random(seed)
    heads = [(i % 10,) if num_labels == 1 else (i % 20, (7 * i) % 100) for i in range(count)]
    return [(head, rng.randbytes(3072)) for head in heads]


def cifar10_members(seed=0):
    members = {f"cifar-10-batches-bin/data_batch_{i}.bin": writers.cifar(records(seed + i, 12, 1)) for i in range(1, 6)}
    members["cifar-10-batches-bin/test_batch.bin"] = writers.cifar(records(seed + 9, NUM_TEST, 1))
    return members | {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n"}


def cifar100_members(seed=0):
    return {
        "cifar-100-binary/train.bin": writers.cifar(records(seed, NUM_TRAIN, 2)),
        "cifar-100-binary/test.bin": writers.cifar(records(seed + 1, NUM_TEST, 2)),
    }


def archives():
    """For each dataset class, its archives."""
    return {
        MNIST: mnist_archives(),
        FashionMNIST: mnist_archives(seed=50),
        CIFAR10: {"cifar-10-binary.tar.gz": writers.tar_gz(cifar10_members())},
        CIFAR100: {"cifar-100-binary.tar.gz": writers.tar_gz(cifar100_members())},
    }


def declare(monkeypatch, cls, files, urls=()):
    """The class expects these files."""
    assert set(files) == {file.name for file in cls.info.files}, "not the files that are declared"
    described = tuple(
        DataFile(name, tuple(f"{url}/{name}" for url in urls), len(content), hashlib.md5(content).hexdigest())
        for name, content in files.items()
    )
    monkeypatch.setattr(cls, "info", replace(cls.info, files=described))


def put(monkeypatch, cls, directory, files):
    """The files where a download would put them, and declared as such."""
    declare(monkeypatch, cls, files)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)


def pictures(root, classes=("bird", "cat", "dog"), per_class=10, suffix=".png", seed=0):
    """A directory per class of noise of various sizes."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            height, width = rng.integers(20, 50, 2)
            Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(root / name / f"{i:02}{suffix}")
    return root
