"""Find the stale stages of a run: their inputs were made again after the stage finished.

The figures of a stale stage belong to artifacts that the run folder no longer holds. The report
marks stale stages, and does not compare them with other stages.
"""

from collections.abc import Collection, Mapping

from ktfast.report.summaries import StageResult

# The stage that made an input, by the stage and the name of the input. Results of earlier versions
# of ktfast do not name the stages that made their inputs.
_EARLIER = {
    ("transfer", "labels"): "cluster",
    ("evaluate", "transfer"): "transfer",
    ("evaluate", "pretext"): "baseline_pretext",
    ("evaluate", "labels"): "baseline_labels",
}


def source_of(stage: str, name: str, result: StageResult) -> str:
    """Name the stage that made an input of a stage; empty for a file of the user."""
    return result.made_from.get(name) or _EARLIER.get((stage, name), "")


def stale_stages(
    results: Mapping[str, StageResult | None], unfinished: Collection[str]
) -> dict[str, str]:
    """Say which stages are stale, and why.

    Parameters
    ----------
    results : mapping
        Result of each stage by its name, in the order of the pipeline.
    unfinished : collection of str
        Stages that were begun and are not finished.

    Returns
    -------
    stale : dict
        The reason by the name of the stage, such as "cluster was done again after it".
    """
    stale: dict[str, str] = {}
    for stage, result in results.items():
        if result is None:
            continue
        for name, fingerprint in result.inputs.items():
            source = source_of(stage, name, result)
            made = results.get(source)
            if source in unfinished:
                stale[stage] = f"{source} is being done again"
            elif made is not None and made.fingerprint not in ("", fingerprint):
                stale[stage] = f"{source} was done again after it"
            elif source in stale:
                stale.setdefault(stage, f"{source} is stale")
    return stale
