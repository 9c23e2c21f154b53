"""The study's report: one HTML file that opens from disk, with its figures and tables inside.

The page is laid out in `templates/report.html.j2` from what `page.py` gathers. Nothing is loaded from a
network, and the only links lead to the CSV files beside the report.
"""

import base64
import re
from pathlib import Path
from typing import NamedTuple

import jinja2

from wildmerge.errors import Refusal
from wildmerge.reporting import page, story
from wildmerge.reporting.figures import list_figures
from wildmerge.reporting.printing import MINUS
from wildmerge.reporting.remarks import gaps, remarks
from wildmerge.reporting.tables import read_tables
from wildmerge.storage.files import write_atomically

SHOWN = 60  # remarks and rows of provenance on the page
HOW_TO_READ = {
    "accuracy": "Mean accuracy over all benchmarks against the number n of merged experts; n = 1 "
    "is the mean of the single experts. A line above the dashed one beats the base, above the "
    "dotted one the best single expert. Bands are one standard deviation over subsets, where there "
    "are several. Scales differ between panels.",
    "update-norm": "How far merging moves the weights: L2 norm of (merged - base) over all "
    "parameters, mean over subsets.",
    "experts": "Each expert's gain over its base on each benchmark, in points. Blue is a gain, red "
    "a loss; grey numbers are within noise.",
    "cosines": "The cosine between the task vectors of every two experts, of all "
    "their weights: 1 is the same direction, 0 is none in common.",
    "benchmarks": "The same curves for each benchmark. Dashed is the base, dotted a random choice.",
    "published": "Mean difference to the reference in points, a point a cell of Tables 1 to 3: ours "
    "against the published one. On the dotted line both are equal; hollow points are other variants "
    "of a published method.",
    "grid": "Mean accuracy against one hyperparameter, a line for each number n of experts.",
}
CSS_PIXELS_A_POINT = 96 / 72


class Picture(NamedTuple):
    """A figure inside the page: its SVG as a data URI, and its own width in CSS pixels."""

    kind: str
    uri: str
    width: int
    caption: str
    alternative: str


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
        chapters={chapter.title: chapter.sentences for chapter in story.chapters(read)},
        gaps=gaps(read),
        remarks=remarks(read),
        pictures=[_picture(figures, each.name, each.shows) for each in list_figures(read)],
        base_rows=page.base_rows(read),
        inspections=page.inspections(read),
        expert_tables=page.expert_tables(read),
        paper_tables=page.paper_tables(read),
        published_rows=page.published_rows(read),
        recipe_rows=page.recipe_rows(read),
        found_rows=found[:SHOWN],
        shown=SHOWN,
        hidden=max(0, len(found) - SHOWN),
        files=page.links(tables, out),
    )
    return write_atomically(out, text)


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
    return environment.get_template("report.html.j2")


def _picture(figures: Path, name: str, alternative: str) -> Picture:
    path = Path(figures) / f"{name}.svg"
    if not path.is_file():
        raise Refusal(f"no figure {path}; make it with `wildmerge figures`")
    content = path.read_bytes()
    uri = "data:image/svg+xml;base64," + base64.b64encode(content).decode()
    width = re.search(rb'<svg[^>]*? width="([\d.]+)pt"', content, re.DOTALL)
    pixels = round(float(width[1]) * CSS_PIXELS_A_POINT) if width else 640
    kind = name if name in HOW_TO_READ else name.partition("-")[0]
    return Picture(kind, uri, pixels, HOW_TO_READ[kind], alternative)
