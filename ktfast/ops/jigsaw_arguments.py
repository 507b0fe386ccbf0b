"""Checks and conversions of the arguments of `jigsaw_tiles`. Internal; only that op uses them."""

import operator
from typing import Any

import numpy as np

from ktfast.native import arrays

_PAPER_JITTER = 18  # pixels; for a 64-pixel tile in an 85-pixel cell
_MAX_TILE_SIZE = 512  # larger tiles could overflow the exact integer statistics


def reordered(tiles: Any, order: tuple[int, ...]) -> Any:
    """A view of an array with its axes in another order."""
    return tiles.permute(order) if arrays.library_of(tiles) == "torch" else tiles.transpose(order)


def checked_out(
    out: Any, shape: tuple[int, ...], dtype: str, channels_last: bool, images: Any
) -> Any:
    """Check the caller's array for the tiles; return a view with axes in the order of memory."""
    try:
        place = arrays.library_of(out), arrays.device_of(out)
    except TypeError as error:
        raise TypeError(f"out: {error}") from None
    if place != (arrays.library_of(images), arrays.device_of(images)):
        raise ValueError(
            "out must be of the library and on the device of the images; allocate it as a "
            f"{arrays.library_of(images)} array there"
        )
    if arrays.dtype_name(out) != dtype:
        raise TypeError(
            f"out must be {dtype}, the dtype of the tiles, got {arrays.dtype_name(out)}"
        )
    if tuple(out.shape) != shape:
        raise ValueError(f"out must have shape {list(shape)}, got {list(out.shape)}")
    if place[0] == "torch" and out.requires_grad:
        raise ValueError("out must not require a gradient; pass out.detach()")
    stored = reordered(out, (0, 1, 3, 4, 2)) if channels_last else out
    whole = stored.is_contiguous() if place[0] == "torch" else stored.flags.c_contiguous
    if place[0] == "torch" and out.is_neg():
        raise ValueError("out is a tensor that torch negates lazily; pass out.resolve_neg()")
    if not whole:
        order = (
            "[B, n_tiles, t, t, 3] because channels_last is set" if channels_last else "row-major"
        )
        raise ValueError(f"out must lie in memory without gaps, ordered {order}")
    if place[0] == "numpy" and not out.flags.writeable:
        raise ValueError("out is read-only; pass an array that can be written")
    return stored


def checked_images(images: Any) -> Any:
    """Check that the images are uint8 [B, H, W, 3]; return them row-major without gaps."""
    try:
        arrays.library_of(images)
    except TypeError as error:
        raise TypeError(f"images: {error}") from None
    if arrays.dtype_name(images) != "uint8":
        raise TypeError(f"images must be uint8, got {arrays.dtype_name(images)}")
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"images must have shape [B, H, W, 3], got {list(images.shape)}; "
            "move the channels to the last axis"
        )
    return arrays.contiguous(images)


def integers(values: Any, name: str, images: Any) -> Any:
    """Convert integers [B] to int64 in the library and on the device of the images."""
    if isinstance(values, (list, tuple, range)):
        values = np.asarray(values, dtype=None if len(values) else np.int64)
    try:
        kind = arrays.dtype_name(values)
        if not kind.startswith(("int", "uint")):
            raise TypeError(f"expected integers, got {kind}")
        arrays.library_of(values)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    if values.ndim != 1:
        raise ValueError(f"{name} must have shape [B], got {list(values.shape)}")
    return arrays.as_like(values, "int64", images)


def check_rows(images: Any, sample_ids: Any, indices: Any) -> None:
    """Check that every row of the batch has an image and a sample id."""
    n_images, batch = images.shape[0], len(sample_ids)
    if indices is None:
        if batch != n_images:
            raise ValueError(f"sample_ids must hold {n_images} numbers, one per image, got {batch}")
        return
    if len(indices) != batch:
        raise ValueError(
            f"indices and sample_ids must be equally long, got {len(indices)} and {batch} numbers"
        )
    if batch and arrays.device_of(indices)[0] == "cpu":
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= n_images:
            raise ValueError(f"indices must lie in 0..{n_images - 1}, got {low}..{high}")


def checked_permutations(permutations: Any, images: Any) -> Any:
    """Convert the permutation set to uint8 in the library and on the device of the images."""
    if isinstance(permutations, (list, tuple)):
        permutations = np.asarray(permutations)
    try:
        kind = arrays.dtype_name(permutations)
        if kind not in ("uint8", "int32", "int64"):
            raise TypeError(f"expected int64, int32 or uint8, got {kind}")
        on_host = arrays.device_of(permutations)[0] == "cpu"
    except TypeError as error:
        raise TypeError(f"permutations: {error}") from None
    shape = list(permutations.shape)
    if len(shape) != 2 or shape[0] < 1 or shape[1] not in (1, 4, 9, 16):
        raise ValueError(
            "permutations must have shape [P, n_tiles] with n_tiles 1, 4, 9 or 16 and at least "
            f"one row, got {shape}"
        )
    if on_host:
        rows = np.asarray(permutations)
        wrong = np.flatnonzero((np.sort(rows, axis=1) != np.arange(shape[1])).any(axis=1))
        if len(wrong):
            raise ValueError(
                f"permutations must permute 0..{shape[1] - 1}, but row {wrong[0]} is "
                f"{rows[wrong[0]].tolist()}"
            )
    return arrays.as_like(permutations, "uint8", images)


def fitting_jitter(
    images: Any, grid: int, tile_size: int, jitter: int | None, chroma_shift: int
) -> int:
    """The jitter in pixels: the given one if it fits into the cells, or the largest up to 18."""
    if not 1 <= operator.index(tile_size) <= _MAX_TILE_SIZE:
        raise ValueError(f"tile_size must be 1..{_MAX_TILE_SIZE} pixels, got {tile_size}")
    height, width = images.shape[1] // grid, images.shape[2] // grid
    room = min(height, width) - tile_size - chroma_shift
    needed = 0 if jitter is None else at_least_zero(jitter, "jitter")
    if needed > room:
        raise ValueError(
            f"tiles do not fit: tile_size {tile_size} + jitter {needed} + chroma_shift "
            f"{chroma_shift} exceeds the {height}x{width} cells of {images.shape[1]}x"
            f"{images.shape[2]} images; use smaller tiles, less jitter or larger images"
        )
    return min(_PAPER_JITTER, room) if jitter is None else needed


def output_dtype(dtype: Any) -> str:
    """The name of the dtype of the tiles."""
    name = dtype
    if not isinstance(dtype, str):
        try:
            name = arrays.dtype_name(dtype)
        except TypeError:
            name = repr(dtype)
    if name not in ("float32", "float16", "bfloat16"):
        raise TypeError(f"dtype must be float32, float16 or bfloat16, got {name}")
    return str(name)


def at_least_zero(value: int, name: str) -> int:
    """Check that an integer is not negative."""
    if operator.index(value) < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return int(value)


def below(value: int, name: str, bits: int) -> int:
    """Check that an integer fits into an unsigned number of `bits` bits."""
    if not 0 <= operator.index(value) < 2**bits:
        raise ValueError(f"{name} must lie in 0..2^{bits}-1, got {value}")
    return int(value)


def threshold(probability: float, name: str) -> int:
    """The limit for a random 32-bit word: the event happens if the word is below the limit."""
    if not 0 <= probability <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {probability}")
    return int(probability * 2**32)


def word(value: str, name: str, known: tuple[str, ...]) -> str:
    """Check that an option is one of the known words."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return value


def occluders(max_occluders: int, n_tiles: int) -> int:
    """Check that a puzzle has enough tiles for its occluders."""
    if at_least_zero(max_occluders, "max_occluders") > n_tiles:
        raise ValueError(
            f"max_occluders must be at most the {n_tiles} tiles of a puzzle, got {max_occluders}"
        )
    return int(max_occluders)
