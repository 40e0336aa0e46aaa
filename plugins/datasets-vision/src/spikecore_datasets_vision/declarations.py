"""What the well-known image datasets are: one table of facts each.

Digests are those that the authors publish (Fashion-MNIST, CIFAR) or that widely used libraries record (MNIST); sizes
are those of the same files.
"""

from __future__ import annotations

import dataclasses

from spikecore.interfaces import DataFile, DatasetInfo

SEE_PAGE = "none stated; see the authors' page"


def _file(name: str, size: int, md5: str, unpacked_bytes: int, *places: str) -> DataFile:
    urls = tuple(place + name for place in places)
    return DataFile(name, urls, size=size, md5=md5, unpacked_bytes=unpacked_bytes)


def _idx(num_images: int, image_bytes: int = 28 * 28) -> int:
    """Size of an idx file: a header of four bytes and four for each axis, then a byte for each value."""
    return 16 + num_images * image_bytes if image_bytes > 1 else 8 + num_images


def _records(record_bytes: int) -> int:
    """CIFAR's records, and room for what lies beside them: names of classes and a page, some kilobytes."""
    return 60_000 * record_bytes + (1 << 20)


_MNIST_AT = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION_AT = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
_CIFAR_AT = ("https://www.cs.toronto.edu/~kriz/",)

MNIST = DatasetInfo(
    title="MNIST: handwritten digits",
    classes=tuple("0123456789"),
    sample_shape=(1, 28, 28),
    licence=SEE_PAGE,
    citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-Based Learning Applied to Document Recognition, "
    "Proceedings of the IEEE 86(11):2278-2324, 1998",
    homepage="http://yann.lecun.com/exdb/mnist/",
    notes="The authors' page no longer gives the files out; they come from copies, held to the digests that widely "
    "used libraries record.",
    num_samples=(("train", 60_000), ("test", 10_000)),
    files=(
        _file("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873", _idx(60_000), *_MNIST_AT),
        _file("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432", _idx(60_000, 1), *_MNIST_AT),
        _file("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3", _idx(10_000), *_MNIST_AT),
        _file("t10k-labels-idx1-ubyte.gz", 4_542, "ec29112dd5afa0611ce80d1b7f02629c", _idx(10_000, 1), *_MNIST_AT),
    ),
)

FASHION_MNIST = DatasetInfo(
    title="Fashion-MNIST: articles of clothing",
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    sample_shape=(1, 28, 28),
    licence="MIT",
    citation="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning "
    "Algorithms, arXiv:1708.07747, 2017",
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    num_samples=(("train", 60_000), ("test", 10_000)),
    files=(
        _file("train-images-idx3-ubyte.gz", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d", _idx(60_000), *_FASHION_AT),
        _file("train-labels-idx1-ubyte.gz", 29_515, "25c81989df183df01b3e8a0aad5dffbe", _idx(60_000, 1), *_FASHION_AT),
        _file("t10k-images-idx3-ubyte.gz", 4_422_102, "bef4ecab320f06d8554ea6380940ec79", _idx(10_000), *_FASHION_AT),
        _file("t10k-labels-idx1-ubyte.gz", 5_148, "bb300cfdad3c16e7a12a480ee83cd310", _idx(10_000, 1), *_FASHION_AT),
    ),
)

MNIST_CONTENTS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of the unpacked files, as several projects record them: the same, however they were packed."""

FASHION_MNIST_CONTENTS = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}

_KRIZHEVSKY = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009"

CIFAR10 = DatasetInfo(
    title="CIFAR-10: small photographs in ten classes",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    sample_shape=(3, 32, 32),
    licence=SEE_PAGE,
    citation=_KRIZHEVSKY,
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    notes="The binary version; the Python version is pickled, and not read.",
    num_samples=(("train", 50_000), ("test", 10_000)),
    files=(
        _file("cifar-10-binary.tar.gz", 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530", _records(3073), *_CIFAR_AT),
    ),
)

GROUPS = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""The groups of CIFAR-100 and their classes; labels are their places in alphabetical order."""

CIFAR100 = DatasetInfo(
    title="CIFAR-100: small photographs in a hundred classes",
    classes=tuple(sorted(name for names in GROUPS.values() for name in names)),
    sample_shape=(3, 32, 32),
    licence=SEE_PAGE,
    citation=_KRIZHEVSKY,
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    notes="The binary version; the Python version is pickled, and not read. With labels = 'coarse' the twenty groups.",
    num_samples=(("train", 50_000), ("test", 10_000)),
    files=(
        _file("cifar-100-binary.tar.gz", 168_513_733, "03b5dce01913d631647c71ecec9e9cb8", _records(3074), *_CIFAR_AT),
    ),
)


def coarse(info: DatasetInfo) -> DatasetInfo:
    """CIFAR-100 by groups."""
    return dataclasses.replace(info, title="CIFAR-100: small photographs in twenty groups", classes=tuple(GROUPS))
