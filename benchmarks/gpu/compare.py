"""Every op on the GPU beside the same op on the CPU, on random inputs of the session's seed.

Each call is made twice, and both results must be the same. The first results are overwritten before
they are freed. The second call gets the same memory, so an element that this call does not write
makes the results differ. On a side stream the inputs arrive late, so that work on a wrong stream
would see zeros. measure.py runs this module.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ktfast import KMeans, ops
from ktfast.native.arrays import device_of

Row = dict[str, Any]
Job = tuple[Row, Callable[[], list[Row]]]  # the label of a case, and the function that runs it
Inputs = list[torch.Tensor]

cuda: Any = torch.cuda  # parts of torch.cuda have no types
OVERWRITTEN = -77
LATE = 20_000_000  # delay of the inputs in clock cycles, about 10 ms


class Case(NamedTuple):
    """One comparison: `inputs` makes CPU tensors, `call` runs on the device of its arguments."""

    text: str
    inputs: Callable[[np.random.Generator], Inputs]
    call: Callable[..., Sequence[Any]]
    outputs: tuple[str, str]


def tiles_case(batch: int, side: int, grid: int, tile: int, **options: Any) -> Case:
    height, width = side, side + 3

    def inputs(rng: np.random.Generator) -> Inputs:
        images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        permutations = np.array([rng.permutation(grid**2) for _ in range(701)], dtype=np.uint8)
        ids = rng.integers(-(2**63), 2**63, batch)
        return [torch.from_numpy(a) for a in (images, permutations, ids)]

    def call(images: Any, permutations: Any, ids: Any) -> Sequence[Any]:
        return ops.jigsaw_tiles(
            images, permutations, sample_ids=ids, seed=7, epoch=3, tile_size=tile, **options
        )

    sizes = f"B {batch}, {height}x{width}, {grid}x{grid} of {tile} px"
    text = ", ".join([sizes, *(f"{name} {value}" for name, value in options.items())])
    return Case(text, inputs, call, ("tiles", "labels"))


def vectors(rng: np.random.Generator, n: int, d: int, dtype: str) -> torch.Tensor:
    """Overlapping clusters away from the origin [n, d]."""
    means = rng.normal(size=(20, d)).astype(np.float32) * 4 + 10
    rows = rng.normal(size=(n, d)).astype(np.float32) + means[rng.integers(0, 20, n)]
    if dtype == "uint8":
        rows = rows.clip(0, 255)
    return torch.from_numpy(rows).to(getattr(torch, dtype))


def assign_case(n: int, d: int, k: int, dtype: str = "float32", precision: str = "exact") -> Case:
    """An assignment; `precision` chooses the GPU's screen, and the CPU is always exact."""

    def inputs(rng: np.random.Generator) -> Inputs:
        return [vectors(rng, n, d, dtype), vectors(rng, k, d, "float32")]

    def call(x: Any, centers: Any) -> Sequence[Any]:
        options: dict[str, Any] = {"precision": precision} if on_gpu(x) else {}
        return ops.kmeans_assign(x, centers, distance_dtype="float64", **options)

    text = f"n {n}, d {d}, k {k}, {dtype} rows, {precision}"
    return Case(text, inputs, call, ("labels", "distances"))


def on_gpu(x: Any) -> bool:
    return device_of(x)[0] == "cuda"


def update_case(n: int, d: int, k: int, dtype: str = "float32") -> Case:
    def inputs(rng: np.random.Generator) -> Inputs:
        skewed = (k * rng.random(n) ** 3).astype(np.int32)  # clusters of very different sizes
        return [
            vectors(rng, n, d, dtype),
            torch.from_numpy(skewed),
            torch.from_numpy(rng.random(n)),
        ]

    def call(x: Any, labels: Any, weight: Any) -> Sequence[Any]:
        return ops.kmeans_update(x, labels, k, sample_weight=weight)

    return Case(f"n {n}, d {d}, k {k}, {dtype}, weighted", inputs, call, ("sums", "counts"))


def fit_case(
    n: int, d: int, k: int, *, precision: str = "exact", budget: int | None = None
) -> Case:
    """A fit in a precision; with a budget in bytes, the rows stream from the host's memory."""

    def call(x: Any) -> Sequence[Any]:
        init, options = x[:k], dict[str, Any]()
        if on_gpu(x):
            options["precision"] = precision
            if budget is not None:
                init, x = init.cpu(), x.cpu()
                options |= {"device": "cuda", "memory_budget": budget}
        model = KMeans(k, init=init, max_iter=8, tol=0, **options).fit(x)
        return model.labels_, model.cluster_centers_

    def inputs(rng: np.random.Generator) -> Inputs:
        return [vectors(rng, n, d, "float32")]

    text = f"n {n}, d {d}, k {k}, at most 8 iterations, {precision}"
    if budget is not None:
        text += f", streamed through {budget:,} bytes"
    return Case(text, inputs, call, ("labels", "centers"))


CODES = ("int8", "float16", "float32")
SMALL = {
    "jigsaw_tiles": [tiles_case(5, 70, 3, 19, channels_last=True)],
    "kmeans_assign": [assign_case(131, 33, 129, precision=code) for code in CODES],
    "kmeans_update": [update_case(200, 7, 3)],
    "KMeans": [
        fit_case(150, 5, 4),
        *(fit_case(300, 37, 70, precision=code) for code in CODES),
        fit_case(700, 64, 66, budget=1 << 20),
    ],
}
CASES = {
    "jigsaw_tiles": [
        tiles_case(64, 255, 3, 64),
        tiles_case(64, 255, 3, 64, dtype="float16", channels_last=True),
        tiles_case(33, 101, 2, 31, dtype="bfloat16", donor_color="independent"),
        tiles_case(17, 250, 4, 47, statistics="channel", max_occluders=5),
        *SMALL["jigsaw_tiles"],
    ],
    "kmeans_assign": [
        assign_case(20_000, 256, 2000),
        *(assign_case(20_000, 256, 2000, precision=code) for code in CODES),
        *(assign_case(3_000, 4096, 2000, precision=code) for code in CODES),
        assign_case(1_000, 9216, 2000),
        assign_case(5_000, 257, 1001, "float16"),
        assign_case(5_000, 100, 300, "bfloat16"),
        assign_case(5_000, 128, 300, "uint8"),
        assign_case(5_000, 65, 300, "float64"),
        *SMALL["kmeans_assign"],
    ],
    "kmeans_update": [
        update_case(200_000, 256, 2000),
        update_case(10_000, 4096, 2000),
        update_case(5_000, 257, 1001, "float16"),
        *SMALL["kmeans_update"],
    ],
    "KMeans": [
        fit_case(20_000, 64, 100),
        fit_case(50_000, 256, 500, precision="int8"),
        fit_case(50_000, 256, 500, budget=16 << 20),
        *SMALL["KMeans"],
    ],
}


def on_cupy(case: Case, inputs: Inputs) -> Iterator[Inputs]:
    """The results of two calls on CuPy arrays, copied to the CPU."""
    import cupy

    arrays = [cupy.asarray(tensor.numpy()) for tensor in inputs]
    for _ in range(2):
        outputs = case.call(*arrays)
        yield [torch.from_numpy(cupy.asnumpy(output)) for output in outputs]
        for output in outputs:
            output.fill(OVERWRITTEN)
        del outputs, output


def on_stream(case: Case, inputs: Inputs, stream: torch.cuda.Stream) -> Iterator[Inputs]:
    """The results of two calls on torch tensors that reach the GPU late, copied to the CPU."""
    with torch.cuda.stream(stream):
        sources = [tensor.pin_memory() for tensor in inputs]
        arrays = [torch.zeros_like(tensor, device="cuda") for tensor in inputs]
        cuda._sleep(LATE)
        for array, source in zip(arrays, sources, strict=True):
            array.copy_(source, non_blocking=True)
        yield from twice(case, arrays)


def twice(case: Case, arrays: Inputs) -> Iterator[Inputs]:
    for _ in range(2):
        outputs = case.call(*arrays)
        yield [output.cpu().clone() for output in outputs]
        for output in outputs:
            output.fill_(OVERWRITTEN)
        del outputs, output


def runs_of(case: Case, way: str, inputs: Inputs) -> list[Inputs]:
    if way == "CPU":
        return list(twice(case, inputs))
    if way == "CuPy":
        return list(on_cupy(case, inputs))
    side = way == "side stream"
    return list(on_stream(case, inputs, cuda.Stream() if side else torch.cuda.current_stream()))


def compare(case: Case, way: str, seed: int) -> list[Row]:
    """One row per output: the share of elements that equal the CPU's, and the differences."""
    inputs = case.inputs(np.random.default_rng(seed))
    wanted = [output.clone() for output in case.call(*inputs)]
    first, second = runs_of(case, way, inputs)
    rows = []
    for name, twin, got, again in zip(case.outputs, wanted, first, second, strict=True):
        row: Row = {"output": name, "equal": float((got == twin).double().mean())}
        row["same_again"] = torch.equal(got, again)
        if twin.is_floating_point():
            difference = float((got.double() - twin.double()).abs().max())
            row["largest_difference"] = difference
            row["relative_difference"] = difference / (float(twin.abs().max()) or 1.0)
        rows.append(row)
    return rows


def comparisons(op: str, *, device: str, small: bool, seed: int) -> Iterator[Job]:
    """The cases of an op; the first case also on a side stream and, at full size, with CuPy."""
    ways = ["CPU"] if device == "cpu" else ["default stream", "side stream"]
    if device == "cuda" and not small:
        ways.append("CuPy")
    for place, case in enumerate((SMALL if small else CASES)[op]):
        for way in ways if place == 0 else ways[:1]:
            yield {"case": case.text, "way": way}, functools.partial(compare, case, way, seed)
