"""Write a run's report: read its artifacts, lay out the sections, render one HTML page."""

import os
import time
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import ktfast
from ktfast.durable import write_bytes
from ktfast.report import sections
from ktfast.report.probes import probe_section
from ktfast.report.reading import RunReader
from ktfast.report.voc import PROTOCOLS, voc_section
from ktfast.report.words import amount, duration, moment, percent


def write_report(run_folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder; it needs no network and no other file.

    Parameters
    ----------
    run_folder : folder of a run, finished or not. Stages that were not run and artifacts that
        are damaged are named in the page.

    Returns
    -------
    path of the page.

    Raises
    ------
    DataError : there is no such folder, or it is not a run's.
    OSError : the page cannot be written.
    """
    run = RunReader(Path(run_folder))
    page = {
        "result": sections.result_section(run),
        "probes": probe_section(run.summary("evaluate")),
        "voc": voc_section({name: run.summary(f"voc/{name}") for name in PROTOCOLS}),
        "puzzles": sections.puzzles_section(run),
        "clusters": sections.clusters_section(run),
        "trainings": sections.trainings_section(run),
        "stages": sections.stages_section(run),
        "images": sections.images_section(run),
        "environment": sections.environment_section(run),
        "config": run.config(),
    }
    files = resources.files("ktfast.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"amount": amount, "percent": percent, "duration": duration}
    template = environment.from_string((files / "template.html.j2").read_text("utf-8"))
    text = template.render(
        name=run.folder.resolve().name,
        style=Markup((files / "style.css").read_text("utf-8")),
        version=ktfast.__version__,
        written=moment(time.time()),
        notes=run.notes,
        **page,
    )
    path = run.folder / "report.html"
    write_bytes(path, text.encode())
    return path
