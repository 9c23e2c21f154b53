"""One line under every table that says what its numbers were measured with.

Two tables of two papers can so be distinguished.

Source: the idea is sacreBLEU's; M. Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018.
"""

import pandas as pd

from wildmerge.reporting.tables.study import Tables

SHOWN = ("backend", "dtype", "chat_template", "lm_eval", "transformers", "torch", "wildmerge")
MANY = 4
"""Benchmarks that are named; more are counted."""


def signature(tables: Tables) -> str:
    """Return what decided the numbers: benchmarks, items, shots, subsets and their seed, versions.

    Args:
        tables: the study's tables.
    """
    benchmarks = tables.benchmarks
    labels = list(benchmarks["label"])
    parts = [
        "+".join(labels) if len(labels) <= MANY else f"{len(labels)} benchmarks",
        f"items:{benchmarks['items'].sum():.0f}{_limits(benchmarks)}",
        f"shots:{_values(tables.provenance, 'num_fewshot')}",
        f"subsets:{_subsets(tables)}",
        f"seed:{_values(tables.provenance, 'seed')}",
    ]
    parts += [f"{name}:{_values(tables.provenance, name)}" for name in SHOWN]
    return " | ".join(part for part in parts if not part.endswith(":"))


def _limits(benchmarks: pd.DataFrame) -> str:
    limited = benchmarks["limit"].astype(str).str.strip().ne("")
    return " (the first of each benchmark)" if limited.any() else " (all)"


def _values(provenance: pd.DataFrame, name: str) -> str:
    """Return the values under which a setting or version was found."""
    found = provenance[(provenance["name"] == name) & (provenance["kind"] != "remark")]
    return "/".join(dict.fromkeys(found["value"].astype(str)))


def _subsets(tables: Tables) -> str:
    """Return how many subsets of how many, for each size."""
    merged = tables.curves[tables.curves["n"] > 1]
    texts = []
    for n, rows in merged.groupby("n"):
        known = rows.dropna(subset="subsets_all")
        of_all = f"/{known['subsets_all'].max():.0f}" if len(known) else ""
        texts.append(f"{rows['subsets'].max():.0f}{of_all} of {n}")
    return ", ".join(texts)
