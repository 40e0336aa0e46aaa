"""A folder of images: what is read, how it is split, and every kind of bad file."""

import io
import pickle
import shutil
import struct
import zlib

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spikecore import create
from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_vision.decoding import decode

SIZE = [16, 12]


def opened(root, **options):
    return create("dataset", "image-folder", root=str(root), **{"size": SIZE, **options})


def test_a_directory_per_class(tmp_path):
    root = tiny.pictures(tmp_path / "p", per_class=10)
    dataset = opened(root, test_share=0.3)
    assert dataset.info.classes == ("bird", "cat", "dog")
    assert dataset.sample_shape == (3, 16, 12)
    train, test = dataset.split("train"), dataset.split("test")
    assert torch.bincount(train.labels).tolist() == [7, 7, 7]
    assert torch.bincount(test.labels).tolist() == [3, 3, 3]
    paths = {path for split in (train, test) for path in split.stored.images.paths}
    assert paths == set(root.rglob("*.png")), "each picture is in one split"
    assert opened(root, test_share=0.3, seed=1).split("test").stored.images.paths != test.stored.images.paths


def test_train_and_test_as_they_stand(tmp_path):
    tiny.pictures(tmp_path / "train", per_class=3)
    tiny.pictures(tmp_path / "test", ("cat", "dog"), per_class=2, seed=1)
    dataset = opened(tmp_path)
    assert dataset.split("train").labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert dataset.split("test").labels.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tiff"])
def test_pixels_of_formats_without_loss(tmp_path, suffix, num_threads):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 12, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "ab"[i // 4] / f"{i}{suffix}")
    split = opened(tmp_path, test_share=0.25, num_threads=num_threads).split("train")
    for (x, label), path in zip(split.__getitems__(range(6)), split.stored.images.paths, strict=True):
        torch.testing.assert_close(x, torch.from_numpy(pixels[int(path.stem)]).permute(2, 0, 1) / 255)
        assert label == int(path.stem) // 4


@pytest.mark.parametrize(("suffix", "slack"), [(".jpg", 3), (".webp", 3), (".gif", 60)])
def test_pixels_of_formats_with_loss(tmp_path, suffix, slack):
    y, x = np.mgrid[:16, :12]
    image = np.stack([10 * x, 10 * y, 5 * (x + y)], 2).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / f"a{suffix}", quality=95)
    pixels = decode(tmp_path / f"a{suffix}", (16, 12), "colour", "crop")
    assert np.abs(pixels.transpose(1, 2, 0).astype(int) - image).mean() < slack


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK", "I;16"])
def test_modes(tmp_path, mode):
    grey = np.tile(np.linspace(0, 255, 12).astype(np.uint8), (16, 1))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(np.stack([grey] * 3, 2)).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    image.save(path)
    colour, plain = (decode(path, (16, 12), channels, "crop") for channels in ("colour", "grey"))
    assert colour.shape == (3, 16, 12)
    assert plain.shape == (1, 16, 12)
    if mode not in ("1", "P"):  # dithered, or of few colours
        assert np.abs(colour.astype(int) - grey).max() <= 3
        assert np.abs(plain[0].astype(int) - grey).max() <= 3


def test_pixels_that_have_no_range_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 1e6, np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DatasetError, match="of mode F; 8 or 16 bits were expected"):
        decode(tmp_path / "a.tiff", (4, 4), "grey", "crop")


def test_how_an_image_comes_to_its_size(tmp_path):
    """White in the middle, grey at both ends of the longer side."""
    image = np.full((20, 40), 100, np.uint8)
    image[:, 10:30] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    crop, stretch, pad = (decode(tmp_path / "a.png", (20, 20), "grey", fit)[0] for fit in ("crop", "stretch", "pad"))
    assert (crop == 255).all()
    assert stretch[10, [0, 10, 19]].tolist() == [100, 255, 100]
    assert (pad[:4] == 0).all()
    assert (pad[16:] == 0).all()
    assert pad[10, [0, 10, 19]].tolist() == [100, 255, 100]


def test_a_turned_camera(tmp_path):
    image = Image.fromarray(np.array([[10, 200]], np.uint8).repeat(8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "a.png", exif=exif)
    pixels = decode(tmp_path / "a.png", (16, 8), "grey", "crop")[0]
    assert pixels[2].tolist() == [10] * 8
    assert pixels[-2].tolist() == [200] * 8


def test_what_is_no_image_is_passed_over(tmp_path):
    root = tiny.pictures(tmp_path, per_class=4)
    (root / "cat" / "notes.txt").write_text("x")
    (root / "cat" / ".hidden.png").write_text("x")
    (root / "cat" / "deeper").mkdir()
    (root / ".git").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "readme.md").write_text("x")
    dataset = opened(root)
    assert dataset.info.classes == ("bird", "cat", "dog")
    assert len(dataset.split("train")) + len(dataset.split("test")) == 12


def png_header(width, height):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))


def jpeg():
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


def pcx():
    """A format that Pillow reads and that is not among ours."""
    out = io.BytesIO()
    Image.new("RGB", (9, 9)).save(out, "PCX")
    return out.getvalue()


BOMB_SIDE = 9000
DATA = struct.pack(">I", 4) + b"IDAT" + bytes(8)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.png", b"", "cannot be read as an image"),
        ("a.png", b"no image at all", "cannot be read as an image"),
        ("a.jpg", b"<!doctype html><html></html>", "cannot be read as an image"),
        ("a.jpg", jpeg()[:700], "truncated|cannot be read as an image"),
        ("a.png", png_header(10, 10), "cannot be read as an image"),
        ("a.png", png_header(10, 10) + DATA, "cannot be read as an image"),
        ("a.png", png_header(BOMB_SIDE, BOMB_SIDE) + DATA, f"claims {BOMB_SIDE} × {BOMB_SIDE} pixels"),
        ("a.png", png_header(2**31 - 1, 2**31 - 1) + DATA, "DecompressionBombError|claims"),
        ("a.png", pcx(), "cannot be read as an image"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as an image"),
    ],
)
def test_a_bad_image_is_named(tmp_path, name, content, says):
    root = tiny.pictures(tmp_path, per_class=4)
    for path in (root / "cat").iterdir():
        path.unlink()
    (root / "cat" / name).write_bytes(content)
    split = opened(root).split("train")
    index = split.labels.tolist().index(1)
    with pytest.raises(DatasetError, match=says) as caught:
        split[index]
    assert str(root / "cat" / name) in str(caught.value)
    with pytest.raises(DatasetError):
        split.__getitems__(range(len(split)))


def test_a_bomb_is_refused_before_it_goes_off(tmp_path):
    """A picture that is small on the disk and large in memory."""
    import resource

    path = tmp_path / "a.png"
    path.write_bytes(png_header(BOMB_SIDE, BOMB_SIDE) + compressed(BOMB_SIDE))
    assert path.stat().st_size < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match="claims"):
        decode(path, (8, 8), "colour", "crop")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; decoded it has 243 MB


def test_most_pixels_is_an_option(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (20, 10)).save(tmp_path / name / f"{i}.png")
    options = {"root": str(tmp_path), "size": (8, 8)}
    with pytest.raises(DatasetError, match="claims 20 × 10 pixels, more than 199; .* most_pixels"):
        create("dataset", "image-folder", **options, most_pixels=199).split("train")[0]
    assert create("dataset", "image-folder", **options, most_pixels=200).split("train")[0][0].shape == (3, 8, 8)


def compressed(side):
    packed, row = zlib.compressobj(9), bytes(1 + 3 * side)
    data = b"IDAT" + b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


@given(cut=st.integers(0, 3000), at=st.integers(0, 2999), value=st.integers(0, 255))
def test_any_damage_to_a_jpeg(tmp_path_factory, cut, at, value):
    content = bytearray(jpeg()[:cut])
    if at < len(content):
        content[at] = value
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(bytes(content))
    try:
        pixels = decode(path, (8, 8), "colour", "crop")
    except DatasetError:
        return
    assert pixels.shape == (3, 8, 8)


def test_a_class_without_images(tmp_path):
    root = tiny.pictures(tmp_path, per_class=4)
    (root / "eel").mkdir()
    with pytest.raises(DatasetError, match="class 'eel' has no images"):
        opened(root).split("test")
    (root / "eel" / "a.txt").write_text("x")
    (root / "fox").mkdir()
    with pytest.raises(DatasetError, match="the classes 'eel', 'fox' have no images"):
        opened(root).split("train")


def test_a_class_in_one_split_only(tmp_path):
    tiny.pictures(tmp_path / "train", ("cat", "dog"), per_class=3)
    tiny.pictures(tmp_path / "test", ("cat", "eel"), per_class=2, seed=1)
    with pytest.raises(DatasetError, match="train: class 'eel' has no images"):
        opened(tmp_path).split("train")
    with pytest.raises(DatasetError, match="train: class 'eel' has no images"):
        opened(tmp_path).split("test")
    shutil.rmtree(tmp_path / "test" / "eel")
    assert len(opened(tmp_path).split("test")) == 2
    (tmp_path / "test" / "dog").mkdir()
    with pytest.raises(DatasetError, match="test: the directory of class 'dog' holds no images"):
        opened(tmp_path).split("test")


def test_directories_that_are_not_there(tmp_path):
    with pytest.raises(DatasetError, match="is not a directory"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="holds no directories"):
        opened(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="no class has images enough for the split 'test'"):
        opened(tmp_path).split("test")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": [0, 4]}, r"'size' must be \[H, W\]"),
        ({"size": [4]}, r"'size' must be \[H, W\]"),
        ({"size": [100_000, 100_000]}, r"'size' must be \[H, W\]"),
        ({"root": ""}, "'root' must name a directory"),
        ({"normalise": "channels"}, "needs 'mean' and 'std'"),
        ({"normalise": {"name": "channels", "mean": [0.5] * 3, "std": [0.5] * 3}, "channels": "grey"}, "1 numbers"),
        ({"fit": "squeeze"}, "must be one of"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, says):
    with pytest.raises(OptionError, match=says):
        create("dataset", "image-folder", **{"root": str(tiny.pictures(tmp_path)), "size": SIZE, **options})


def test_a_file_that_vanishes_or_changes(tmp_path):
    split = opened(tiny.pictures(tmp_path)).split("train")
    path = split.stored.images.paths[2]
    path.unlink()
    with pytest.raises(DatasetError, match="is missing; it was there when the dataset was listed"):
        split[2]
    assert len(pickle.dumps(split)) < 20_000, "paths, not pixels"


def test_grey_maps_of_16_bits(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + bytes([0x80, 0xFF, 0x01, 0x00]))
    assert decode(path, (1, 2), "grey", "stretch").tolist() == [[[0x80, 0x01]]]
