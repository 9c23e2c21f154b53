"""Every comparison of a study, computed once: what tables, figures, story and notebooks select from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from wildmerge.statistics.answers import BaseAnswers
from wildmerge.statistics.of_methods import compare_methods
from wildmerge.statistics.of_models import compare_models
from wildmerge.statistics.of_sizes import SizeAnswers, average_over_bases, compare_sizes
from wildmerge.statistics.rows import Row, to_table


def compare(bases: Sequence[BaseAnswers], choices: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Compare all models, sizes and variants of a study.

    Args:
        bases: the answers of each base's models; all answered the same items.
        choices: what one may choose between, variants by the name of the choice: the methods, and the
            values of a hyperparameter.

    Returns:
        One row a comparison, with the columns of `rows.COLUMNS`.
    """
    rows: list[Row] = []
    sizes: list[SizeAnswers] = []
    for answers in bases:
        of_base = [SizeAnswers(answers, size) for size in answers.sizes()]
        sizes += of_base
        rows += compare_models(answers)
        rows += compare_sizes(of_base)
        rows += compare_methods(of_base, choices)
    rows += average_over_bases(sizes)
    return to_table(rows)
