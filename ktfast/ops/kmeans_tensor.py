"""The GPU's screen for nearest centres: how vectors are coded for its tensor cores, and the calls.

`kmeans_assign` is the one-shot use of it. A fit codes its rows once and screens them every
iteration.
"""

from typing import Any, NamedTuple

from ktfast.native.arrays import as_like, empty, on_device, stream_of
from ktfast.native.modules import cpu, native_of
from ktfast.ops.vectors import row_blocks

CODES = ("int8", "float16")
TILE_ROWS = cpu.KMEANS_TENSOR_TILE_ROWS
# With more features the sum of int8 products could overflow.
MOST_FEATURES = cpu.KMEANS_TENSOR_MOST_FEATURES
ROW_CONSTANTS = cpu.KMEANS_TENSOR_ROW_CONSTANTS
# What one call takes: the workspace is 290 bytes a row, and 76 MB at most.
_CALL_ROWS = 1 << 18
# Codes that are made on the way take as many bytes at most (or those of 128 rows).
_CODE_BYTES = 1 << 28
# What things cost, in products of one int8 number: a product in each code, on tensor cores or, in
# float32, on the others; and comparing a row with a centre in float64, per feature, which reads 8
# bytes through the L2 cache. Estimates from the nominal rates of an H100, not measured.
_PRODUCT_COST = {"int8": 1, "float16": 2, "float32": 20}
_PAIR_COST = 1500


class TensorScreen:
    """How vectors are coded: shifted and rounded.

    Parameters
    ----------
    mean : float32 [d], subtracted from rows and centres; near the rows' mean is best. It is taken
        to the device and library of `like`.
    code : "int8", with a scale per row, or "float16", likewise with a power of two.
    like : an array of torch or CuPy on a GPU.

    Raises
    ------
    ValueError : another code.
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
        """Prepare centres (float64 [k, d]) for `assign`: int8 [bytes], with k rounded up to 256."""
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
        """Room for the codes of n rows: d or 2 d bytes each, rounded up to 128, and 16 more."""
        with on_device(self.mean):
            return TensorCodes(
                empty((-(-n // TILE_ROWS), self._tile_bytes), "int8", like=self.mean),
                empty((n, ROW_CONSTANTS), "float32", like=self.mean),
            )

    def encode(self, x: Any, codes: "TensorCodes") -> None:
        """Code rows x [n, d]."""
        with on_device(x):
            for rows, block in row_blocks(x, _CALL_ROWS, multiple=TILE_ROWS):
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
        n_passed: Any = None,
        call_rows: int = _CALL_ROWS,
    ) -> None:
        """Write the nearest centre of every row of x, and the squared distance to it.

        Nothing is waited for: the work is queued on the current stream of the arrays' library.

        Parameters
        ----------
        x : [n, d].
        centers, prepared : float64 [k, d] and what `prepare` made of them.
        labels, distances : int32 [n] and float64 [n], written to.
        codes : of the rows; None: made on the way.
        guessed : `labels` hold centres that are probably near; others than 0 to k - 1 count for
            none. Without guesses an eighth of the centres is looked at first.
        certify : compare what the screen cannot tell apart. Else the label is that of the least
            score, and the distance comes from the score, with the error of the codes.
        n_passed : int64 [1]; how many centres were compared is added to it. None: not counted.
        call_rows : the most rows of a call, a multiple of 128; the workspace is 290 bytes for each.
        """
        step = min(call_rows, _CALL_ROWS)
        if codes is None:
            step = min(step, max(1, _CODE_BYTES // self._tile_bytes) * TILE_ROWS)
        with on_device(x):
            size = self._native.kmeans_tensor_workspace_size(n_rows=min(len(x), step))
            workspace = empty((size,), "int64", like=x)
            room = self.empty_codes(min(len(x), step)) if codes is None else None
            for rows, block in row_blocks(x, step, multiple=TILE_ROWS):
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
                    workspace=workspace,
                    n_passed=n_passed,
                    stream=stream_of(x),
                    **part._asdict(),
                )

    def passed(self, sample: Any, centers: Any) -> float:
        """How many of the centres [k, d] pass the screen of a row of the sample [m, d].

        Waits for the GPU.
        """
        m = len(sample)
        with on_device(sample):
            labels = empty((m,), "int32", like=sample)
            distances = empty((m,), "float64", like=sample)
            n_passed = empty((1,), "int64", like=sample)
            n_passed[:] = 0
            self.assign(
                sample, centers, self.prepare(centers), labels, distances, n_passed=n_passed
            )
            return int(n_passed[0]) / max(1, m)


class TensorCodes(NamedTuple):
    """Codes of rows in tiles of 128, and what is known of the rest of them.

    codes : int8 [n / 128 rounded up, bytes of a tile].
    constants : float32 [n, 4].
    """

    codes: Any
    constants: Any

    def at(self, rows: slice) -> "TensorCodes":
        """Those of some rows, the first a multiple of 128; memory is shared."""
        tiles = slice(rows.start // TILE_ROWS, -(-rows.stop // TILE_ROWS))
        return TensorCodes(self.codes[tiles], self.constants[rows])


def choose_code(sample: Any, centers: Any, mean: Any) -> str:
    """What to multiply for rows like a sample [m, d]: "int8", "float16" or "float32".

    The narrower a code, the faster its products and the more centres pass, which are compared in
    float64. Waits for the GPU.

    Parameters
    ----------
    sample : [m, d], the rows.
    centers : float64 [k, d].
    mean : float32 [d].
    """
    k = len(centers)
    cost = {"float32": float(_PRODUCT_COST["float32"] * k)}
    for code in CODES:
        passed = TensorScreen(mean, code, like=sample).passed(sample, centers)
        cost[code] = _PRODUCT_COST[code] * k + _PAIR_COST * passed
    return min(cost, key=lambda code: cost[code])
