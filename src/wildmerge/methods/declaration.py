"""What a method's file says of it: `about` its name, source and presets, kinds of hyperparameters.

All of it is read from the source text (see `catalogue`), so only literals may stand in `about(...)`.
Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

Share = Annotated[float, Field(gt=0, le=1)]
"""A hyperparameter in (0, 1]: a density."""
Threshold = Annotated[float, Field(ge=0, le=1)]
"""A hyperparameter in [0, 1]: a fraction of a cumulative sum."""
Positive = Annotated[float, Field(gt=0)]
"""A hyperparameter above 0 without an upper end."""
Count = Annotated[int, Field(ge=0)]
"""A whole number, 0 or more."""
Weights = list[Annotated[float, Field(gt=0)]]
"""One positive weight an expert, in the order of the recipe's experts."""
NullSpace = Literal["keep", "drop"]
"""What happens to directions in which no expert moved; given by the recipe, not by the method."""

Family = Literal["weight-space", "subspace"]
"""Whether a method works on single weights or on the singular vectors of matrices."""
Preset = Literal["paper", "text"]
"""Which defaults: what the paper's published numbers imply, or what its equations literally say."""
Presets = Mapping[Preset, Mapping[str, Any]]
"""Preset -> the hyperparameters whose values under it are not the defaults."""

Function = TypeVar("Function", bound=Callable[..., Any])


def about(
    *,
    label: str,
    family: Family = "weight-space",
    source: str = "",
    presets: Presets | None = None,
    reads_spectra: bool = False,
    pair: bool = False,
    versioned: bool = False,
) -> Callable[[Function], Function]:
    """Say what tables, figures and `wildmerge methods` print of the method below.

    Args:
        label: its name in print.
        family: which of the paper's tables it belongs to.
        source: where it was published.
        presets: changes to its defaults; the defaults are the preset `paper`.
        reads_spectra: it uses stored singular vectors where a study has them.
        pair: it merges two experts, no more, and their order counts.
        versioned: its results are versioned by hand (`recipe.NUMERICS`) instead of by its code, so that
            rewording it recomputes nothing; for wildmerge's own methods only.
    """
    del label, family, source, presets, reads_spectra, pair, versioned  # read from the source text
    return lambda function: function
