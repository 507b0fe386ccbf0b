"""Which files of a folder are images: by suffix, and by content where the suffix does not tell.

A file that is no image is never dropped silently: `OtherFiles` lists its path and the reason.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Suffixes of the formats that ktfast decodes. The content of these files is not looked at."""

READS_AVIF = find_spec("PIL") is not None and find_spec("PIL._avif") is not None
"""Whether the installed Pillow decodes AVIF."""

LISTED = 1000
"""Number of files whose paths `OtherFiles` keeps. Further files are only counted by suffix."""

HEAD_BYTES = 32
"""Number of bytes at the start of a file that tell the format of an image."""

# Suffixes of images that ktfast cannot decode. A camera raw file begins like a TIFF file, but a
# TIFF reader finds only its small preview.
_UNREAD_SUFFIXES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys(
        (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw",
         ".rw2", ".srw"),
        "camera raw",
    ),
    **dict.fromkeys((".eps", ".ps"), "PostScript"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    ".jxl": "JPEG XL", ".ico": "icon", ".icns": "icon", ".psd": "Photoshop", ".exr": "OpenEXR",
    ".hdr": "Radiance HDR", ".dds": "DDS", ".xcf": "GIMP", ".j2c": "raw JPEG 2000",
    ".dcm": "DICOM",
}  # fmt: skip
# Suffixes of files that are never images. Their content is not looked at, which saves the time to
# open a million annotations.
_OTHER_SUFFIXES = frozenset({
    ".7z", ".avi", ".bin", ".bz2", ".c", ".cfg", ".ckpt", ".conf", ".cpp", ".css", ".csv", ".db",
    ".doc", ".docx", ".gz", ".h", ".h5", ".hdf5", ".htm", ".html", ".ini", ".ipynb", ".js", ".json",
    ".jsonl", ".lock", ".log", ".m", ".mat", ".md", ".mkv", ".mov", ".mp3", ".mp4", ".npy", ".npz",
    ".onnx", ".parquet", ".pdf", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".rar", ".rst",
    ".safetensors", ".sh", ".sha256", ".tar", ".tex", ".tfrecord", ".tgz", ".toml", ".tsv", ".txt",
    ".wav", ".xls", ".xlsx", ".xml", ".xz", ".yaml", ".yml", ".zip",
})  # fmt: skip
NOT_AN_IMAGE = "not an image"
"""The reason of a file that is no image."""
READ_FORMATS = frozenset(
    {"JPEG", "PNG", "GIF", "TIFF", "JPEG 2000", "BMP", "WebP", "PNM", *(["AVIF"] * READS_AVIF)}
)
"""Formats with a signature that ktfast decodes. TGA has no signature."""
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_UNREAD_MAGIC = (
    (b"8BPS", "Photoshop"),
    (b"%!PS", "PostScript"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"DDS ", "DDS"),
    (b"\0\0\1\0", "icon"),
)


@dataclass
class OtherFiles:
    """The files of a folder that are no images.

    Attributes
    ----------
    listed : list of pair of str
        Path below the root and reason of the first `LISTED` files.
    by_suffix : Counter
        Number of all such files by suffix.
    """

    listed: list[tuple[str, str]] = field(default_factory=list)
    by_suffix: Counter[str] = field(default_factory=Counter)

    def add(self, path: str, reason: str) -> None:
        """Add a file."""
        self.by_suffix[os.path.splitext(path)[1].lower() or "no suffix"] += 1
        if len(self.listed) < LISTED:
            self.listed.append((path, reason))

    @property
    def n(self) -> int:
        """Number of files."""
        return sum(self.by_suffix.values())

    def describe(self) -> str:
        """Count the files by suffix, the most frequent suffixes first: "12 .xml, 3 .txt"."""
        most = self.by_suffix.most_common(8)
        rest = self.n - sum(count for _, count in most)
        return ", ".join([f"{count:,} {suffix}" for suffix, count in most]) + (
            f", {rest:,} others" if rest else ""
        )

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "listed": [[path, reason] for path, reason in sorted(self.listed)],
            "by_suffix": dict(sorted(self.by_suffix.items())),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "OtherFiles":
        """Read what `to_json` gave."""
        listed = [(str(path), str(reason)) for path, reason in value.get("listed", ())]
        return cls(listed, Counter(value.get("by_suffix", {})))


def never_an_image(name: str) -> bool:
    """Whether the name of a file alone says that the file is no image."""
    return name == "Thumbs.db" or os.path.splitext(name)[1].lower() in _OTHER_SUFFIXES


def claims_to_be_an_image(name: str) -> bool:
    """Whether the suffix of a file is that of an image format, also of one that is not read."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in IMAGE_SUFFIXES or suffix in _UNREAD_SUFFIXES


def why_unread(path: str, name: str) -> str | None:
    """Say why ktfast does not decode a file, by its suffix or by its first bytes.

    Parameters
    ----------
    path : str
        The file.
    name : str
        The file's own name, without its folder.

    Returns
    -------
    reason : str or None
        None: ktfast decodes the file. `NOT_AN_IMAGE`: the file is no image. Else: the file is an
        image that ktfast does not read; the reason names the format and the remedy.

    Raises
    ------
    OSError
        The file cannot be read.
    """

    def head() -> bytes:
        with open(path, "rb", buffering=0) as file:
            return file.read(HEAD_BYTES)

    return why_unread_bytes(head, name)


def why_unread_bytes(head: Callable[[], bytes], name: str) -> str | None:
    """Say why ktfast does not decode a file; see `why_unread`.

    Parameters
    ----------
    head : callable
        Reads the first `HEAD_BYTES` bytes of the file.
    name : str
        The file's own name.

    Returns
    -------
    reason : str or None
        As `why_unread` gives it.
    """
    suffix = os.path.splitext(name)[1].lower()
    if suffix in IMAGE_SUFFIXES and (READS_AVIF or suffix != ".avif"):
        return None
    known = "AVIF" if suffix == ".avif" else _UNREAD_SUFFIXES.get(suffix)
    if known == "camera raw":
        return _remedy(known)
    found = format_of(head()) or known
    if found is None:
        return NOT_AN_IMAGE
    return None if found in READ_FORMATS else _remedy(found)


def format_of(head: bytes) -> str | None:
    """Name the image format of a file by its first 32 bytes; None for a file that is no image."""
    for magic, name in (*_MAGIC, *_UNREAD_MAGIC):
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == bytes(4) and len(head) >= 26:
        return "BMP"
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n":
        return "PNM"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in (8, *range(16, len(head), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIC" if brands & _HEIC_BRANDS else None
    return None


def _remedy(format: str) -> str:
    if format == "AVIF":
        return "an AVIF file, which needs Pillow 11.3 or later; install it, or convert the file"
    article = "an" if format[0] in "AEIOi" or format == "SVG" else "a"
    return f"{article} {format} file, which ktfast does not read; convert it to JPEG or PNG"
