"""What the native modules do with arrays they cannot use: an exception that names the argument."""

import ctypes
import gc
import sys

import numpy as np
import pytest

from ktfast.native import modules


def arguments():
    """Valid arguments of the native jigsaw_tiles: 2 images, 4 tiles of 3 px."""
    batch, n_tiles, t = 2, 4, 3
    return {
        "images": np.arange(batch * 16 * 16 * 3, dtype=np.uint8).reshape(batch, 16, 16, 3),
        "permutations": np.arange(4, dtype=np.uint8)[None],
        "sample_ids": np.arange(batch),
        "indices": None,
        "tiles": np.zeros((batch, n_tiles, 3, t, t), np.float32),
        "labels": np.zeros(batch, np.int64),
        "offsets": np.zeros((batch, n_tiles, 3, 2), np.int32),
        "cells": np.zeros((batch, n_tiles), np.int32),
        "occluded": np.zeros((batch, n_tiles), np.uint8),
        "donors": np.zeros(batch, np.int64),
        "gray": np.zeros(batch, np.uint8),
        "projection": np.zeros(batch, np.uint8),
        "donor_gray": np.zeros(batch, np.uint8),
        "donor_projection": np.zeros(batch, np.uint8),
        "workspace": workspace(t),
        "n_threads": 2,
        "seed": 1,
        "epoch": 0,
        "tile_size": t,
        "jitter": 2,
        "chroma_shift": 1,
        "max_occluders": 1,
        "gray_threshold": 2**31,
        "projection_threshold": 2**31,
        "donor_shares_color": True,
        "channels_last": False,
        "statistics": "tile",
    }


def workspace(tile_size):
    size = modules.cpu.jigsaw_tiles_workspace_size(tile_size=tile_size, n_threads=2)
    return np.zeros(size, np.int16)


def call(**change):
    given = {**arguments(), **change}
    modules.cpu.jigsaw_tiles(**given)
    return given["tiles"]


def misaligned(shape, dtype):
    """An array whose elements start one byte late."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.zeros(size + 1, np.uint8)[1:].view(dtype).reshape(shape)


class OnGpu:
    """An array that says it lies on a CUDA device."""

    def __dlpack_device__(self):
        return (2, 1)

    def __dlpack__(self, **_):
        raise AssertionError("must not be asked for its memory")


class Legacy:
    """A producer from before DLPack version 1: no max_version, an unversioned capsule."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()


class NoCapsule(Legacy):
    def __dlpack__(self, **_):
        return self.array


class Broken(Legacy):
    def __dlpack__(self, **_):
        raise RuntimeError("out of order")


class Interrupted(Legacy):
    def __dlpack__(self, **_):
        raise KeyboardInterrupt


class OnOtherDevice(Legacy):
    """A CPU array whose capsule says device 1, as one of two GPUs would."""

    def __dlpack__(self, **_):
        capsule = self.array.__dlpack__()
        address = ctypes.pythonapi.PyCapsule_GetPointer
        address.restype, address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        # DLTensor: the address of the data, the device's type, the device's index.
        ctypes.c_int32.from_address(address(capsule, b"dltensor") + 12).value = 1
        return capsule


IMAGES = arguments()["images"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": [1, 2]}, TypeError, "images must be an array .* got list"),
        ({"images": IMAGES.astype(np.int8)}, TypeError, "images must be uint8, got int8"),
        ({"sample_ids": np.zeros(2)}, TypeError, "sample_ids must be int64, got float64"),
        ({"labels": np.zeros(2, bool)}, TypeError, "labels must be int64, got bool"),
        ({"tiles": np.zeros((2, 4, 3, 3, 3))}, TypeError, "tiles must be .* got float64"),
        ({"images": IMAGES[0]}, ValueError, r"images must have shape \(any, .* got \(16,"),
        ({"labels": np.zeros(3, np.int64)}, ValueError, r"must have shape \(2,\), got \(3,\)"),
        ({"images": IMAGES[:, ::-1]}, ValueError, "images must be contiguous"),
        ({"images": IMAGES[:, :, ::2]}, ValueError, "images must be contiguous"),
        ({"permutations": np.zeros((1, 5), np.uint8)}, ValueError, "1, 4, 9 or 16 columns, got 5"),
        ({"images": OnGpu()}, ValueError, "images is on CUDA device 1, but must be on the CPU"),
        ({"images": NoCapsule(IMAGES)}, TypeError, "did not return a capsule"),
        ({"images": Broken(IMAGES)}, ValueError, "images could not be read .* out of order"),
        ({"images": Interrupted(IMAGES)}, KeyboardInterrupt, None),
        ({"sample_ids": misaligned(2, np.int64)}, ValueError, "sample_ids is not aligned"),
        ({"tile_size": 9, "workspace": workspace(9),
          "tiles": np.zeros((2, 4, 3, 9, 9), np.float32)}, ValueError, "must fit into a cell"),
        ({"max_occluders": 5}, ValueError, "max_occluders must be 0 to the number of tiles"),
        ({"statistics": "own"}, ValueError, "statistics must be tile, channel or none, got 'own'"),
        ({"images": IMAGES[:1]}, ValueError, "there are more rows than images"),
        ({"workspace": workspace(3)[:-1]}, ValueError, "workspace is too small"),
        ({"n_threads": 0}, ValueError, "n_threads must be 1 to"),
    ],
)  # fmt: skip
def test_unusable_arguments(change, error, message):
    with pytest.raises(error, match=message):
        call(**change)


def test_missing_arguments_are_named():
    given = arguments()
    del given["sample_ids"]
    with pytest.raises(KeyError, match="sample_ids"):
        modules.cpu.jigsaw_tiles(**given)


def kmeans_arguments():
    """Valid arguments of the native k-means functions: 4 rows, 3 features, 2 clusters."""
    cpu = modules.cpu
    x, centers = np.ones((4, 3), np.float32), np.eye(2, 3)
    sizes = {"n_features": 3, "n_coordinates": 0}
    code = {"code": "float32", "n_coordinates": 0}
    prepared = np.empty(cpu.kmeans_prepared_size(n_clusters=2, code="float32", **sizes), np.float32)
    mean = np.zeros(3, np.float32)
    prepare = {"centers": centers, "prepared": prepared, "mean": mean, **code, "n_threads": 1}
    cpu.kmeans_prepare(**prepare)
    assign_size = cpu.kmeans_assign_workspace_size(**sizes, n_threads=1)
    update_size = cpu.kmeans_update_workspace_size(n_rows=4, n_clusters=2)
    labels = np.zeros(4, np.int32)
    return {
        "kmeans_prepare": prepare,
        "kmeans_assign": {
            "x": x,
            "centers": centers,
            "prepared": prepared,
            "workspace": np.empty(assign_size, np.float32),
            "labels": labels,
            "distances": np.zeros(4),
            **code,
            "codes": None,
            "subset": None,
            "guessed": False,
            "near": None,
            "epoch": 0,
            "margin": 0.0,
            "n_threads": 1,
        },
        "kmeans_move": {
            "x": x,
            "before": np.ones(4, np.int32),
            "after": labels,
            "sample_weight": np.ones(4),
            "scale": np.ones(3),
            "workspace": np.empty(cpu.kmeans_move_workspace_size(n_rows=4, n_clusters=2), np.int64),
            "sums": np.zeros((2, 3), np.int64),
            "low": np.zeros((2, 3), np.int64),
            "counts": np.zeros(2, np.int64),
            "n_threads": 1,
        },
        "kmeans_means": {
            "sums": np.zeros((2, 3), np.int64),
            "low": np.zeros((2, 3), np.int64),
            "counts": np.zeros(2, np.int64),
            "weights": np.ones(2),
            "step": np.ones(3),
            "previous": np.zeros((2, 3)),
            "narrow": True,
            "centers": np.zeros((2, 3)),
            "shifts": np.zeros(2),
            "n_threads": 1,
        },
        "kmeans_totals": {
            "distances": np.ones(4),
            "sample_weight": np.ones(4),
            "before": labels,
            "after": labels,
            "workspace": np.empty(cpu.kmeans_totals_workspace_size(n_rows=4)),
            "totals": np.zeros(2),
            "n_threads": 1,
        },
        "kmeans_update": {
            "x": x,
            "labels": labels,
            "sample_weight": np.ones(4),
            "workspace": np.empty(update_size, np.int64),
            "sums": np.zeros((2, 3)),
            "counts": np.zeros(2),
            "n_threads": 1,
        },
    }


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("kmeans_prepare", "prepared"),
        *(("kmeans_assign", name) for name in ("centers", "prepared", "labels", "distances")),
        *(("kmeans_update", name) for name in ("labels", "sample_weight", "sums", "counts")),
        ("kmeans_update", "workspace"),
        *(("kmeans_move", name) for name in ("before", "after", "scale", "sums", "workspace")),
        *(("kmeans_move", name) for name in ("sample_weight", "low")),
        *(("kmeans_means", name) for name in ("counts", "step", "previous", "centers", "shifts")),
        *(("kmeans_means", name) for name in ("low", "weights")),
        *(("kmeans_totals", name) for name in ("sample_weight", "before", "after", "totals")),
    ],
)
def test_arrays_on_several_devices_are_refused(function, name):
    given = kmeans_arguments()[function]
    getattr(modules.cpu, function)(**given)
    given[name] = OnOtherDevice(given[name])
    with pytest.raises(ValueError, match=rf"{name} is on device 1, but \w+ is on device 0"):
        getattr(modules.cpu, function)(**given)


def test_no_clusters_are_refused():
    given = kmeans_arguments()["kmeans_update"]
    with pytest.raises(ValueError, match="sums must hold at least one row"):
        modules.cpu.kmeans_update(**{**given, "sums": np.zeros((0, 3)), "counts": np.zeros(0)})


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        ("kmeans_move", {"after": np.full(4, 2, np.int32)}, "labels must lie between 0"),
        ("kmeans_move", {"before": np.full(4, -1, np.int32)}, "labels must lie between 0"),
        ("kmeans_move", {"workspace": np.zeros(3, np.int64)}, "workspace must hold at least"),
        ("kmeans_move", {"scale": np.ones(2)}, "scale must have shape"),
        ("kmeans_move", {"low": np.zeros((2, 4), np.int64)}, "low must have shape"),
        ("kmeans_means", {"weights": np.ones(3)}, "weights must have shape"),
        ("kmeans_means", {"previous": np.ones((2, 4))}, "previous must have shape"),
        ("kmeans_totals", {"after": np.ones(3, np.int32)}, "after must have shape"),
        ("kmeans_totals", {"n_threads": 0}, "n_threads must be at least 1"),
    ],
)
def test_unusable_arguments_of_sums(function, change, message):
    given = {**kmeans_arguments()[function], **change}
    with pytest.raises(ValueError, match=message):
        getattr(modules.cpu, function)(**given)
    for name in ("sums", "low", "counts", "totals"):
        assert not given.get(name, np.zeros(1)).any()


@pytest.mark.parametrize("name", ["tiles", "labels", "workspace"])
def test_read_only_outputs_are_refused(name):
    array = arguments()[name]
    array.flags.writeable = False
    with pytest.raises(ValueError, match=f"{name} is read-only"):
        call(**{name: array})


def test_read_only_inputs_are_accepted():
    given = arguments()
    for name in ("images", "permutations", "sample_ids"):
        given[name].flags.writeable = False
    assert np.array_equal(call(**given), call())


def test_producers_older_than_version_1():
    assert np.array_equal(call(images=Legacy(IMAGES)), call())


def test_a_mapped_file(tmp_path):
    IMAGES.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=IMAGES.shape)
    assert np.array_equal(call(images=mapped), call())


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    tiles = torch.zeros(2, 4, 3, 3, 3)
    call(images=torch.from_numpy(IMAGES), tiles=tiles)
    assert np.array_equal(tiles.numpy(), call())
    with pytest.raises(ValueError, match=r"tiles could not be read .* require gradient"):
        call(tiles=torch.zeros(2, 4, 3, 3, 3, requires_grad=True))
    with pytest.raises(ValueError, match="images"):
        call(images=torch.zeros(2, 16, 16, 3, dtype=torch.uint8, device="meta"))


def test_freed_tensors():
    torch = pytest.importorskip("torch")
    images = torch.from_numpy(IMAGES).clone()
    images.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"images has no memory \(was it freed\?\)"):
        call(images=images)


def test_calls_keep_no_reference_and_leak_nothing():
    given = arguments()
    before = {name: sys.getrefcount(value) for name, value in given.items()}
    for _ in range(100):
        modules.cpu.jigsaw_tiles(**given)
        with pytest.raises(ValueError, match="labels must have shape"):
            modules.cpu.jigsaw_tiles(**{**given, "labels": np.zeros(3, np.int64)})
    gc.collect()
    after = {name: sys.getrefcount(value) for name, value in given.items()}
    assert {n: c for n, c in after.items() if isinstance(given[n], np.ndarray)} == {
        n: c for n, c in before.items() if isinstance(given[n], np.ndarray)
    }


HUGE = 2**62


@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        ("kmeans_prepared_size", {"n_clusters": HUGE, "n_features": 3}),
        ("kmeans_prepared_size", {"n_clusters": 3, "n_features": HUGE}),
        ("kmeans_prepared_size", {"n_clusters": 2**32, "n_features": 2**32}),
        ("kmeans_prepared_size", {"n_clusters": 3, "n_features": 3, "n_coordinates": 2**63 - 1}),
        ("kmeans_prepared_size", {"n_clusters": 2**63 - 1, "n_features": 0}),
        ("kmeans_assign_workspace_size", {"n_features": 2**62, "n_threads": 1}),
        ("kmeans_assign_workspace_size", {"n_features": 2**40, "n_threads": 2**31 - 1}),
        ("kmeans_code_bytes", {"n_features": 2**63 - 1}),
        ("kmeans_is_few", {"n_clusters": 2**40, "n_features": 2**63 - 1}),
        ("kmeans_move_workspace_size", {"n_rows": HUGE, "n_clusters": 2}),
        ("kmeans_update_workspace_size", {"n_rows": HUGE, "n_clusters": HUGE}),
    ],
)
def test_sizes_beyond_int64_are_refused(function, sizes):
    if function in ("kmeans_prepared_size", "kmeans_assign_workspace_size", "kmeans_code_bytes"):
        sizes = {"n_coordinates": 0, **sizes}
    if function in ("kmeans_prepared_size", "kmeans_code_bytes"):
        sizes = {"code": "float32", **sizes}
    with pytest.raises(ValueError, match=r"would have over 2\^63 elements"):
        getattr(modules.cpu, function)(**sizes)


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="sizes must not be negative"):
        modules.cpu.kmeans_update_workspace_size(n_rows=-1, n_clusters=2)


def test_an_array_without_rows_but_with_long_rows_is_refused():
    given = kmeans_arguments()["kmeans_assign"]
    with pytest.raises(ValueError, match=r"prepared must hold at least|over 2\^63 elements"):
        modules.cpu.kmeans_assign(
            **{**given, "x": np.zeros((0, 2**59), np.uint8), "centers": np.zeros((0, 2**59))}
        )


class OfShape(Legacy):
    """A producer whose capsule claims another shape than its array has."""

    def __init__(self, array, shape):
        super().__init__(array)
        self.shape = (ctypes.c_int64 * len(shape))(*shape)

    def __dlpack__(self, **_):
        capsule = self.array.__dlpack__()
        address = ctypes.pythonapi.PyCapsule_GetPointer
        address.restype, address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        # DLTensor: data (8 bytes), device (8), ndim (4), dtype (4), then the address of the shape.
        tensor = address(capsule, b"dltensor")
        ctypes.c_int64.from_address(tensor + 24).value = ctypes.addressof(self.shape)
        return capsule


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2**32, 2**32), r"2\^63"), ((2**62, 3), r"2\^63"), ((-1, 3), "x has a negative side")],
)
def test_shapes_that_no_memory_holds_are_refused(shape, message):
    given = kmeans_arguments()["kmeans_update"]
    with pytest.raises(ValueError, match=message):
        modules.cpu.kmeans_update(**{**given, "x": OfShape(given["x"], shape)})


def spoiled(rng, array):
    """An array of another dtype, shape or stride, or now and then the array itself."""
    changes = [
        lambda a: a.astype(rng.choice(["f2", "f4", "f8", "i1", "u1", "i4", "i8", "?", "c8"])),
        lambda a: a[: int(rng.integers(len(a) + 1))],
        lambda a: a[::-1],
        lambda a: a[:: int(rng.integers(1, 4))],
        lambda a: a.T,
        lambda a: a[..., :-1],
        lambda a: a[None],
        lambda a: np.asfortranarray(a),
        lambda a: np.concatenate([a, a]),
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: np.broadcast_to(a, (int(rng.integers(4)), *a.shape)),
        lambda a: np.zeros(rng.integers(0, 6, int(rng.integers(4))), a.dtype),
        lambda a: np.zeros((0, *a.shape[1:-1], 2**20), a.dtype),
        lambda a: misaligned(a.shape, a.dtype),
        lambda a: a.byteswap().view(a.dtype.newbyteorder()),
        lambda a: a,
    ]
    return changes[int(rng.integers(len(changes)))](array)


@pytest.mark.parametrize("function", ["jigsaw_tiles", *kmeans_arguments()])
def test_arrays_of_random_dtype_shape_and_stride(function, rng):
    """A call with one to three spoiled arrays runs or is refused; it never harms the process."""
    ran = refused = 0
    for _ in range(500):
        given = arguments() if function == "jigsaw_tiles" else kmeans_arguments()[function]
        names = [name for name, value in given.items() if isinstance(value, np.ndarray)]
        for name in rng.choice(names, int(rng.integers(1, 4))):
            if given[name].ndim:
                with np.errstate(all="ignore"):  # a number that the other type lacks
                    given[name] = spoiled(rng, given[name])
        try:
            getattr(modules.cpu, function)(**given)
            ran += 1
        except (TypeError, ValueError):
            refused += 1
    assert ran > 10
    assert refused > 100
