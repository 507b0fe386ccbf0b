"""Stage 3, `ktfast features`: features of the images that are clustered or get pseudo-labels."""

from functools import partial
from typing import Any

from ktfast.config import result_options
from ktfast.durable import sha256_file
from ktfast.errors import ConfigError
from ktfast.features.store import FeatureStore
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import complete_stage
from ktfast.pipeline.steps.extract_features import extract, feature_crop
from ktfast.pipeline.steps.image_sets import set_fingerprint, set_name


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Extract the features of the images of the roles "cluster" and "transfer".

    Parameters
    ----------
    run : RunFolder
        The run.
    redo : bool
        Remove earlier features first.

    Returns
    -------
    results : dict
        Result of each image set by the set's name.

    Raises
    ------
    ConfigError
        `cluster.features` is set, or `features.weights` does not exist.
    """
    if run.config.cluster.features is not None:
        raise ConfigError(
            "cluster.features is set, so the stage features has nothing to extract; leave "
            "cluster.features out to extract features"
        )
    results: dict[str, Any] = {}
    fitted = run.stage(f"features/{set_name(run, 'cluster')}")
    for role in ("cluster", "transfer"):
        name = set_name(run, role)
        if name in results:
            continue
        results[name] = complete_stage(
            run,
            f"features/{name}",
            {
                **result_options(run.config.features),
                "trunk": run.config.pretext.trunk,
                "crop": feature_crop(run.config),
                **_stored_as(run),
            },
            {"images": set_fingerprint(run, role)} | _teacher_input(run),
            partial(extract, run, role, fitted=fitted),
            redo=redo,
            fingerprint=lambda folder: FeatureStore.open(folder).fingerprint,
        )
    return results


def _stored_as(run: RunFolder) -> dict[str, Any]:
    """Give the options of the stage cluster on which the stored rows depend."""
    if not run.config.features.normalized:
        return {}
    config = run.config.cluster
    return {"cluster.normalize": config.normalize, "cluster.pca": config.pca}


def _teacher_input(run: RunFolder) -> dict[str, str]:
    """Give the fingerprint of the teacher's weights, if the run or the user provides them."""
    config = run.config.features
    if config.weights is not None:
        if not config.weights.is_file():
            raise ConfigError(
                f"features.weights {config.weights} does not exist; give a file of weights"
            )
        return {"weights": sha256_file(config.weights)}
    if config.source == "pretext":
        return {"weights": str(run.result("pretext")["fingerprint"])}
    return {}
