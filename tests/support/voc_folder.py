"""A small PASCAL VOC year folder, made of real photographs with drawn-on squares as objects."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from support.photographs import squares

CLASSES = ("cat", "train")  # also VOC's names
VALUES = {"cat": 8, "train": 19}
COLORS = {"cat": (250, 30, 30), "train": (30, 30, 250)}


def annotation(objects, width, height):
    """XML of (name, xmin, ymin, xmax, ymax, difficult) tuples."""
    body = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><part><name>head</name>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        "</object>"
        for name, x0, y0, x1, y1, difficult in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{body}</annotation>"


def voc_folder(folder: Path, n: int = 8, seed: int = 0) -> Path:
    """Write n photographs, each with a coloured square; all in the lists `few` and `val`.

    The list `other` names copies of these photographs.
    """
    for name in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(seed)
    photographs = squares(n, 160)
    ids = [f"2007_{i:06}" for i in range(n)]
    for i, key in enumerate(ids):
        height, width = (120, 160) if i % 3 else (150, 110)
        pixels = photographs[i, :height, :width].copy()
        name = CLASSES[i % 2]
        side = int(generator.integers(50, 80))
        y, x = int(generator.integers(height - side)), int(generator.integers(width - side))
        pixels[y : y + side, x : x + side] = COLORS[name]
        Image.fromarray(pixels).save(folder / f"JPEGImages/{key}.jpg", quality=95)
        mask = np.zeros((height, width), np.uint8)
        mask[y : y + side, x : x + side] = VALUES[name]
        mask[y, x : x + side] = 255
        image = Image.fromarray(mask)
        if i % 2:  # VOC's own masks have a palette
            image = image.convert("P")
            image.putpalette([v for k in range(256) for v in (k, 255 - k, 7 * k % 256)])
            image.putdata(mask.ravel().tolist())
        image.save(folder / f"SegmentationClass/{key}.png")
        text = annotation([(name, x + 1, y + 1, x + side, y + side, 0)], width, height)
        (folder / f"Annotations/{key}.xml").write_text(text)
    copies = [key.replace("2007", "2008") for key in ids]
    for path in sorted(folder.glob("*/2007_*")):
        shutil.copy(path, path.with_name(path.name.replace("2007", "2008")))
    for kind in ("Main", "Segmentation"):
        (folder / "ImageSets" / kind).mkdir(parents=True)
        for split, names in (("few", ids), ("val", ids), ("other", copies)):
            (folder / "ImageSets" / kind / f"{split}.txt").write_text("\n".join(names) + "\n")
    return folder
