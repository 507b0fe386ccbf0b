"""Image files for tests: small synthetic photographs, and damaged and unusual files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(height: int = 40, width: int = 56, seed: int = 0) -> Image.Image:
    """A smooth random picture, which JPEG and resizing change little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """The bytes of the image as a file of a format."""
    buffer = io.BytesIO()
    image.save(buffer, format, **({"quality": 95} if format == "JPEG" else {}), **options)
    return buffer.getvalue()


def photo_folder(root: Path, n: int, **sides: int) -> Path:
    """Write `n` photographs in 3 class folders with spaces and accents in their names."""
    for i in range(n):
        path = root / f"clässe {i % 3}" / f"photo {i:04d} 图.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed=i, **sides)))
    return root


def oriented(image: Image.Image, orientation: int) -> bytes:
    """A JPEG file whose EXIF block asks for a turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif.tobytes())


def bomb(side: int = 60_000) -> bytes:
    """A JPEG file of a few hundred bytes whose header claims side x side pixels."""
    data = bytearray(encoded(picture()))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = side.to_bytes(2, "big") * 2
    return bytes(data)


def spoiled_files(seed: int = 0) -> dict[str, bytes]:
    """Files that cannot be decoded, each damaged in another way: {name: bytes}."""
    good = encoded(picture(seed=seed))
    png = encoded(picture(seed=seed), "PNG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    return {
        "empty.jpg": b"",
        "truncated.jpg": good[: len(good) // 2],
        "header only.jpg": good[:20],
        "junk.jpg": np.random.default_rng(seed).bytes(3000),
        "text.png": b"not an image\n" * 40,
        "zeros.tif": bytes(2000),
        "flipped.png": bytes(flipped),
        "truncated.png": png[: len(png) - 40],
        "bomb.jpg": bomb(),
        "elongated.png": encoded(Image.new("RGB", (900, 3)), "PNG"),
    }


def odd_files(seed: int = 0) -> dict[str, bytes]:
    """Unusual files that can be decoded: {name: bytes}."""
    image = picture(seed=seed)
    gray = image.convert("L")
    wide = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    alpha = image.copy()
    alpha.putalpha(gray)
    return {
        "png named jpg.jpg": encoded(image, "PNG"),
        "jpeg named png.png": encoded(image),
        "cmyk.jpg": encoded(image.convert("CMYK")),
        "gray.jpg": encoded(gray),
        "gray 16 bit.png": encoded(wide, "PNG"),
        "progressive.jpg": encoded(image, progressive=True),
        "turned.jpg": oriented(image, 6),
        "one pixel.png": encoded(image.resize((1, 1)), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "palette.gif": encoded(image, "GIF"),
        "bits.bmp": encoded(gray.convert("1"), "BMP"),
        "lossy.webp": encoded(image, "WEBP"),
        "float.tif": encoded(Image.fromarray(np.asarray(gray) / np.float32(255)), "TIFF"),
    }
