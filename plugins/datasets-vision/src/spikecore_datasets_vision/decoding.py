"""Files of images, decoded by Pillow, at one size.

Only formats whose decoders need no other program are opened. The size that a file claims is looked at before it is
decoded, so a small file cannot ask for much memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from spikecore.errors import DatasetError
from spikecore.files import refuse_special

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"),
)
MOST_PIXELS = 1 << 24
"""16 million by default; decoded, that is 64 MiB, and up to 200 MiB while a decoder works."""
LARGEST_IMAGE = 1 << 28
"""What the option may allow."""
Fit = Literal["crop", "stretch", "pad"]
FITS: dict[str, Callable[..., Image.Image]] = {
    "crop": ImageOps.fit,
    "stretch": Image.Image.resize,
    "pad": ImageOps.pad,
}


def decode(
    path: Path, size: tuple[int, int], channels: Literal["colour", "grey"], fit: Fit, most_pixels: int = MOST_PIXELS
) -> np.ndarray:
    """uint8 `[C, H, W]`.

    Args:
        path: of the file.
        size: `(H, W)`.
        channels: three, or one.
        fit: how the image comes to that size: what is too much is cut off at both sides, its shape is changed, or what
            is lacking is black.
        most_pixels: that a file may claim; one of a few bytes can claim millions.

    Raises:
        DatasetError: the file is missing, damaged, no image of these formats, or larger than `most_pixels`.
    """
    height, width = size
    try:
        refuse_special(path, follows_link=True)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > most_pixels:
                raise DatasetError(
                    f"{path}: claims {image.width} × {image.height} pixels, more than {most_pixels}; scale it "
                    "down, or set option most_pixels if the file is yours"
                )
            mode = "RGB" if channels == "colour" else "L"
            is_sixteen = image.format == "PPM" and image.mode == "I"  # Pillow brings such values to 0 .. 65535
            flat = _eight_bits(ImageOps.exif_transpose(image), is_sixteen).convert(mode)
            array = np.array(FITS[fit](flat, (width, height), Image.Resampling.BILINEAR), np.uint8)
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; it was there when the dataset was listed") from error
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise DatasetError(f"{path}: cannot be read as an image: {type(error).__name__}: {error}") from error
    return np.ascontiguousarray(array.transpose(2, 0, 1)) if array.ndim == 3 else array[None]


def _eight_bits(image: Image.Image, is_sixteen: bool) -> Image.Image:
    """Images of 16 bits scaled down, which Pillow's own conversion would cut off."""
    if is_sixteen or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}; 8 or 16 bits were expected")
    return image
