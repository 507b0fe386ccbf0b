"""The options of clustering."""

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import Field

from ktfast.config.section import Section, side_option


class ClusterConfig(Section):
    """K-means over the features."""

    features: Path | None = side_option(
        None,
        description="features to cluster: a folder that `ktfast features` wrote; an .npz or "
        "Parquet file with paths and features; a folder, pattern or URL of such Parquet files, or "
        "a Lance dataset; or a .npy file, if possible with a .csv or .txt list of paths beside it; "
        "paths are relative to data.transfer; not set: the run's own features",
    )
    n_clusters: int = Field(
        2000, ge=2, description="number of clusters, which is the number of pseudo-labels"
    )
    normalize: Literal["none", "l2", "pca-l2", "pca-whiten-l2"] = Field(
        "l2",
        description="what is done to the features before clustering; l2: each row is scaled to "
        "length 1; pca: rows are projected on their principal axes first; whiten: every axis is "
        "scaled to variance 1",
    )
    pca: int = Field(
        256, ge=1, description="dimensions that PCA keeps, if cluster.normalize asks for PCA"
    )
    init: Literal["k-means||", "k-means++", "random"] = Field(
        "k-means||", description="method that chooses the first centres"
    )
    n_init: int = Field(
        1, ge=1, description="number of starts; the start with the smallest inertia is kept"
    )
    max_iter: int = Field(100, ge=1, description="largest number of iterations of a start")
    tol: float = Field(
        1e-4,
        ge=0,
        description="stop when the squared movements of the centres add up to at most this "
        "share of the features' mean variance, as in scikit-learn",
    )
    memory_budget_gb: float = side_option(
        0,
        ge=0,
        description="GB of GPU memory that K-means may use; features that do not fit are streamed "
        "from host memory; 0: 80 % of the free GPU memory",
    )
    link: bool = side_option(
        False,
        description="also make the folder by_cluster in the run folder: one folder per cluster, "
        "with symbolic links to its images, the most central image first; images are "
        "copied where links are impossible",
    )

    def unused(self) -> Collection[str]:
        """Name the options of PCA if the features are not projected."""
        return () if self.normalize.startswith("pca") else ("pca",)
