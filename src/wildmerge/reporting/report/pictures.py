"""Figures as parts of a page: an SVG inside the HTML, whose series a click can highlight."""

import re
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup, escape

from wildmerge.errors import Refusal
from wildmerge.reporting.figures.drawing import KEY

CSS_PIXELS_A_POINT = 1.35 * 96 / 72
"""Larger than in print, so that small letters are read on a screen; two figures fit side by side."""


class Picture(NamedTuple):
    """A figure inside the page: its SVG and its width in CSS pixels."""

    kind: str
    svg: Markup
    width: int
    caption: str
    alternative: str


def read_picture(figures: Path, name: str, *, kind: str, caption: str, alternative: str) -> Picture:
    """Read a figure for a page.

    Args:
        figures: the directory of the study's figures.
        name: of the figure's file, without its ending.
        kind: where on the page it stands.
        caption: how to read it.
        alternative: what it shows, for those who cannot see it.

    Raises:
        Refusal: there is no such figure.
    """
    path = figures / f"{name}.svg"
    if not path.is_file():
        raise Refusal(f"no figure {path}; make it with `wildmerge figures`")
    text = path.read_text(encoding="utf-8")
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', text, re.DOTALL)
    pixels = round(float(width[1]) * CSS_PIXELS_A_POINT) if width else 640
    return Picture(kind, _inline(text, name, alternative), pixels, caption, alternative)


def _inline(text: str, name: str, alternative: str) -> Markup:
    """Return an SVG file as an element of a page: its ids are its own, and it has a name."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(rf' id="{KEY}([^"]*)"', r' data-key="\1"', text)
    text = re.sub(r' id="([^"]+)"', rf' id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    start = f'<svg role="img" aria-label="{escape(alternative)}"'
    return Markup(text.replace("<svg", start, 1))  # drawn by ourselves; names in it are escaped
