"""Generated JPEG files, as large and as costly to decode as photographs."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (500, 375)  # pixels, the most common size in ImageNet
DISTINCT = 64
"""Number of different pictures. Further files are copies, which cost as much to decode."""
QUALITY = 90
GRAIN = 6.0  # standard deviation, levels of 255


def write_images(folder: Path, n: int) -> None:
    """Write n JPEG files of about 60 KB into a new folder; every call writes the same files.

    The pictures are smooth fields of colour with some grain. Pure noise would make files four times
    as large.
    """
    folder.mkdir(parents=True)
    for number in range(n):
        path = folder / f"{number:06d}.jpg"
        if number >= DISTINCT:
            shutil.copyfile(folder / f"{number % DISTINCT:06d}.jpg", path)
            continue
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        field = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), np.float32)
        grain = rng.normal(0, GRAIN, field.shape[:2])[:, :, None]
        picture = (field + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(path, quality=QUALITY)
