"""The report's section on clusters: their sizes, their scores and their most central images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ktfast.errors import DataError
from ktfast.report import pictures, plots
from ktfast.report.reading import RunReader
from ktfast.report.summaries import ClusterSummary

_LABEL_ARRAYS = {"sample_ids": 1, "labels": 1}


@dataclass(frozen=True)
class ClustersSection:
    """Scores, plots and pictures of the clusters.

    Attributes
    ----------
    summary : ClusterSummary, optional
        None if the stage cluster was not run.
    plots : list of Markup
        Cluster sizes and inertia, as SVG.
    montages : list of Montage
        Images of some clusters.
    columns : int
        Largest number of images of a montage.
    absent : str
        What the section says if the stage cluster was not run.
    """

    summary: ClusterSummary | None
    plots: list[Markup]
    montages: list[pictures.Montage]
    columns: int
    absent: str


def clusters_section(run: RunReader) -> ClustersSection:
    """Scores, sizes, convergence and pictures of the clusters."""
    montages: list[pictures.Montage] = []
    arrays = run.arrays("cluster/montage.npz", pictures.MONTAGE_ARRAYS)
    if arrays is not None:
        try:
            folders = run.linked_clusters()
            montages = pictures.montages(
                arrays,
                run.montage_paths(),
                _images_folder(run),
                linked=lambda cluster: folders.get(cluster, ""),
            )
        except DataError as error:
            run.notes.append(f"{error}.")
    objective = run.objective()
    drawn = plots.cluster_plots(cluster_sizes(run), run.inertia())
    return ClustersSection(
        summary=run.clusters(),
        # matplotlib escapes the text that it writes into an SVG.
        plots=[Markup(plot) for plot in drawn],
        montages=montages,
        columns=max((len(montage.images) for montage in montages), default=1),
        absent="Not run."
        if objective == "clusters"
        else f"Not needed: the target learnt with the objective {objective}, and no clusters.",
    )


def cluster_sizes(run: RunReader) -> NDArray[np.int64]:
    """Number of images of each cluster, int64 [k]; empty if unknown."""
    labels, summary = run.arrays("cluster/labels.npz", _LABEL_ARRAYS), run.clusters()
    if labels is None or not len(labels["labels"]) or labels["labels"].min() < 0:
        return np.zeros(0, np.int64)
    n_clusters = int((summary and summary.n_clusters) or 0)
    return np.bincount(labels["labels"].astype(np.int64), minlength=n_clusters)


def _images_folder(run: RunReader) -> Path | None:
    """Folder of the images that have clusters, or None if it is unknown."""
    config = run.options()
    return None if config is None else config.data.folders().get("transfer")
