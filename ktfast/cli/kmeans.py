"""The command `ktfast kmeans`: cluster the rows of feature files, without torch."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ktfast.cli.printing import print_line
from ktfast.durable import check_place, replacing
from ktfast.errors import ConfigError, InputError, shown
from ktfast.features.datasets import PARQUET, is_dataset
from ktfast.features.files import LIST_SUFFIXES
from ktfast.features.row_labels import check_label_file, write_labels
from ktfast.features.store import LIST, FeatureStore
from ktfast.native.gpu_memory import open_device
from ktfast.remote import argument_path, check_apart, local_path, url_of
from ktfast.tables import write_assignments


def add_command(commands: Any) -> None:
    """Add the sub-command to the parser of the command line."""
    parser = commands.add_parser(
        "kmeans", help="cluster the rows of feature files with K-means; needs no torch"
    )
    parser.add_argument(
        "files",
        type=argument_path,
        nargs="+",
        metavar="FILE",
        help=".npy, .npz or Parquet file of rows [n, d], or a folder that `ktfast features` wrote; "
        "or a folder of Parquet files, a Lance dataset, a pattern in quotation marks, or a URL "
        "such as s3://bucket/rows/*.parquet; several files are clustered as one",
    )
    parser.add_argument("-k", "--clusters", type=int, required=True, help="number of clusters")
    parser.add_argument(
        "-o",
        "--out",
        type=argument_path,
        required=True,
        help=".npy: labels; .npz: labels, squared distances and centres; .csv: cluster and "
        "distance of each path, or of each row number if a file names no paths; .parquet: cluster "
        "and distance beside the column path or id, or beside file and row number",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--init",
        choices=("k-means||", "k-means++", "random"),
        default="k-means||",
        help="how the first centres are chosen (default: k-means||)",
    )
    parser.add_argument(
        "--n-init",
        type=int,
        default=1,
        help="number of fits, each from other first centres; the fit with the lowest inertia is "
        "kept (default: 1)",
    )
    parser.add_argument("--max-iter", type=int, default=300, help="most iterations (default: 300)")
    parser.add_argument(
        "--tol",
        type=float,
        default=1e-4,
        help="a fit ends when the squared movements of the centres sum to at most TOL times the "
        "mean variance of the features (default: 0.0001)",
    )
    parser.add_argument(
        "--spherical", action="store_true", help="cluster by the angle between rows"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cpu)")
    parser.set_defaults(command="kmeans")


def kmeans(options: argparse.Namespace) -> int:
    """Run `ktfast kmeans`; return the exit status."""
    from ktfast.kmeans import KMeans

    if options.device is not None and options.device.startswith("cuda"):
        number = options.device.partition(":")[2]
        try:
            open_device(int(number) if number.isdecimal() else 0)
        except (RuntimeError, InputError) as error:
            raise ConfigError(f"--device {options.device}: {error}") from error
    write = _writer(options.out)
    _check_out(options.out, options.files)
    # A .npy file of labels holds no paths, so a list of paths beside the features is not read.
    paths: Literal["ignored", "optional"] = (
        "ignored" if options.out.suffix == ".npy" else "optional"
    )
    if options.out.suffix == ".parquet" and all(map(is_dataset, options.files)):
        paths = "ignored"  # the paths are read file by file when the labels are written
    stores = [FeatureStore.open(path, verify=True, paths=paths) for path in options.files]
    _check_alike(stores)
    if options.out.suffix != ".npy":
        for store in stores:
            _ = store.names  # a wrong list of paths is found before the fit
    model = KMeans(
        options.clusters,
        init=options.init,
        n_init=options.n_init,
        max_iter=options.max_iter,
        tol=options.tol,
        random_state=options.seed,
        spherical=options.spherical,
        n_threads=options.threads,
        device=options.device,
    )
    rows = [shard for store in stores for shard in store.shards]
    labels, distances = model.fit(rows).assign(rows)
    centers = np.asarray(model.cluster_centers_)
    write(options.out, Clustering(labels, distances, centers, stores))
    print_line(
        f"{shown(options.out)}: {len(labels)} rows in {model.n_effective_clusters_} clusters, "
        f"inertia {model.inertia_:.7g} after {model.n_iter_} iterations"
    )
    return 0


def _check_out(out: Path, files: Sequence[Path]) -> None:
    """Refuse a result in the place of a file of rows or of a list of paths."""
    for file in files:
        place = local_path(file)
        is_ours = (place / "manifest.json").is_file()  # a folder that `ktfast features` wrote
        check_apart(out, [file], (".npy", LIST) if is_ours else PARQUET)
        if place.suffix == ".npy" and out.resolve() in [
            place.with_suffix(end).resolve() for end in LIST_SUFFIXES
        ]:
            raise ConfigError(
                f"{shown(out)} is, or would be read as, the list of paths of {shown(file)}; give "
                "another name for the result"
            )


def _check_alike(stores: list[FeatureStore]) -> None:
    """Refuse files whose rows differ in length or in the type that K-means reads."""
    from ktfast.kmeans.containers import read_as

    if len({store.dim for store in stores}) > 1:
        raise ConfigError(
            "all files must have rows of one length, got "
            + ", ".join(f"{shown(store.path)} [{store.n}, {store.dim}]" for store in stores)
            + "; cluster files with rows of different lengths one by one"
        )
    if len({read_as(store.dtype) for store in stores}) > 1:
        raise ConfigError(
            "all files must hold numbers of one type, got "
            + ", ".join(f"{shown(store.path)} {store.dtype}" for store in stores)
            + '; write the files again in one type, for example array.astype("float32")'
        )


@dataclass(frozen=True)
class Clustering:
    """The result of a fit.

    Attributes
    ----------
    labels : array, int32 [n]
        Cluster of each row.
    distances : array, float64 [n]
        Squared distance of each row to the centre of its cluster.
    centers : array [k, d]
        The centres.
    stores : sequence of FeatureStore
        The rows.
    """

    labels: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float64]
    centers: npt.NDArray[Any]
    stores: Sequence[FeatureStore]

    @property
    def paths(self) -> list[str] | None:
        """Path of the image of each row, if every file names the paths."""
        if any(store.names is None for store in self.stores):
            return None
        return [name for store in self.stores for name in store.names or ()]


def _writer(path: Path) -> Callable[[Path, Clustering], None]:
    """Choose the function that writes a clustering, by the suffix of the file.

    The function is called before the fit, so that a wrong path is found at once.
    """
    writers = {
        ".npy": _write_npy, ".npz": _write_npz, ".csv": _write_csv, ".parquet": _write_parquet,
    }  # fmt: skip
    if path.suffix not in writers:
        raise ConfigError(f"{shown(path)}: give a file name that ends in {', '.join(writers)}")
    if path.suffix == ".parquet":
        check_label_file(path)
    elif url_of(path) is not None:
        raise ConfigError(f"{shown(path)}: only a .parquet file is written to object storage")
    else:
        check_place(path)
    return writers[path.suffix]


def _write_npy(path: Path, found: Clustering) -> None:
    with replacing(path) as file:
        np.save(file, found.labels)


def _write_npz(path: Path, found: Clustering) -> None:
    arrays = {"labels": found.labels, "distances": found.distances, "centers": found.centers}
    if (paths := found.paths) is not None:
        arrays["paths"] = np.array(paths)
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _write_csv(path: Path, found: Clustering) -> None:
    names = found.paths or [str(row) for row in range(len(found.labels))]
    write_assignments(path, names, found.labels, found.distances)


def _write_parquet(path: Path, found: Clustering) -> None:
    write_labels(path, found.stores, found.labels, found.distances)
