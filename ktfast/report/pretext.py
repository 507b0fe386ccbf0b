"""The report's section on the pretext task: pictures of what the network saw, explained."""

from dataclasses import dataclass

from ktfast.errors import DataError
from ktfast.evaluation.json_values import Json, mapping
from ktfast.pretext.pictures import Example, unpacked
from ktfast.report.pictures import DrawnExample, drawn
from ktfast.report.reading import RunReader

SHOWN = 6
"""Number of examples on the page."""
_PIXELS, _TEXTS = "pretext/examples.npz", "pretext/examples.json"


@dataclass(frozen=True)
class PretextSection:
    """Examples of the pretext task.

    Attributes
    ----------
    was_run : bool
        Whether the stage pretext was run.
    title : str
        Name of the task.
    lead : str
        What the pictures show.
    legend : dict of str to str
        Meaning of the squares: "square" and "marked".
    examples : list of DrawnExample
        The examples.
    """

    was_run: bool
    title: str
    lead: str
    legend: dict[str, str]
    examples: list[DrawnExample]


def pretext_section(run: RunReader) -> PretextSection:
    """Examples of the pretext task, as the stage pretext stored them."""
    about, examples = _stored(run)
    legend = {key: str(text) for key, text in mapping(about.get("legend")).items()}
    return PretextSection(
        was_run=run.training("pretext") is not None,
        title=str(about.get("title", "")),
        lead=str(about.get("lead", "")),
        legend={key: legend[key] for key in ("square", "marked") if key in legend},
        examples=[drawn(example) for example in examples[:SHOWN]],
    )


def _stored(run: RunReader) -> tuple[Json, list[Example]]:
    """Read the texts of the section and the examples; both are empty if the run stored none."""
    try:
        if not (run.folder / _TEXTS).is_file():
            return _of_an_earlier_version(run)
        if (about := run.sealed(_TEXTS)) is None:
            return {}, []
        texts = about["examples"]
        panels = {f"panel_{place}": 4 for place in range(len(texts[0]["panels"]))}
        arrays = run.arrays(_PIXELS, panels)
        return about, [] if arrays is None else unpacked(arrays, texts)
    except (KeyError, IndexError, TypeError):
        run.note(_TEXTS, "is damaged")
    except DataError as error:
        run.notes.append(f"{error}.")
    return {}, []


def _of_an_earlier_version(run: RunReader) -> tuple[Json, list[Example]]:
    """Examples of Jigsaw++ that an earlier version stored, without texts beside the pixels."""
    from ktfast.pretext.jigsaw import JigsawPlusPlus as task
    from ktfast.pretext.tile_pictures import PUZZLE_ARRAYS, puzzle_examples

    arrays = run.arrays(_PIXELS, PUZZLE_ARRAYS)
    about = {"title": task.title, "lead": task.lead, "legend": dict(task.legend)}
    return about, [] if arrays is None else puzzle_examples(arrays)
