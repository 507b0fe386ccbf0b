"""Write the report of a run: read the artifacts, fill the sections, render one HTML page."""

import functools
import os
import time
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

import ktfast
from ktfast.durable import write_bytes
from ktfast.errors import shown
from ktfast.report import sections
from ktfast.report.clusters import clusters_section
from ktfast.report.formats import amount, duration, moment, percent
from ktfast.report.objective import model_names, words_of
from ktfast.report.pretext import pretext_section
from ktfast.report.probes import probe_section
from ktfast.report.published import published_beside
from ktfast.report.reading import RunReader
from ktfast.report.unlabelled import unlabelled_section
from ktfast.report.voc import PROTOCOLS, voc_section

_FILES = resources.files("ktfast.report")


def write_report(run_folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder.

    The page needs no network and no other file.

    Parameters
    ----------
    run_folder : str or path
        Folder of a run, finished or not. The page names stages that were not run and artifacts
        that are damaged.

    Returns
    -------
    Path
        Path of the page.

    Raises
    ------
    DataError
        The folder does not exist or is no run folder.
    OSError
        The page cannot be written.
    """
    run = RunReader(Path(run_folder))
    train = run.prepared().get("train") or run.prepared().get("pretext")
    beside = published_beside(run.options(), None if train is None else train.classes)
    objective = run.objective()
    names = model_names(objective)
    page = {
        "result": sections.result_section(run),
        "subtitle": words_of(objective).subtitle,
        "probes": probe_section(run.evaluation(), beside, names),
        "voc": voc_section({name: run.voc(name) for name in PROTOCOLS}, beside, names),
        "unlabelled": unlabelled_section(run.unlabelled(), objective),
        "pretext": pretext_section(run),
        "clusters": clusters_section(run),
        "trainings": sections.trainings_section(run),
        "stages": sections.stages_section(run),
        "images": sections.images_section(run),
        "environment": sections.environment_section(run),
        "config": run.config(),
        "stale": run.stale(),
        "copies": sections.copies_section(run),
    }
    text = _template().render(
        name=run.folder.resolve().name,
        style=Markup((_FILES / "style.css").read_text("utf-8")),
        version=ktfast.__version__,
        written=moment(time.time()),
        notes=run.notes,
        **page,
    )
    path = run.folder / "report.html"
    write_bytes(path, shown(text).encode())
    return path


@functools.cache
def _template() -> Template:
    """The page's template; compiling it takes longer than filling it."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"amount": amount, "percent": percent, "duration": duration}
    return environment.from_string((_FILES / "template.html.j2").read_text("utf-8"))
