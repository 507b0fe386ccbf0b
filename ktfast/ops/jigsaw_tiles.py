"""Jigsaw++ puzzles: cut, shuffle, occlude, colour and normalise the tiles of a batch in one pass.

Noroozi, Vinjimoor, Favaro, Pirsiavash: "Boosting Self-Supervised Learning via Knowledge Transfer",
CVPR 2018 (arXiv 1805.00385), and the code that its authors released.
"""

import dataclasses
import math
import sys
from typing import Any, Literal

import numpy as np

from ktfast.native import arrays, modules
from ktfast.native.threads import n_threads as resolve_threads
from ktfast.ops import jigsaw_arguments as arguments

__all__ = ["JigsawChoices", "jigsaw_tiles"]


@dataclasses.dataclass(frozen=True, eq=False)
class JigsawChoices:
    """The random choices for every puzzle of a batch; the arrays belong to the images' library.

    An occluder is a tile of another image. The donor of a puzzle is the image that lends its
    occluders.

    Attributes
    ----------
    permutation : array, int64 [B]
        Row of the permutation set. This is the label.
    offsets : array, int32 [B, n_tiles, 3, 2]
        Start (y, x) of the tile inside its cell in pixels, per slot and colour channel.
    cells : array, int32 [B, n_tiles]
        Cell that each slot shows. The cell belongs to the donor if the slot is occluded.
    occluded : array, uint8 [B, n_tiles]
        1 if an occluder fills the slot, else 0.
    donor : array, int64 [B]
        Row of the batch that lends the occluders; -1 if the puzzle has none.
    gray : array, uint8 [B]
        1 if the tiles of the puzzle are gray.
    projection : array, uint8 [B]
        1 if the tiles of the puzzle lose their green-magenta axis.
    donor_gray : array, uint8 [B]
        1 if the occluders are gray; 0 without a donor.
    donor_projection : array, uint8 [B]
        1 if the occluders lose their green-magenta axis; 0 without a donor.
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

    An image is divided into a grid of cells, and one tile is cut from each cell. The tiles are
    shuffled by a random permutation of the permutation set. Up to two tiles are replaced by tiles
    of another image of the batch (occluders). The network has to name the permutation.

    The method and its defaults are those of Noroozi et al. (CVPR 2018, section 4) and of the code
    that the authors released, unless a parameter says otherwise.

    Parameters
    ----------
    images : array, uint8 [B, H, W, 3]
        RGB images of NumPy, torch or CuPy. With `indices` the shape is [N, H, W, 3]. The images are
        copied if their elements are not row-major without gaps. The paper uses squares of 255
        pixels.
    permutations : array, uint8, int32 or int64 [P, n_tiles]
        Permutation set, for example from `ktfast.permutation_set`. Each row permutes the cells
        ``0 .. n_tiles - 1``, and slot s of a puzzle shows cell ``permutations[label, s]``.
        `n_tiles` is 1, 4, 9 or 16. A set of another dtype, library or device is copied. The values
        of a set on a GPU are not checked, because a check would wait for the GPU; a value that is
        no cell is read as cell 0.
    sample_ids : array, integers [B]
        Number that identifies each image in all batches and epochs.
    seed : int
        Seed of the random choices, 0 to 2^64 - 1.
    epoch : int
        Number of the epoch, 0 to 2^32 - 1.
    tile_size : int, default 64
        Side t of a tile in pixels, 1 to 512.
    jitter : int, optional
        A tile starts 0 to `jitter` pixels inside its cell on each axis. None means 18 pixels as in
        the released code, or fewer if 18 do not fit into the cells.
    chroma_shift : int, default 2
        Each colour channel starts another 0 to `chroma_shift` pixels later on each axis.
    max_occluders : int, default 2
        Largest number of occluders in a puzzle. The number is uniform on 0 to `max_occluders`.
        The occluders come from different random cells of one other image.
    gray_probability : float, default 0.7
        Probability that a puzzle is gray: the mean of R, G and B. The released code uses 0.5.
    projection_probability : float, default 0.5
        Probability that a puzzle that is not gray loses its green-magenta axis.
    donor_color : {"shared", "independent"}, default "shared"
        "shared": the occluders follow the colour choices of the puzzle. "independent": the
        occluders have their own colour choices, as in the released code.
    statistics : {"tile", "channel", "none"}, default "tile"
        "tile": each tile is normalised by the mean and the population standard deviation of all
        its values, as in the released code. "channel": by those of each colour channel. In both
        cases a standard deviation of 0 counts as 1. "none": values are divided by 255.
    dtype : str or dtype, default "float32"
        Dtype of the tiles: float32, float16 or bfloat16. Only torch has bfloat16.
    channels_last : bool, default False
        Whether the memory of the tiles is ordered [B, n_tiles, t, t, 3]. The shape is the same.
    out : array, optional
        Memory for the tiles, with their shape, dtype and memory order. On a CPU, allocating the
        tiles takes longer than computing them; pass the tiles of an earlier call to reuse their
        memory. torch's autograd is told that `out` changed, so a backward pass that needs the
        earlier tiles raises an error.
    indices : array, int64 [B], optional
        Row of `images` that each puzzle is made of. None: puzzle b is made of image b. An index out
        of range is an error on a CPU. On a GPU a check would wait for the GPU; there the label is
        -1 and the tiles are zeros.
    n_threads : int, optional
        Number of CPU threads. None reads the environment variable OMP_NUM_THREADS, or uses every
        core of this process if the variable is not set.
    return_choices : bool, default False
        Whether to return the random choices as well.

    Returns
    -------
    tiles : array, float32, float16 or bfloat16 [B, n_tiles, 3, t, t]
        Normalised tiles in the library and on the device of the images.
    labels : array, int64 [B]
        Row of `permutations` that shuffled each puzzle.
    choices : JigsawChoices
        All random choices; only if `return_choices` is True.

    Raises
    ------
    TypeError
        An argument has a wrong dtype, or is no array.
    ValueError
        An argument has an impossible shape or value. The message names the argument.
    RuntimeError
        The images are on a GPU that this build of ktfast cannot use. The message says what to do.

    Notes
    -----
    The choices for an image depend only on the seed, the epoch and the sample id. The one exception
    is the donor, which is another row of the batch; a batch of one image has no occluders. The
    tiles have the same bits on every device, for every CPU instruction set and for any number of
    threads.

    Examples
    --------
    >>> import numpy as np
    >>> from ktfast import permutation_set
    >>> from ktfast.ops import jigsaw_tiles
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 255, 255, 3), dtype=np.uint8)
    >>> tiles, labels = jigsaw_tiles(
    ...     images, permutation_set(701), sample_ids=[10, 11], seed=0, epoch=0
    ... )
    >>> tiles.shape, labels.tolist()
    ((2, 9, 3, 64, 64), [590, 440])
    """
    images = arguments.checked_images(images)
    indices = None if indices is None else arguments.integers(indices, "indices", images)
    sample_ids = arguments.integers(sample_ids, "sample_ids", images)
    arguments.check_rows(images, sample_ids, indices)
    permutations = arguments.checked_permutations(permutations, images)
    batch, n_tiles = len(sample_ids), permutations.shape[1]
    chroma_shift = arguments.at_least_zero(chroma_shift, "chroma_shift")
    options = {
        "tile_size": int(tile_size),
        "chroma_shift": chroma_shift,
        "max_occluders": arguments.occluders(max_occluders, n_tiles),
        "jitter": arguments.fitting_jitter(
            images, math.isqrt(n_tiles), tile_size, jitter, chroma_shift
        ),
        "gray_threshold": arguments.threshold(gray_probability, "gray_probability"),
        "projection_threshold": arguments.threshold(
            projection_probability, "projection_probability"
        ),
        "donor_shares_color": arguments.word(donor_color, "donor_color", ("shared", "independent"))
        == "shared",
        "statistics": arguments.word(statistics, "statistics", ("tile", "channel", "none")),
        "channels_last": bool(channels_last),
        "seed": arguments.below(seed, "seed", 64),
        "epoch": arguments.below(epoch, "epoch", 32),
    }
    name = arguments.output_dtype(dtype)
    shape = (batch, n_tiles, 3, int(tile_size), int(tile_size))
    stored = _stored_tiles(out, shape, name, bool(channels_last), images)
    choices = _empty_choices(batch, n_tiles, images)
    _call(images, permutations, sample_ids, indices, stored, choices, options, n_threads)
    if out is None:
        out = arguments.reordered(stored, (0, 1, 4, 2, 3)) if channels_last else stored
    elif arrays.library_of(out) == "torch" and not out.is_inference():
        sys.modules["torch"].autograd.graph.increment_version(out)
    return (out, choices.permutation, *([choices] if return_choices else []))


def _stored_tiles(
    out: Any, shape: tuple[int, ...], dtype: str, channels_last: bool, images: Any
) -> Any:
    """The memory of the tiles with its axes in the order of the memory: `out` or a new array."""
    if out is not None:
        return arguments.checked_out(out, shape, dtype, channels_last, images)
    if channels_last:
        shape = (*shape[:2], *shape[3:], 3)
    return arrays.empty(shape, dtype, images)


def _empty_choices(batch: int, n_tiles: int, images: Any) -> JigsawChoices:
    """Memory for the choices in the library and on the device of the images."""

    def new(shape: tuple[int, ...], dtype: str) -> Any:
        return arrays.empty(shape, dtype, images)

    return JigsawChoices(
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


def _call(
    images: Any,
    permutations: Any,
    sample_ids: Any,
    indices: Any,
    tiles: Any,
    choices: JigsawChoices,
    options: dict[str, Any],
    n_threads: int | None,
) -> None:
    """Run the kernel, which writes the tiles and the choices."""
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
            **options,
            **outputs,
            **_execution(images, n_threads, options["tile_size"]),
        )


def _execution(images: Any, n_threads: int | None, tile_size: int) -> dict[str, Any]:
    """The GPU's stream, or the number of CPU threads and a buffer of one tile per thread."""
    if arrays.device_of(images)[0] == "cuda":
        return {"stream": arrays.stream_of(images)}
    n_used = resolve_threads(n_threads)
    size = modules.cpu.jigsaw_tiles_workspace_size(tile_size=tile_size, n_threads=n_used)
    return {"n_threads": n_used, "workspace": np.empty(size, dtype=np.int16)}
