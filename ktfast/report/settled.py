"""The verdict of a run for which `evaluate.headline` settled the comparison before the run."""

from ktfast.evaluation.headline import MEASURES, Difference, Headline, difference
from ktfast.report.formats import amount, percent

_TRAININGS = {"pretext": "the puzzle itself", "labels": "the true labels"}


def settled_finding(headline: Headline, n_test: float | None) -> tuple[str, str, list[str]] | None:
    """Say whether the transferred network beats random weights in the settled comparison.

    Parameters
    ----------
    headline : Headline
        The settled comparison.
    n_test : float, optional
        Number of test images.

    Returns
    -------
    finding : tuple or None
        The outcome ("ahead", "behind" or "even"), the headline, and the sentences of the paragraph.
        None if the accuracies of the two networks are not known.
    """
    ours, theirs = (headline.classes.get(name, []) for name in ("transfer", "random"))
    if not ours or len(ours) != len(theirs) or not n_test:
        return None
    found = difference(ours, theirs, n_test)
    where = f"{MEASURES[headline.measure]} at {headline.layer}"
    outcome, text = _headline(found)
    sentences = [
        f"The comparison was settled before the run: mean per-class accuracy of {where}. The "
        f"transferred network reaches {percent(found.first)}, and the same network with random "
        f"weights reaches {percent(found.second)}. With {amount(n_test)} test images of these "
        f"classes, a difference of up to {100 * found.noise:.1f} points is within the noise (95 % "
        "confidence)."
    ]
    if len(ours) > 1:
        sentences.append(
            f"The {len(ours)} classes differ: for other classes of this kind, the difference "
            f"would be {100 * found.gap:.1f} ± {100 * found.class_noise:.1f} points."
        )
    for name, training in _TRAININGS.items():
        if row := headline.classes.get(name):
            sentences.append(f"Training on {training} gives {percent(sum(row) / len(row))}.")
    return outcome, text, sentences


def _headline(found: Difference) -> tuple[str, str]:
    gap, noise = 100 * found.gap, 100 * found.noise
    if abs(gap) <= noise:
        return "even", f"Transfer and random weights cannot be told apart ({gap:+.1f} points)"
    if gap > 0:
        return "ahead", f"Transfer beats random weights by {gap:.1f} ± {noise:.1f} points"
    return "behind", f"Transfer did not beat random weights: it is {-gap:.1f} points behind"
