"""The study's report: one HTML file that opens from disk, with its figures and tables inside.

The page is laid out in `templates/report.html.j2`; this module gathers what it shows. Nothing is
loaded from a network, and the only links lead to the CSV files beside the report.
"""

import base64
import os
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from wildmerge.errors import Refusal
from wildmerge.reporting import story
from wildmerge.reporting.appearance import slug, variant_label
from wildmerge.reporting.paper_tables import CAPTIONS, REFERENCES, layout, sizes
from wildmerge.reporting.printing import fixed, per_cent, signed
from wildmerge.reporting.tables import Tables, read_tables
from wildmerge.statistics.comparisons import GAIN, NOISE, half_width, verdicts
from wildmerge.storage.files import write_atomically

SHOWN = 60  # rows of provenance on the page; warnings, which come last, can be many
HOW_TO_READ = {
    "accuracy": "Mean accuracy over all benchmarks against the number n of merged experts; n = 1 "
    "is the mean of the single experts. A line above the dashed one beats the base, above the "
    "dotted one the best single expert. Bands are one standard deviation over subsets, where there "
    "are several. Scales differ between panels.",
    "update-norm": "How far merging moves the weights: L2 norm of (merged - base) over all "
    "parameters, mean over subsets.",
    "experts": "Each expert's gain over its base on each benchmark, in points. Blue is a gain, red "
    "a loss; grey numbers are within noise.",
    "cosines": "The cosine between the task vectors of every two experts, estimated from a "
    "sample of their weights: 1 is the same direction, 0 is none in common.",
    "benchmarks": "The same curves for each benchmark. Dashed is the base, dotted a random choice.",
    "published": "Mean difference to the reference in points, a point a cell of Tables 1 to 3: ours "
    "against the published one. On the dotted line both are equal; hollow points are other variants "
    "of a published method.",
    "grid": "Mean accuracy against one hyperparameter, a line for each number n of experts.",
}


class Picture(NamedTuple):
    """A figure inside the page: its SVG as a data URI, how to read it, and its text alternative."""

    name: str
    uri: str
    caption: str
    alternative: str


def write_report(tables: Path, figures: Path, out: Path, study: str) -> Path:
    """Write a study's report.

    Args:
        tables: the directory of the study's tables.
        figures: the directory of its figures; the SVG files are put into the page.
        out: the HTML file to write.
        study: the study's name.

    Returns:
        The path of the report.

    Raises:
        Refusal: if a table or figure is missing.
    """
    read = read_tables(tables)
    bases = list(read.curves["base"].unique())
    chapters = {chapter.title: chapter.sentences for chapter in story.chapters(read)}
    page = _template().render(
        study=study,
        answer=story.answer(read),
        question=_question(read),
        chapters=chapters,
        accuracy=_picture(figures, "accuracy", story.answer(read)[0]),
        norm=_picture(figures, "update-norm", "L2 norm of the update against n"),
        experts=_picture(figures, "experts", "Gain of each expert on each benchmark")
        if len(read.experts)
        else None,
        inspection=_inspection(read),
        cosines=_picture(figures, "cosines", "Cosines between task vectors")
        if len(read.cosines)
        else None,
        benchmarks=[
            _picture(figures, f"benchmarks-{slug(base)}", f"{base}: accuracy on each benchmark")
            for base in bases
        ],
        published=_picture(figures, "published", "Our differences against the published ones")
        if len(read.published_comparison)
        else None,
        published_cells=read.published_comparison.to_dict("records"),
        grids=[_picture(figures, path.stem, path.stem) for path in _grids(figures)],
        paper_tables=[_paper_table(number, read) for number in (1, 2, 3)],
        base_rows=_base_rows(read),
        expert_tables=[_expert_table(read, base) for base in bases if len(read.experts)],
        recipes=_recipes(read),
        provenance=read.provenance.head(SHOWN).to_dict("records"),
        hidden=max(0, len(read.provenance) - SHOWN),
        files=_links(tables, out),
    )
    return write_atomically(out, page)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wildmerge"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"fixed": fixed, "per_cent": per_cent, "signed": signed}
    return environment.get_template("report.html.j2")


def _question(tables: Tables) -> dict[str, Any]:
    """The numbers in the study's question."""
    models = tables.models
    merges = models[models["kind"] == "merge"]
    return {
        "merges": len(merges),
        "variants": merges["variant"].nunique(),
        "bases": list(models["base"].unique()),
        "experts": int((models["kind"] == "expert").sum()),
        "sizes": sorted(int(n) for n in merges["n"].unique()),
        "benchmarks": len(tables.benchmarks),
    }


def _picture(figures: Path, name: str, alternative: str) -> Picture:
    path = Path(figures) / f"{name}.svg"
    if not path.is_file():
        raise Refusal(f"no figure {path}; make it with `wildmerge figures`")
    uri = "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
    kind = name if name in HOW_TO_READ else name.partition("-")[0]
    return Picture(name, uri, HOW_TO_READ[kind], alternative)


def _grids(figures: Path) -> list[Path]:
    return sorted(Path(figures).glob("grid-*.svg"))


def _paper_table(number: int, tables: Tables) -> dict[str, Any]:
    """One of the paper's tables as blocks of lines, for the template to lay out."""
    frame = (tables.table1, tables.table2, tables.table3)[number - 1]
    return {
        "number": number,
        "title": CAPTIONS[number],
        "reference": REFERENCES["best_expert" if number == 2 else "base"],
        "sizes": sizes(frame),
        "blocks": list(layout(frame)),
    }


def _inspection(tables: Tables) -> list[dict[str, Any]]:
    """Each base's experts as they were found before merging: those that merge, and those that do not."""
    return [
        {
            "base": base,
            "merge": int((rows["merges"] == "yes").sum()),
            "rows": rows.to_dict("records"),
        }
        for base, rows in tables.inspection.groupby("base", sort=False)
    ]


def _base_rows(tables: Tables) -> list[dict[str, Any]]:
    """A row a benchmark: chance, items, and each base's score with its 95 % half-width."""
    scores = tables.scores[tables.scores["kind"] == "base"]
    rows = []
    for _, of_task in scores.groupby("task", sort=False):
        first = of_task.iloc[0]
        cells = [
            {
                "score": cell.score,
                "half": half_width(cell.stderr),
                "clear": verdicts(cell.score - cell.chance, cell.stderr) == GAIN,
            }
            for cell in of_task.itertuples()
        ]
        columns = {"label": first["label"], "chance": first["chance"], "count": first["items"]}
        rows.append(columns | {"cells": cells})
    return rows


def _expert_table(tables: Tables, base: str) -> dict[str, Any]:
    """Each expert of a base: its mean accuracy and its gain on each benchmark."""
    cells = tables.experts[tables.experts["base"] == base]
    models = tables.models[(tables.models["base"] == base) & (tables.models["kind"] == "expert")]
    rows = []
    for model in models.itertuples():
        gains = cells[cells["expert"] == model.experts]
        rows.append(
            {
                "expert": model.experts,
                "accuracy": model.accuracy,
                "delta": _gain(model.delta_points, model.delta_stderr_points),
                "gains": [_gain(g.delta_points, g.delta_stderr_points) for g in gains.itertuples()],
            }
        )
    return {"base": base, "labels": list(cells.drop_duplicates("task")["label"]), "rows": rows}


def _gain(points: float, stderr: float) -> tuple[float, bool]:
    return points, bool(verdicts(points, stderr) == NOISE)


def _recipes(tables: Tables) -> list[dict[str, Any]]:
    """Each variant's hyperparameters and how many models it made."""
    merges: pd.DataFrame = tables.models[tables.models["kind"] == "merge"]
    groups = merges.groupby(["method", "variant", "parameters"], sort=False).size()
    return [
        {"label": variant_label(variant, method), "parameters": parameters, "models": int(count)}
        for (method, variant, parameters), count in groups.items()
    ]


def _links(tables: Path, out: Path) -> list[tuple[str, str]]:
    """Names and relative links of the CSV files beside the report."""
    folder = Path(os.path.relpath(Path(tables).resolve(), Path(out).resolve().parent))
    return [(f"{name}.csv", (folder / f"{name}.csv").as_posix()) for name in Tables._fields]
