"""Report, story and notebook: self-contained, computed from the tables, same bytes each time."""

import html
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import synthetic_results
from wildmerge.errors import Refusal
from wildmerge.reporting import story
from wildmerge.reporting.figures import draw_figures
from wildmerge.reporting.printing import signed
from wildmerge.reporting.report import write_report
from wildmerge.reporting.tables import aggregate, read_tables

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("report") / "results"
    study = synthetic_results.build(
        results,
        bases=("tiny-llama",),
        tasks={"addition": 0.25, "date_order": 0.5},
        variants={"task_arithmetic": {"lambda": 1.0}, "iso_c": {}, "<own>": {}},
    )
    draw_figures(aggregate(results, "demo"), study / "figures")
    return study


@pytest.fixture(scope="module")
def page(study) -> str:
    report = write_report(study / "tables", study / "figures", study / "report.html", "demo")
    return report.read_text()


class Loads(HTMLParser):
    """Collects what a browser would load or run, and where links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.loads += [value for key in ("src", "srcset", "data") if (value := given.get(key))]
        if link := given.get("href"):
            (self.links if tag == "a" else self.loads).append(link)


def test_the_report_loads_nothing_from_outside(page, study):
    found = Loads(page)
    assert "script" not in found.tags
    assert "url(" not in page and "@import" not in page
    assert len(found.loads) == 5  # accuracy, cosines, experts, one base's benchmarks, norms
    assert all(load.startswith("data:image/svg+xml;base64,") for load in found.loads)
    assert found.links and all((study / link).is_file() for link in found.links)


def test_the_report_shows_the_tables_numbers_and_escapes_names(page, study):
    tables = read_tables(study / "tables")
    for sentence in story.answer(tables):
        assert sentence in html.unescape(page)
    for delta in tables.table1["delta_points"]:
        assert f">{signed(delta)}<" in page
    assert "<own>" not in page and "&lt;own&gt;" in page
    assert "lm_eval" in page and "2.13.0" in page


def test_the_report_says_which_experts_were_skipped_and_why(page):
    assert "tiny-llama: 6 of 7 experts merge" in page
    (row,) = [line for line in page.splitlines() if "&lt;odd&gt;" in line]
    assert "skipped" in row and "model_type &#39;other&#39;" in row


def test_the_same_tables_give_the_same_report(page, study, tmp_path):
    again = write_report(study / "tables", study / "figures", study / "again.html", "demo")
    assert again.read_text() == page


def test_a_missing_figure_is_refused(study, tmp_path):
    with pytest.raises(Refusal, match="wildmerge figures"):
        write_report(study / "tables", tmp_path, tmp_path / "report.html", "demo")


def test_the_story_counts_what_the_tables_hold(study):
    tables = read_tables(study / "tables")
    merges = [row for row in tables.models.itertuples() if row.kind == "merge"]
    above = sum(row.accuracy > row.base_accuracy for row in merges)
    beat = sum(row.accuracy > row.best_expert_accuracy for row in merges)
    first = story.answer(tables)[0]
    assert f"{above} of {len(merges)} merged models" in first
    assert f"{beat} of {len(merges)}" in first


def test_the_story_does_not_claim_a_gain_within_noise(study):
    tables = read_tables(study / "tables")
    noisy = tables._replace(curves=tables.curves.assign(delta_stderr_points=1000.0))
    assert story.answer(noisy)[0].startswith("Merging did not help beyond noise")
    assert "within noise" in story.answer(noisy)[1]


def test_the_notebook_is_clean_and_runs_on_the_tables(study, tmp_path):
    source = json.loads((ROOT / "notebooks/study.ipynb").read_text())
    assert not any(cell.get("outputs") for cell in source["cells"])
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute"]
    command += ["--ExecutePreprocessor.record_timing=False", "--output-dir", str(tmp_path)]
    environment = os.environ | {"WILDMERGE_TABLES": str(study / "tables")}
    subprocess.run(
        [*command, str(ROOT / "notebooks/study.ipynb")],
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    executed = (tmp_path / "study.ipynb").read_text()
    assert "image/png" in executed
    assert " at 0x" not in executed  # an address would differ on every run
    sentence = json.dumps(story.answer(read_tables(study / "tables"))[0])[1:-1]
    assert sentence in executed or sentence.encode().decode("unicode_escape") in executed
