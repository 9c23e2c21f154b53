"""Sub-commands on the results of a study: tables, figures, report."""

from __future__ import annotations

import argparse


def aggregate(arguments: argparse.Namespace) -> None:
    """Make the tables of a study."""
    from wildmerge.reporting.tables import aggregate

    tables = aggregate(arguments.results, arguments.study, arguments.published)
    print(f"tables: {tables}")


def figures(arguments: argparse.Namespace) -> None:
    """Draw the figures of a study."""
    from wildmerge.reporting.figures import draw_figures

    print(f"figures: {len(draw_figures(arguments.tables, arguments.out))} files in {arguments.out}")


def report(arguments: argparse.Namespace) -> None:
    """Write the report of a study."""
    from wildmerge.reporting.report import write_report

    write_report(arguments.tables, arguments.figures, arguments.out, arguments.study)
    print(f"report: {arguments.out}")
