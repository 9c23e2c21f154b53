"""The study's report: one HTML file that opens from disk, with its figures and tables inside.

The page is laid out in `templates/report.html.j2` from what `page.py` gathers. Nothing is loaded from a
network, and the only links lead to the CSV files beside the report.
"""

from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from wildmerge.reporting.appearance import slug
from wildmerge.reporting.figures.captions import HOW_TO_READ
from wildmerge.reporting.figures.study import Drawing, list_figures
from wildmerge.reporting.printing import MINUS
from wildmerge.reporting.report import general, page
from wildmerge.reporting.report.pictures import Picture, read_picture
from wildmerge.reporting.report.remarks import gaps, remarks
from wildmerge.reporting.report.signature import signature
from wildmerge.reporting.story import study as story
from wildmerge.reporting.tables.study import read_tables
from wildmerge.storage.files import write_atomically

SHOWN = 60  # remarks and rows of provenance on the page
IN_SHORT = {  # the chapters' names in the navigation
    story.BASES: "Bases",
    "What did fine-tuning do?": "Experts",
    "Did merging help, and which method?": "Methods",
    "Which method is best at which size?": "Leaders",
    "Which hyperparameters?": "Hyperparameters",
    "Do more experts help?": "Sizes",
    "Could the gain have been predicted?": "Prediction",
    "How far can these numbers be trusted?": "Trust",
}


def write_report(
    tables: Path, figures: Path, out: Path, study: str, title: str | None = None
) -> Path:
    """Write a study's report.

    Args:
        tables: the directory of the study's tables.
        figures: the directory of its figures; the SVG files are put into the page.
        out: the HTML file to write.
        study: the study's name.
        title: its headline; default a general one.

    Returns:
        The path of the report.

    Raises:
        Refusal: if a table or figure is missing.
    """
    read = read_tables(tables)
    found = page.found_rows(read)
    text = _template().render(
        study=study,
        title=title or "Does merging help?",
        answer=story.answer(read),
        question=page.question(read),
        general=general.general_table(read),
        chapters={chapter.title: chapter.sentences for chapter in story.chapters(read)},
        short=IN_SHORT,
        signature=signature(read),
        gaps=gaps(read),
        remarks=remarks(read),
        pictures=[_picture(Path(figures), each) for each in list_figures(read)],
        base_rows=page.base_rows(read),
        inspections=page.inspections(read),
        expert_tables=page.expert_tables(read),
        paper_tables=page.paper_tables(read),
        published_rows=page.published_rows(read),
        checkpoints=general.checkpoint_rows(read),
        recipe_rows=page.recipe_rows(read),
        found_rows=found[:SHOWN],
        shown=SHOWN,
        hidden=max(0, len(found) - SHOWN),
        files=page.links(tables, out),
        css=_part("report.css"),
        js=_part("report.js"),
    )
    return write_atomically(out, text)


def _part(name: str) -> Markup:
    """Return a style sheet or script of the page."""
    text = resources.files("wildmerge").joinpath(f"templates/{name}").read_text(encoding="utf-8")
    return Markup(text)


def _picture(figures: Path, drawing: Drawing) -> Picture:
    named = {"kind": drawing.kind, "alternative": drawing.shows}
    return read_picture(figures, drawing.name, caption=HOW_TO_READ[drawing.kind], **named)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wildmerge"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["minus"] = lambda text: text.replace("-", MINUS)
    environment.globals["anchor"] = slug
    return environment.get_template("report.html.j2")
