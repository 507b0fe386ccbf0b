"""Jigsaw++ puzzles: cut, shuffle, occlude, colour and normalise the tiles of a batch in one pass.

Noroozi, Vinjimoor, Favaro, Pirsiavash: "Boosting Self-Supervised Learning via Knowledge Transfer",
CVPR 2018 (arXiv 1805.00385), and its authors' released code.
"""

import dataclasses
import math
import operator
import sys
from typing import Any, Literal

import numpy as np

from ktfast.native import arrays, modules
from ktfast.native.threads import n_threads as resolve_threads

PAPER_JITTER = 18  # pixels; of a 64-pixel tile in a 85-pixel cell
MAX_TILE_SIZE = 512  # beyond it the exact integer statistics could overflow


@dataclasses.dataclass(frozen=True, eq=False)
class JigsawChoices:
    """What chance decided for every puzzle of a batch; arrays in the library of the images.

    Attributes
    ----------
    permutation : int64 [B], row of the permutation set (the label).
    offsets : int32 [B, n_tiles, 3, 2], (y, x) in pixels inside the cell, per slot and channel.
    cells : int32 [B, n_tiles], cell shown in each slot, of the image or, if occluded, of the donor.
    occluded : uint8 [B, n_tiles], 1 where a donor's tile stands in.
    donor : int64 [B], row of the batch that lends tiles, -1 if none.
    gray, projection : uint8 [B], the colour decision of the puzzle.
    donor_gray, donor_projection : uint8 [B], that of the donor's tiles, 0 without a donor.
    """

    permutation: Any
    offsets: Any
    cells: Any
    occluded: Any
    donor: Any
    gray: Any
    projection: Any
    donor_gray: Any
    donor_projection: Any


def jigsaw_tiles(
    images: Any,
    permutations: Any,
    *,
    sample_ids: Any,
    seed: int,
    epoch: int,
    tile_size: int = 64,
    jitter: int | None = None,
    chroma_shift: int = 2,
    max_occluders: int = 2,
    gray_probability: float = 0.7,
    projection_probability: float = 0.5,
    donor_color: Literal["shared", "independent"] = "shared",
    statistics: Literal["tile", "channel", "none"] = "tile",
    dtype: Any = "float32",
    channels_last: bool = False,
    out: Any = None,
    indices: Any = None,
    n_threads: int | None = None,
    return_choices: bool = False,
) -> tuple[Any, ...]:
    """Make a batch of Jigsaw++ puzzles.

    The choices of an image depend on (seed, epoch, sample id) alone, except for the donor, which is
    another row of the batch; a batch of one is therefore never occluded. Results are the same bits
    on every device, at every instruction-set level and for any number of threads.

    Parameters
    ----------
    images : uint8 [B, H, W, 3], or [N, H, W, 3] with `indices`; NumPy, torch or CuPy. Copied if its
        elements are not row-major without gaps.
    permutations : integers [P, n_tiles], n_tiles 1, 4, 9 or 16; each row permutes the cells
        0..n_tiles-1, and slot s shows cell ``permutations[label, s]``. Copied to uint8 and to the
        device of the images if need be; on a GPU its values are not checked, which would wait for
        the device, and an entry that is not a cell is read as cell 0.
    sample_ids : integers [B], what identifies each image in any batch and epoch.
    seed, epoch : below 2^64 and 2^32.
    tile_size : t, pixels.
    jitter : a tile starts 0..jitter pixels into its cell, per axis; None: 18, or what fits.
    chroma_shift : each channel starts a further 0..chroma_shift pixels on, per axis.
    max_occluders : 0..max_occluders tiles, uniformly, come from random cells of one other image.
    gray_probability : of a puzzle to be the mean of R, G and B.
    projection_probability : of a puzzle that is not gray to lose its green-magenta axis.
    donor_color : "shared": the donor's tiles follow the puzzle's colour decision; "independent":
        the donor has its own, as in the released code.
    statistics : each tile is centred and scaled by one mean and (population) std, "tile", or one
        per "channel", a std of 0 counting as 1; "none": value / 255.
    dtype : "float32", "float16" or "bfloat16" (torch only), or the library's own.
    channels_last : same shape, but memory ordered [B, n_tiles, t, t, 3].
    out : array for the tiles, of the shape, dtype and memory order that they would have, returned
        in place of a new one: on a CPU new memory costs more than the tiles. torch's autograd is
        told of the change, so that a backward pass that needs the earlier tiles raises.
    indices : int64 [B], the image of each row. An index outside the images is an error on the CPU;
        on a GPU, where a check would wait for the device, it gives label -1 and tiles of zeros.
    n_threads : CPU only; None: OMP_NUM_THREADS or every usable core.
    return_choices : also return a `JigsawChoices`.

    Returns
    -------
    tiles : `dtype` [B, n_tiles, 3, t, t], in the library and on the device of the images.
    labels : int64 [B], row of `permutations`.
    choices : `JigsawChoices`, if asked for.

    Raises
    ------
    TypeError : an argument has the wrong dtype or is no array.
    ValueError : an argument has an impossible shape or value; the message names it.
    """
    images = _checked_images(images)
    indices = None if indices is None else _integers(indices, "indices", images)
    sample_ids = _integers(sample_ids, "sample_ids", images)
    _check_rows(images, sample_ids, indices)
    permutations = _checked_permutations(permutations, images)
    batch, n_tiles = len(sample_ids), permutations.shape[1]
    chroma_shift = _at_least_zero(chroma_shift, "chroma_shift")
    max_occluders = _at_least_zero(max_occluders, "max_occluders")
    if max_occluders > n_tiles:
        raise ValueError(
            f"max_occluders must be at most the {n_tiles} tiles of a puzzle, got {max_occluders}"
        )
    jitter = _fitting_jitter(images, math.isqrt(n_tiles), tile_size, jitter, chroma_shift)
    _check_name(donor_color, "donor_color", ("shared", "independent"))
    _check_name(statistics, "statistics", ("tile", "channel", "none"))

    def new(shape: tuple[int, ...], kind: str) -> Any:
        return arrays.empty(shape, kind, images)

    t = int(tile_size)
    shape = (batch, n_tiles, 3, t, t)
    if out is None:
        tile_shape = (t, t, 3) if channels_last else (3, t, t)
        tiles = new((batch, n_tiles, *tile_shape), _output_dtype(dtype))
    else:
        tiles = _checked_out(out, shape, _output_dtype(dtype), channels_last, images)
    choices = JigsawChoices(
        permutation=new((batch,), "int64"),
        offsets=new((batch, n_tiles, 3, 2), "int32"),
        cells=new((batch, n_tiles), "int32"),
        occluded=new((batch, n_tiles), "uint8"),
        donor=new((batch,), "int64"),
        gray=new((batch,), "uint8"),
        projection=new((batch,), "uint8"),
        donor_gray=new((batch,), "uint8"),
        donor_projection=new((batch,), "uint8"),
    )
    outputs = dict(vars(choices))
    outputs["labels"] = outputs.pop("permutation")
    outputs["donors"] = outputs.pop("donor")
    native = modules.native_of(images)
    with arrays.on_device(images):
        native.jigsaw_tiles(
            images=images,
            permutations=permutations,
            sample_ids=sample_ids,
            indices=indices,
            tiles=tiles,
            seed=_below(seed, "seed", 64),
            epoch=_below(epoch, "epoch", 32),
            tile_size=t,
            jitter=jitter,
            chroma_shift=chroma_shift,
            max_occluders=max_occluders,
            gray_threshold=_threshold(gray_probability, "gray_probability"),
            projection_threshold=_threshold(projection_probability, "projection_probability"),
            donor_shares_color=donor_color == "shared",
            statistics=statistics,
            channels_last=bool(channels_last),
            **outputs,
            **_execution(images, n_threads, t),
        )
    if out is None:
        out = _channels_second(tiles) if channels_last else tiles
    elif arrays.library_of(out) == "torch" and not out.is_inference():
        sys.modules["torch"].autograd.graph.increment_version(out)
    return (out, choices.permutation, *([choices] if return_choices else []))


def _execution(images: Any, n_threads: int | None, tile_size: int) -> dict[str, Any]:
    """Where the kernel runs: its stream, or its threads and a buffer of one tile for each."""
    if arrays.device_of(images)[0] == "cuda":
        return {"stream": arrays.stream_of(images)}
    n_used = resolve_threads(n_threads)
    size = modules.cpu.jigsaw_tiles_workspace_size(tile_size=tile_size, n_threads=n_used)
    return {"n_threads": n_used, "workspace": np.empty(size, dtype=np.int16)}


def _axes(tiles: Any, order: tuple[int, ...]) -> Any:
    """A view with the axes in another order."""
    return tiles.permute(order) if arrays.library_of(tiles) == "torch" else tiles.transpose(order)


def _channels_second(tiles: Any) -> Any:
    """View [B, n, t, t, 3] as [B, n, 3, t, t]."""
    return _axes(tiles, (0, 1, 4, 2, 3))


def _checked_out(
    out: Any, shape: tuple[int, ...], dtype: str, channels_last: bool, images: Any
) -> Any:
    """The caller's array for the tiles, its axes in the order of its memory."""
    try:
        place = arrays.library_of(out), arrays.device_of(out)
    except TypeError as error:
        raise TypeError(f"out: {error}") from None
    if place != (arrays.library_of(images), arrays.device_of(images)):
        raise ValueError("out must be of the library and on the device of the images")
    if arrays.dtype_name(out) != dtype:
        raise TypeError(f"out must be {dtype} as dtype says, got {arrays.dtype_name(out)}")
    if tuple(out.shape) != shape:
        raise ValueError(f"out must have shape {list(shape)}, got {list(out.shape)}")
    if place[0] == "torch" and out.requires_grad:
        raise ValueError("out must not require a gradient; pass out.detach()")
    stored = _axes(out, (0, 1, 3, 4, 2)) if channels_last else out
    whole = stored.is_contiguous() if place[0] == "torch" else stored.flags.c_contiguous
    if not whole:
        order = "[B, n_tiles, t, t, 3] as channels_last says" if channels_last else "row-major"
        raise ValueError(f"out must lie in memory without gaps, ordered {order}")
    if place[0] == "numpy" and not out.flags.writeable:
        raise ValueError("out is read-only; pass an array that can be written")
    return stored


def _checked_images(images: Any) -> Any:
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


def _integers(values: Any, name: str, images: Any) -> Any:
    """Bring integers [B] to int64, in the library and on the device of the images."""
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


def _check_rows(images: Any, sample_ids: Any, indices: Any) -> None:
    n_images, batch = images.shape[0], len(sample_ids)
    if indices is None:
        if batch != n_images:
            raise ValueError(f"sample_ids must name each of the {n_images} images, got {batch}")
        return
    if len(indices) != batch:
        raise ValueError(f"indices and sample_ids must agree, got {len(indices)} and {batch} rows")
    if batch and arrays.device_of(indices)[0] == "cpu":
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= n_images:
            raise ValueError(f"indices must lie in 0..{n_images - 1}, got {low}..{high}")


def _checked_permutations(permutations: Any, images: Any) -> Any:
    """Bring the permutation set to uint8, in the library and on the device of the images."""
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


def _fitting_jitter(
    images: Any, grid: int, tile_size: int, jitter: int | None, chroma_shift: int
) -> int:
    if not 1 <= operator.index(tile_size) <= MAX_TILE_SIZE:
        raise ValueError(f"tile_size must be 1..{MAX_TILE_SIZE} pixels, got {tile_size}")
    height, width = images.shape[1] // grid, images.shape[2] // grid
    room = min(height, width) - tile_size - chroma_shift
    needed = 0 if jitter is None else _at_least_zero(jitter, "jitter")
    if needed > room:
        raise ValueError(
            f"tiles do not fit: tile_size {tile_size} + jitter {needed} + chroma_shift "
            f"{chroma_shift} exceeds the {height}x{width} cells of {images.shape[1]}x"
            f"{images.shape[2]} images; use smaller tiles, less jitter or larger images"
        )
    return min(PAPER_JITTER, room) if jitter is None else needed


def _output_dtype(dtype: Any) -> str:
    name = dtype
    if not isinstance(dtype, str):
        try:
            name = arrays.dtype_name(dtype)
        except TypeError:
            name = repr(dtype)
    if name not in ("float32", "float16", "bfloat16"):
        raise TypeError(f"dtype must be float32, float16 or bfloat16, got {name}")
    return str(name)


def _at_least_zero(value: int, name: str) -> int:
    if operator.index(value) < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return int(value)


def _below(value: int, name: str, bits: int) -> int:
    if not 0 <= operator.index(value) < 2**bits:
        raise ValueError(f"{name} must lie in 0..2^{bits}-1, got {value}")
    return int(value)


def _threshold(probability: float, name: str) -> int:
    if not 0 <= probability <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {probability}")
    return int(probability * 2**32)


def _check_name(value: str, name: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
