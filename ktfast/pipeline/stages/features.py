"""Stage 3, `ktfast features`: features of the images that are clustered or get pseudo-labels."""

from functools import partial
from typing import Any

from ktfast.errors import ConfigError
from ktfast.features.store import FeatureStore
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import complete_stage
from ktfast.pipeline.steps.extract_features import extract
from ktfast.pipeline.steps.image_sets import set_name
from ktfast.pipeline.steps.questions import feature_roles, features_question, images_of


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Extract the features of the images of the roles "cluster" and "transfer".

    If the target learns the features themselves, also extract those of the role "test", on which
    the target is measured.

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
    weights = run.config.features.weights
    if weights is not None and not weights.is_file():
        raise ConfigError(f"features.weights {weights} does not exist; give a file of weights")
    results: dict[str, Any] = {}
    fitted = run.stage(f"features/{set_name(run, 'cluster')}")
    for role in feature_roles(run):
        name = set_name(run, role)
        if name in results:
            continue
        results[name] = complete_stage(
            run,
            f"features/{name}",
            features_question(run, role),
            partial(extract, run, role, fitted=fitted),
            redo=redo,
            fingerprint=lambda folder: FeatureStore.open(folder).fingerprint,
            # Normalised features depend on the images that PCA was fitted to.
            shared_by=images_of(run, "cluster").fingerprint,
        )
    return results
