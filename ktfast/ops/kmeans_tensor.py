"""The GPU's screen for nearest centres: codes for the tensor cores, and the calls of the kernels.

Internal: `kmeans_assign` codes its rows and screens them once. The assignment of `ktfast.kmeans` on
a GPU codes the rows once and screens them in every iteration.
"""

from typing import Any, NamedTuple

from ktfast.native.arrays import as_like, empty, on_device, stream_of
from ktfast.native.modules import cpu, native_of
from ktfast.ops.vectors import gpu_row_blocks

CODES = ("int8", "float16")
TILE_ROWS = cpu.KMEANS_TENSOR_TILE_ROWS
# With more features than this, a sum of int8 products could overflow.
MOST_FEATURES = cpu.KMEANS_TENSOR_MOST_FEATURES
ROW_CONSTANTS = cpu.KMEANS_TENSOR_ROW_CONSTANTS
# Rows of one call. The workspace is 277 bytes per row, so 73 MB at most.
_CALL_ROWS = 1 << 18
# Most bytes of the codes that `assign` makes itself; the codes of 128 rows always fit.
_CODE_BYTES = 1 << 28
# Cost of a product in each code, and of comparing a row with a centre in float64, per feature. The
# unit is an int8 product. Float32 products do not use the tensor cores. A float64 comparison reads
# 8 bytes per feature through the L2 cache. These are estimates from the nominal rates of an H100.
_PRODUCT_COST = {"int8": 1, "float16": 2, "float32": 20}
_PAIR_COST = 1500


class TensorScreen:
    """A screen whose codes are vectors minus a mean, scaled per row and rounded.

    Parameters
    ----------
    mean : array, float32 [d]
        Subtracted from rows and centres. The codes are most precise if `mean` is near the mean of
        the rows. The array is copied to the library and device of `like` if needed.
    code : {"int8", "float16"}
        Number format of the codes. The scale of a float16 code is a power of two.
    like : array
        Array of torch or CuPy on a GPU.

    Attributes
    ----------
    code : str
        Number format of the codes.
    n_features : int
        Number of features d.
    mean : array, float32 [d]
        The mean on the GPU.

    Raises
    ------
    ValueError
        The code is neither "int8" nor "float16".
    """

    def __init__(self, mean: Any, code: str, *, like: Any) -> None:
        if code not in CODES:
            raise ValueError(f"code must be one of {', '.join(CODES)}, got {code!r}")
        self.code = code
        self.n_features = len(mean)
        self._native = native_of(like)
        with on_device(like):
            self.mean = as_like(mean, "float32", like)
        self._tile_bytes = self._native.kmeans_tensor_tile_bytes(
            n_features=self.n_features, code=code
        )

    def prepare(self, centers: Any) -> Any:
        """Code centres float64 [k, d] for `assign`: int8 memory, with k rounded up to 256."""
        size = self._native.kmeans_tensor_prepared_size(
            n_clusters=len(centers), n_features=self.n_features, code=self.code
        )
        with on_device(centers):
            prepared = empty((size,), "int8", like=centers)
            self._native.kmeans_tensor_prepare(
                centers=centers,
                mean=self.mean,
                prepared=prepared,
                code=self.code,
                stream=stream_of(centers),
            )
        return prepared

    def empty_codes(self, n: int) -> "TensorCodes":
        """Memory for the codes of n rows.

        A row takes d bytes (int8) or 2 d bytes (float16), rounded up to a multiple of 128, and 16
        bytes more.
        """
        with on_device(self.mean):
            return TensorCodes(
                empty((-(-n // TILE_ROWS), self._tile_bytes), "int8", like=self.mean),
                empty((n, ROW_CONSTANTS), "float32", like=self.mean),
            )

    def encode(self, x: Any, codes: "TensorCodes") -> None:
        """Write the codes of rows x [n, d] to `codes`."""
        with on_device(x):
            for rows, block in gpu_row_blocks(x, _CALL_ROWS, multiple=TILE_ROWS):
                self._encode(block, codes.at(rows))

    def _encode(self, x: Any, codes: "TensorCodes") -> None:
        self._native.kmeans_tensor_encode(
            x=x, mean=self.mean, code=self.code, stream=stream_of(x), **codes._asdict()
        )

    def assign(
        self,
        x: Any,
        centers: Any,
        prepared: Any,
        labels: Any,
        distances: Any,
        *,
        codes: "TensorCodes | None" = None,
        guessed: bool = False,
        certify: bool = True,
        bounds: bool = False,
        moves: Any = None,
        others: Any = None,
        n_passed: Any = None,
        n_multiplied: Any = None,
        call_rows: int = _CALL_ROWS,
        path: str = "fastest",
    ) -> None:
        """Write the nearest centre of every row of x, and the squared distance to it.

        The call does not wait for the GPU. The work is queued on the current stream of the arrays'
        library.

        Parameters
        ----------
        x : array [n, d]
            Rows.
        centers : array, float64 [k, d]
            Centres.
        prepared : array, int8
            Codes of the centres, made by `prepare`.
        labels : array, int32 [n]
            Memory for the labels.
        distances : array, float64 [n]
            Memory for the squared distances.
        codes : TensorCodes, optional
            Codes of the rows. None: the call makes the codes.
        guessed : bool, default False
            Whether `labels` already hold centres that are probably near. A label outside 0 to k - 1
            is no guess. Without guesses the screen looks at an eighth of the centres first.
        certify : bool, default True
            Whether undecided rows are settled by float64 distances. Otherwise the label is the
            candidate with the best score, and the distance comes from the rounded score.
        bounds : bool, default False
            Whether `distances` become upper bounds of the squared distances. A row whose screen
            leaves one candidate then costs no exact distance, and the row is not read. With
            guesses, `distances` already hold such bounds, or distances, to the former centres.
        moves : array, float64 [k + 1], optional
            Result of `moves`: how far the centres have moved since then. Needed for `bounds` with
            guesses.
        others : array, float64 [n], optional
            Lower bounds of the distances between each row and every centre but the row's label. A
            negative number means that nothing is known. With guesses, the call reads the bounds of
            the last call; it always writes new ones. A row keeps its label without a comparison if
            both its bounds exclude all other centres. A tile of 128 such rows costs no product.
            Needs `bounds`.
        n_passed : array, int64 [1], optional
            The call adds the number of exact comparisons of all rows to this array: the candidates
            of all rows, or with `bounds` of the rows with several candidates.
        n_multiplied : array, int64 [1], optional
            With `others`, the call adds the number of tiles of 128 rows that it multiplies.
        call_rows : int, default 262144
            Most rows of a call, a multiple of 128. The workspace is 277 bytes per row.
        path : {"fastest", "mma"}, default "fastest"
            Instructions that multiply the codes. "mma" is mma.sync, which every GPU with tensor
            cores has; a test uses "mma" on a GPU whose fastest instruction is another one.
        """
        step = min(call_rows, _CALL_ROWS)
        if codes is None:
            step = min(step, max(1, _CODE_BYTES // self._tile_bytes) * TILE_ROWS)
        with on_device(x):
            size = self._native.kmeans_tensor_workspace_size(n_rows=min(len(x), step))
            workspace = empty((size,), "int64", like=x)
            room = self.empty_codes(min(len(x), step)) if codes is None else None
            for rows, block in gpu_row_blocks(x, step, multiple=TILE_ROWS):
                part = codes.at(rows) if codes is not None else None
                if room is not None:
                    part = room.at(slice(0, len(block)))
                    self._encode(block, part)
                assert part is not None
                self._native.kmeans_tensor_assign(
                    x=block,
                    centers=centers,
                    prepared=prepared,
                    code=self.code,
                    labels=labels[rows],
                    distances=distances[rows],
                    guessed=guessed,
                    certify=certify,
                    bounds=bounds,
                    moves=moves,
                    others=None if others is None else others[rows],
                    path=path,
                    workspace=workspace,
                    n_passed=n_passed,
                    n_multiplied=n_multiplied,
                    stream=stream_of(x),
                    **part._asdict(),
                )

    def moves(self, centers: Any, previous: Any) -> Any:
        """Upper bounds of the distances between centres and former centres [k, d].

        The result is float64 [k + 1]; its last element is the largest of the bounds.
        """
        with on_device(centers):
            moves = empty((len(centers) + 1,), "float64", like=centers)
            self._native.kmeans_tensor_moves(
                centers=centers, previous=previous, moves=moves, stream=stream_of(centers)
            )
        return moves

    def exact_distances(self, x: Any, centers: Any, labels: Any | None, distances: Any) -> None:
        """Write the exact squared distance of each row to the centre of its label.

        Parameters
        ----------
        x : array [n, d]
            Rows.
        centers : array, float64 [k, d]
            Centres.
        labels : array, int32 [n], or None
            Numbers of the centres. None means centre 0.
        distances : array, float64 [n]
            Memory for the squared distances.
        """
        with on_device(x):
            for rows, block in gpu_row_blocks(x, len(x)):
                self._native.kmeans_tensor_distances(
                    x=block,
                    centers=centers,
                    labels=None if labels is None else labels[rows],
                    distances=distances[rows],
                    stream=stream_of(x),
                )

    def passed(self, sample: Any, centers: Any, *, passes: int = 1) -> float:
        """The mean number of candidates among centres [k, d] for a row [m, d] and a pass.

        All passes but the first know the nearest centres of the pass before. The call waits for the
        GPU.
        """
        m = len(sample)
        prepared = self.prepare(centers)
        with on_device(sample):
            labels = empty((m,), "int32", like=sample)
            distances = empty((m,), "float64", like=sample)
            n_passed = empty((1,), "int64", like=sample)
            found = 0
            for guessed, weight in ((False, 1), (True, passes - 1)):
                if weight == 0:
                    continue
                n_passed[:] = 0
                self.assign(
                    sample, centers, prepared, labels, distances, guessed=guessed, n_passed=n_passed
                )
                found += weight * int(n_passed[0])
            return found / max(1, passes * m)


class TensorCodes(NamedTuple):
    """Codes of rows in tiles of 128 rows, and the constants that bound their rounding errors.

    Attributes
    ----------
    codes : array, int8 [ceil(n / 128), bytes of a tile]
        Codes of the rows.
    constants : array, float32 [n, 4]
        For each row: its scale, and the lengths of row, code and rounding error. The certificate
        (the proven error bound of the screen) is computed from these lengths.
    """

    codes: Any
    constants: Any

    def at(self, rows: slice) -> "TensorCodes":
        """A view of the codes of some rows; the first row is a multiple of 128."""
        tiles = slice(rows.start // TILE_ROWS, -(-rows.stop // TILE_ROWS))
        return TensorCodes(self.codes[tiles], self.constants[rows])


def choose_code(sample: Any, centers: Any, mean: Any, *, passes: int = 1) -> str:
    """Choose the number format of the screen that costs least for rows like a sample.

    A narrower format multiplies faster but leaves more candidates, whose distances are computed in
    float64. The call waits for the GPU.

    Parameters
    ----------
    sample : array [m, d]
        Some rows.
    centers : array, float64 [k, d]
        Centres.
    mean : array, float32 [d]
        Mean that the screen subtracts.
    passes : int, default 1
        Number of passes. All passes but the first know probable labels, which leave far fewer
        candidates. At 4,096 features, int8 without guesses can leave so many candidates that the
        first pass takes longer than all others.

    Returns
    -------
    str
        "int8", "float16" or "float32".
    """
    k = len(centers)
    cost = {"float32": float(_PRODUCT_COST["float32"] * k)}
    for code in CODES:
        passed = TensorScreen(mean, code, like=sample).passed(sample, centers, passes=passes)
        cost[code] = _PRODUCT_COST[code] * k + _PAIR_COST * passed
    return min(cost, key=lambda code: cost[code])
