"""The study's figures: which there are, and their files.

Each figure is written as SVG, PDF and PNG with the same bytes for the same tables, as wide as one
column of a journal. A method has one colour and one marker everywhere (see `appearance.py`). They are
drawn in `lines.py` (over the number of experts), `forests.py` (a row a comparison), `heatmaps.py` and
`scatters.py`. A figure that a study has no numbers for is not listed.
"""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from wildmerge.reporting.appearance import slug
from wildmerge.reporting.figures import forests, heatmaps, lines, scatters
from wildmerge.reporting.figures.drawing import DPI, STYLE
from wildmerge.reporting.tables.grids import find_grids
from wildmerge.reporting.tables.study import Tables, read_tables
from wildmerge.storage.files import write_atomically

MARGIN = 0.04  # inches
NO_DATE = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}


class Drawing(NamedTuple):
    """A figure of a study.

    Attributes:
        kind: what is drawn, as in HOW_TO_READ.
        name: of its file.
        shows: what is seen, for those who cannot see it.
        draw: the function that draws it.
    """

    kind: str
    name: str
    shows: str
    draw: Callable[[], Figure]


def draw_figures(tables: Path, out: Path) -> list[Path]:
    """Draw all figures of a study and write them as SVG, PDF and PNG.

    Args:
        tables: the directory that `tables.aggregate` returned.
        out: the directory to write to.

    Returns:
        The written paths, sorted.

    Raises:
        Refusal: if a table is missing.
    """
    read, written = read_tables(tables), []
    for drawing in list_figures(read):
        figure = drawing.draw()
        figure.draw_without_rendering()  # lays out once, for all three formats
        figure.set_layout_engine("none")
        box = figure.get_tightbbox().padded(MARGIN)
        for kind, metadata in NO_DATE.items():
            content = io.BytesIO()
            with mpl.rc_context(STYLE):
                figure.savefig(content, format=kind, metadata=metadata, dpi=DPI, bbox_inches=box)
            path = Path(out) / f"{drawing.name}.{kind}"
            written.append(write_atomically(path, content.getvalue()))
    return sorted(written)


def list_figures(tables: Tables) -> list[Drawing]:
    """Return every figure of a study; each has a file of its own."""
    return [*_of_study(tables), *_of_bases(tables), *_of_grids(tables)]


def _of_study(tables: Tables) -> Iterator[Drawing]:
    """Yield the figures that show all bases."""
    for kind, shows, rows, draw in OF_STUDY:
        if len(rows(tables)):
            yield Drawing(kind, kind, shows, partial(draw, tables))


def _of_bases(tables: Tables) -> Iterator[Drawing]:
    """Yield the figures that each base has one of."""
    for kind, shows, rows, draw in OF_BASES:
        for base in tables.curves["base"].unique():
            if len(rows(tables, base)):
                name = f"{kind}-{slug(base)}"
                yield Drawing(kind, name, f"{base}: {shows}", partial(draw, tables, base))


def _of_grids(tables: Tables) -> Iterator[Drawing]:
    """Yield the figures of the grids of hyperparameters."""
    for grid in find_grids(tables.models):
        if len(lines.of_grid(tables, grid)):
            name = f"grid-{slug(grid.method)}-{slug(grid.parameter)}"
            shows = f"{grid.method}: mean accuracy against {grid.parameter}, a line a size"
            yield Drawing("grid", name, shows, partial(lines.grid_figure, tables, grid))


OF_STUDY = (  # kind, what is seen, the rows that it needs, how it is drawn
    (
        "accuracy",
        "Mean accuracy of each method against the number of merged experts, beside base and best expert",
        lambda tables: lines.made(tables.curves),
        lines.accuracy_figure,
    ),
    (
        "steps",
        "What each further expert adds to each method's mean accuracy, with intervals",
        forests.steps,
        forests.step_figure,
    ),
    (
        "update-norm",
        "How far each method moves the weights, against the number of merged experts",
        lines.norms,
        lines.update_norm_figure,
    ),
    (
        "distance",
        "Gain of each merged model against its distance to the base, a point a model",
        scatters.distances,
        scatters.distance_figure,
    ),
    (
        "published",
        "Our differences against the published ones, a point a cell of Tables 1 to 3",
        scatters.beside,
        scatters.published_figure,
    ),
)
OF_BASES = (  # the same, a figure a base
    (
        "gains",
        "gain of each method at each size over the base, with intervals",
        forests.gains,
        forests.gain_figure,
    ),
    (
        "ranking",
        "how far each method is behind the leading one, at each size, with intervals",
        forests.ranking,
        forests.ranking_figure,
    ),
    (
        "method-benchmarks",
        "gain of each method on each benchmark at the largest size",
        heatmaps.on_benchmarks,
        heatmaps.method_figure,
    ),
    (
        "benchmarks",
        "accuracy of each method on each benchmark against the number of merged experts",
        lines.on_benchmarks,
        lines.benchmark_figure,
    ),
    (
        "forgetting",
        "items that each merged model won and lost against the base, a bar a model",
        forests.changed,
        forests.change_figure,
    ),
    (
        "experts",
        "gain of each expert over the base on each benchmark",
        heatmaps.of_experts,
        heatmaps.expert_figure,
    ),
    (
        "cosines",
        "cosines between the task vectors of every two experts",
        heatmaps.of_pairs,
        heatmaps.cosine_figure,
    ),
)
