"""How a fit divides the memory of a GPU between rows, blocks of rows and working memory."""

from typing import Any, NamedTuple

from ktfast.errors import InputError
from ktfast.native.gpu_memory import Device, free_bytes
from ktfast.ops.kmeans_tensor import TILE_ROWS

# Blocks of streamed rows on the GPU at a time. Kernels process one block while two others arrive.
BUFFERS = 3
# The largest block, if the budget allows it. Copies of smaller blocks do not reach full speed.
_BLOCK_BYTES = 1 << 27
_BLOCK_ROWS = 1 << 18
# GPU bytes per row during the whole fit: two labels, a distance, a weight or a bound of the other
# distances, and the order of the rows by cluster.
_ROW_BYTES = 40
# GPU bytes per row of the block that is processed: the changes of labels, sorted by cluster, and
# the candidates of the screen.
_WORK_BYTES = 320
# GPU bytes per feature of a code. The number of features is rounded up to a multiple of 128. A code
# takes 16 more bytes per row, which `_WORK_BYTES` includes.
_CODE_BYTES = 2
# GPU bytes per element of the centres: three float64 copies, prepared centres, integer sums of two
# limbs.
_CENTER_BYTES = 48
# Share of the free GPU memory that a fit uses if the user gives no budget.
_BUDGET_SHARE = 0.8


class GpuTarget(NamedTuple):
    """The GPU to which a fit streams rows that lie on the host.

    Attributes
    ----------
    device : Device
        The GPU.
    budget : int or None
        Bytes of its memory that the fit may use. None means 80 % of the free memory.
    n_clusters : int
        Number of centres k.
    """

    device: Device
    budget: int | None
    n_clusters: int

    def bytes(self) -> int:
        """The budget in bytes: the given one, or 80 % of the free memory."""
        if self.budget is not None:
            return self.budget
        return int(_BUDGET_SHARE * self.device.free_bytes())


class MemoryPlan(NamedTuple):
    """The use of a GPU's memory.

    Attributes
    ----------
    resident : int
        Number of rows, from the first one on, that stay on the GPU between passes.
    block : int
        Number of rows in a block.
    spare : int
        Bytes of the budget that the plan leaves free.
    """

    resident: int
    block: int
    spare: int


def default_budget(array: Any) -> int:
    """Bytes that a fit may use on the GPU of an array if the user gives no budget."""
    return int(_BUDGET_SHARE * free_bytes(array))


def make_plan(
    n: int, d: int, row_bytes: int, n_clusters: int, budget: int, *, work_bytes: int = 0
) -> MemoryPlan:
    """Divide a budget of GPU memory.

    Parameters
    ----------
    n, d : int
        Number of rows and of features.
    row_bytes : int
        Bytes of a streamed row. 0 if the rows lie on the GPU already.
    n_clusters : int
        Number of centres k.
    budget : int
        Bytes that the fit may use.
    work_bytes : int, default 0
        Further bytes per row of the block that is processed.

    Returns
    -------
    plan : MemoryPlan
        The use of the budget.

    Raises
    ------
    InputError
        Not even one tile of rows fits. The message says how many bytes are needed.
    """
    work = _WORK_BYTES + _CODE_BYTES * (-(-d // 128) * 128) + work_bytes
    centers = _CENTER_BYTES * d * (-(-n_clusters // 128) * 128)
    fixed = n * (_ROW_BYTES + d // 64) + centers
    left = budget - fixed
    least = TILE_ROWS * (BUFFERS * row_bytes + work)
    if left < least:
        raise InputError(
            f"{budget:,} bytes of GPU memory may be used, but {n} rows, {d} features and "
            f"{n_clusters} clusters need at least {fixed + least:,}; raise memory_budget, or free "
            "GPU memory"
        )
    block = min(_BLOCK_BYTES // max(1, row_bytes), left // (2 * (BUFFERS * row_bytes + work)))
    block = _whole_tiles(min(block, _BLOCK_ROWS))
    spare = left - n * row_bytes - min(block, n) * work
    if spare >= 0:
        return MemoryPlan(n, block, spare)
    left -= block * (BUFFERS * row_bytes + work)
    resident = left // max(1, row_bytes) // TILE_ROWS * TILE_ROWS
    return MemoryPlan(resident, block, left - resident * row_bytes)


def _whole_tiles(rows: int) -> int:
    """Round down to whole tiles of the kernels, but not below one tile."""
    return max(1, rows // TILE_ROWS) * TILE_ROWS
