"""Render a comparison as one HTML page that needs no network and no other file."""

import time
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import ktfast
from ktfast.report.comparison import text
from ktfast.report.comparison.compare import Comparison
from ktfast.report.comparison.plot import cost_plots
from ktfast.report.formats import amount, duration, moment


def page_of(comparison: Comparison) -> str:
    """Render a comparison.

    Parameters
    ----------
    comparison : Comparison
        The tables.

    Returns
    -------
    page : str
        The HTML.
    """
    files = resources.files("ktfast.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"amount": amount, "duration": duration}
    template = environment.from_string((files / "comparison" / "page.html.j2").read_text("utf-8"))
    parts = []
    for number, compared in enumerate(comparison.parts, 1):
        tables = [
            {
                "table": table,
                "conclusion": text.conclusion(table),
                "remarks": text.remarks(table),
                # matplotlib escapes the text that it writes into an SVG.
                # Only the first measure of a part is drawn: the costs do not depend on the measure.
                "plots": [Markup(svg) for svg in cost_plots(table, str(number))]
                if table is compared.tables[0]
                else [],
            }
            for table in compared.tables
        ]
        title = text.heading(compared.part, number, len(comparison.parts))
        parts.append({"heading": title, "tables": tables})
    return template.render(
        parts=parts,
        notes=comparison.notes,
        text=text,
        style=Markup((files / "style.css").read_text("utf-8")),
        version=ktfast.__version__,
        written=moment(time.time()),
    )
