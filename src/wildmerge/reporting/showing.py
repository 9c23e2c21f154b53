"""What the notebooks of a study display: sentences, figures and tables, or why there are none."""

import base64
import io
from collections.abc import Callable, Sequence

import pandas as pd
from IPython.display import display

from wildmerge.reporting.figures.captions import HOW_TO_READ
from wildmerge.reporting.figures.study import list_figures
from wildmerge.reporting.printing import fixed, in_markdown
from wildmerge.reporting.story.study import chapters
from wildmerge.reporting.tables.study import Tables

LACKS = {  # kind of figure -> what a study without it lacks
    "cosines": "No cosines: this study's task vectors were not measured (`wildmerge geometry`).",
    "distance": "No figure of distances: the study has fewer than three models with a known distance.",
    "forgetting": "No merged model answered an item otherwise than its base.",
    "grid": "This study has no grid: three variants of one method that differ in one number.",
    "published": "No published tables stand beside this study's (`published:` in its file).",
    "ranking": "No ranking: at no size did several variants give a result.",
    "steps": "No steps: no variant has results at two sizes.",
    "update-norm": "No figure of norms: fewer than two sizes and variants have a known distance.",
}
WIDTH, DPI = 480, 200  # CSS pixels, dots an inch


def say(sentences: Sequence[str], title: str = "") -> None:
    """Display sentences as a list, under their title if there is one."""
    lines = [f"## {in_markdown(title)}\n"] if title else []
    _show("text/markdown", "\n".join([*lines, *(f"- {in_markdown(text)}" for text in sentences)]))


def chapter(tables: Tables, title: str) -> None:
    """Display a chapter of the study's story, or say that there is none."""
    found = {each.title: each.sentences for each in chapters(tables)}
    say(found.get(title, ["This study has nothing to say about it."]), title)


def show(tables: Tables, kind: str) -> None:
    """Display the figures of a kind and how to read them, or what the study lacks for them.

    Args:
        tables: the study's.
        kind: of figures, as in `HOW_TO_READ`.
    """
    found = [drawing for drawing in list_figures(tables) if drawing.kind == kind]
    for drawing in found:
        picture = io.BytesIO()
        drawing.draw().savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
        content = base64.b64encode(picture.getvalue()).decode()
        _show("image/png", content, width=WIDTH, alt=drawing.shows)
    if found:
        _show("text/markdown", f"*How to read this:* {HOW_TO_READ[kind]}")
    else:
        say([LACKS.get(kind, f"This study has nothing to draw as {kind}.")])


def table(
    rows: pd.DataFrame,
    caption: str,
    prints: dict[str, Callable[[float], str]] | None = None,
) -> None:
    """Display rows of a table with their index, or that there are none.

    Args:
        rows: what to show.
        caption: what it is, and its unit.
        prints: how the numbers of a column are printed; others with two decimals and their sign.
    """
    if rows.empty:
        say([f"{caption}: this study has none."])
        return
    numbers = rows.select_dtypes("number").columns
    given = prints or {}
    formats = {column: given.get(column, _signed) for column in numbers}
    styled = rows.style.set_uuid("rows").set_caption(caption).format(formats, escape="html")
    styled.format_index(escape="html").format_index(escape="html", axis="columns")
    _show("text/html", styled.to_html())


def _signed(value: float) -> str:
    return fixed(value, 2, "+")


def _show(kind: str, content: str, **metadata: object) -> None:
    """Display content of a MIME type."""
    display({kind: content}, metadata={kind: metadata}, raw=True)  # type: ignore[no-untyped-call]
