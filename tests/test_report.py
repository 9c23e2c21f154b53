"""Report and story: self-contained, computed from the tables, same bytes each time."""

import csv
import html
import json
import math
import re
import warnings
from decimal import ROUND_HALF_EVEN, Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scipy.stats import t

import synthetic_results
from synthetic_results import change_answers
from wildmerge.errors import Refusal
from wildmerge.reporting.appearance import variant_label
from wildmerge.reporting.figures.study import draw_figures, list_figures
from wildmerge.reporting.printing import fixed, signed
from wildmerge.reporting.report.study import write_report
from wildmerge.reporting.story import study as story
from wildmerge.reporting.tables.study import aggregate, read_tables

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


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


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
    """Nothing is there to be loaded, and the page's own policy forbids it."""
    found = Loads(page)
    assert "url(" not in page.replace("url(#", "") and "@import" not in page
    assert not found.loads and "img" not in found.tags
    assert found.tags.count("svg") == len(list_figures(read_tables(study / "tables")))
    assert "default-src 'none'" in page
    assert all((study / link).is_file() for link in found.links if not link.startswith("#"))
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(ids)
    assert {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)} <= set(
        ids
    )


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
    beat = sum(row.delta_every_expert_low_points > 0 for row in merges)
    first = story.answer(tables)[0]
    assert f": {above} of {len(merges)} (" in first
    assert f"and {beat} of {len(merges)} (" in first


def test_the_story_does_not_claim_a_gain_within_noise(study):
    tables = read_tables(study / "tables")
    undecided = tables.comparisons.assign(verdict="undecided")
    first, second, _ = story.answer(tables._replace(comparisons=undecided))
    assert first.startswith("Merging did not help beyond noise")
    assert "0 gain and 0 lose" in second


# --- one number for one cell -------------------------------------------------------------------


def rounded(text: str, digits: int, sign: str = "") -> str:
    """A number of a CSV, rounded by hand: half to even, by its decimal digits."""
    if not text:
        return "\u2013"
    number = Decimal(text).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN)
    return f"{number + 0:{sign}f}"


def test_csv_markdown_latex_and_report_print_one_number_for_one_cell(tmp_path):
    """Forty items make many ties, such as -1.875."""
    study = synthetic_results.build(
        tmp_path, items=40, tasks={"addition": 0.25, "sort_words": 0.25}
    )
    draw_figures(aggregate(tmp_path, "demo"), study / "figures")
    report = write_report(study / "tables", study / "figures", study / "report.html", "demo")
    page = report.read_text().replace("\u2212", "-")
    walked = 0
    for number in (1, 2, 3):
        html_lines = lines_of(page, number)
        latex = (study / f"tables/table{number}.tex").read_text()
        markdown = (study / f"tables/table{number}.md").read_text()
        for cell in rows(study / f"tables/table{number}.csv"):
            title = "Average over bases" if cell["is_average"] == "True" else cell["base"]
            label = variant_label(cell["variant"], cell["method"])
            share = rounded(cell["pct_subsets_above_reference"], 0)
            delta = rounded(cell["delta_points"], 2, "+")
            accuracy = rounded(cell["reference_accuracy_pct"], 1)
            (line,) = (
                line
                for line in markdown.splitlines()
                if line.startswith(f"| {title} ({accuracy} %)")
                and line.split("|")[2].strip() == label
            )
            beyond = cell["verdict"] in {"gain", "loss"}
            assert f" {share} % / {f'**{delta}**' if beyond else delta} " in line
            assert f"{title}}} ({accuracy}\\,\\%)" in latex
            printed = re.escape(rf"$\mathbf{{{delta}}}$" if beyond else f"${delta}$")
            assert re.search(rf"{re.escape(label)} &.*{share} & {printed}", latex)
            assert (share, delta) in html_lines[f"{title} ({accuracy}\u00a0%)", label]
            walked += 1
    assert walked == (2 + 1) * (3 + 1 + 4 + 1) * 4  # bases and mean, variants of 1, 2, 3; sizes


def lines_of(page: str, number: int) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The cells (share, difference) of one of the report's paper tables, by block and label."""
    text = page.split(f"<h3>Table {number}.")[1].split("</table>", maxsplit=1)[0]
    found, block = {}, ""
    for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL):
        texts = [
            html.unescape(re.sub("<.*?>", "", c)) for c in re.findall(r"<t[hd].*?</t[hd]>", row)
        ]
        if "block" in row.split(">")[0]:
            (block,) = texts
        elif block:
            found[block, texts[0]] = list(zip(texts[1::2], texts[2::2], strict=True))
    return found


def test_every_number_of_bases_and_experts_is_the_tables_number_rounded_once(page, study):
    text = html.unescape(page).replace("\u2212", "-")
    for row in rows(study / "tables/scores.csv"):
        if row["kind"] == "base":
            score = rounded(str(100 * float(row["score"])), 1)
            n, variance = int(row["items"]), float(row["stderr"]) ** 2
            spread = 100 * (variance + 2 / n**2) ** 0.5  # with two discordant items
            half = rounded(repr(float(spread * t.ppf(0.975, n - 1))), 1)
            assert f"{score}\u00a0% ± {half}<" in text
    for row in rows(study / "tables/experts.csv"):
        assert f">{rounded(row['delta_points'], 1, '+')}<" in text
    assert fixed(-1.875, 2) == "-1.88" and fixed(0.125, 2) == "0.12" and fixed(2.675, 2) == "2.68"
    assert fixed(-0.004, 2) == "0.00" and fixed(math.nan, 2) == "\u2013"


# --- what the page shows -----------------------------------------------------------------------


def cell_class(page: str, text: str) -> str:
    """The class of the one table cell that starts with this text."""
    (found,) = set(re.findall(rf'<td class="(\w+)">{re.escape(text)}', page))
    return found


def write_again(results: Path, **arguments: str) -> str:
    """Make tables, figures and report of a study; return the page."""
    study = results / "demo"
    draw_figures(aggregate(results, "demo"), study / "figures")
    place = (study / "tables", study / "figures", study / "report.html", "demo")
    return write_report(*place, **arguments).read_text()


@pytest.fixture
def small(tmp_path) -> Path:
    """The results of a study of one base, one method and one benchmark."""
    synthetic_results.build(
        tmp_path, bases=("mine",), tasks={"addition": 0.25}, variants={"ties": {}}, items=40
    )
    return tmp_path


def result_of(results: Path, **wanted: str) -> tuple[Path, dict]:
    """The first result file of a model with these values, and its content."""
    recipe = next(
        row
        for row in rows(results / "demo/recipes.csv")
        if all(row[key] == value for key, value in wanted.items())
    )
    (path,) = (results / "evals" / recipe["recipe_id"]).glob("*.json")
    return path, json.loads(path.read_text())


def test_the_studys_title_is_the_headline(small):
    page = write_again(small, title="Six <experts> of mine")
    assert "<h1>Six &lt;experts&gt; of mine</h1>" in page
    assert "<h1>Does merging help?</h1>" in write_again(small)


def test_only_what_is_clearly_above_chance_is_painted_so(small):
    path, _ = result_of(small, kind="base")
    for correct, wanted in ((11, "undecided"), (36, "gain"), (1, "loss")):
        change_answers(path, acc=[1] * correct + [0] * (40 - correct))
        page = write_again(small)
        assert cell_class(page, f"{fixed(100 * correct / 40, 1)}\u00a0% ±") == wanted


def test_a_difference_is_coloured_only_beyond_noise(small):
    for path in (small / "evals").glob("*/*.json"):
        values = [1] * 20 + [0] * 20
        if path == result_of(small, kind="merge", n="6")[0]:
            values[20] = 1  # one item more than the base: +2.50, and noise
        if path == result_of(small, kind="expert")[0]:
            values = [0] * 40
        change_answers(path, acc=values)
    page = write_again(small)
    assert cell_class(page, "+2.50") == "undecided"
    assert cell_class(page, "\u221250.0") == "loss"  # the expert that lost everything


def test_figures_are_as_wide_as_they_are_drawn_and_read_on_a_screen(small):
    page = write_again(small)
    svg = (small / "demo/figures/accuracy.svg").read_text()
    points = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    widths = [int(width) for width in re.findall(r'style="width: (\d+)px', page)]
    assert widths[0] == round(1.35 * points * 96 / 72) < 500


def test_remarks_on_models_stand_where_they_are_seen(small):
    for report, share in zip(sorted((small / "merges").iterdir()), (3.5, 100, 20), strict=False):
        record = json.loads(report.read_text())
        text = (
            f"6 matrices are rank deficient: outside of the span (up to {share}% in layers.{share})"
        )
        report.write_text(json.dumps(record | {"warnings": [text]}))
    path, record = result_of(small, kind="expert")
    degenerate = {"remarks": ["answers one letter everywhere"]}
    path.write_text(json.dumps(record | degenerate))
    path, record = result_of(small, kind="base")
    fallback = {"backend": "hf", "fallback": "a sliding window"}
    path.write_text(json.dumps(record | {"scored_by": fallback}))
    page = html.unescape(write_again(small))
    seen = page.partition('id="remarks"')[2].partition("<figure>")[0]
    assert "TIES, 3 of 5 models</strong>: 6 matrices" in seen and "up to 100% in" in seen
    assert "up to 3.5%" not in page  # one line a variant, with its largest share
    assert "expert arithmetic of mine, on Addition</strong>: answers one letter" in seen
    assert "base mine, on Addition</strong>: scored by hf: a sliding window" in seen
    found = {(row["kind"], row["value"]) for row in rows(small / "demo/tables/provenance.csv")}
    assert ("remark", "answers one letter everywhere") in found
    assert ("scored by", "a sliding window") in found


def test_the_report_lists_what_is_missing_and_why(small):
    lost, _ = result_of(small, kind="merge", n="4")
    lost.unlink()
    recipe_id = lost.parent.name
    record = {"label": "job", "started": 0.0, "failures": {recipe_id: "out of <memory>"}}
    (small / "demo/status").mkdir()
    (small / "demo/status/0.json").write_text(json.dumps(record | {"error": "failed"}))
    page = write_again(small)
    assert "What is missing" in page
    (line,) = (line for line in page.splitlines() if "mine: TIES, n = 4" in line)
    assert "1 of 2 models are there" in line and "out of &lt;memory&gt;" in line
    assert "1 of 2 subsets" in page


def test_a_template_cannot_ask_for_what_is_not_there(small):
    """Whatever the template shows is a named tuple or a text: a misspelt part is an error."""
    source = (ROOT / "src/wildmerge/templates/report.html.j2").read_text()
    asked = set(
        re.findall(r"\b(\w+)\.(\w+)\b(?!\()", " ".join(re.findall(r"{[{%].*?[}%]}", source)))
    )
    parts = {field for kind in shown_kinds() for field in kind._fields}
    assert asked and {part for name, part in asked if name != "loop"} <= parts


def shown_kinds() -> list[type]:
    from wildmerge.reporting.report import general, page, pictures, remarks
    from wildmerge.reporting.tables import layouts

    modules = (general, layouts, page, pictures, remarks)
    found = [v for module in modules for v in vars(module).values()]
    return [kind for kind in found if hasattr(kind, "_fields")]


def test_two_bases_of_like_names_have_figures_of_their_own(tmp_path):
    bases = ("m-x", "m_x", "m x")
    synthetic_results.build(
        tmp_path, bases=bases, tasks={"addition": 0.25}, variants={"ties": {}}, items=20
    )
    page = write_again(tmp_path)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    drawn = list_figures(read_tables(tmp_path / "demo/tables"))
    assert len(pictures) == len(set(pictures)) == len(drawn) > 4 * len(bases)


def test_a_poor_study_has_honest_blanks_and_no_warning(tmp_path):
    """One expert, one benchmark of a single item, a method that failed, all models equal."""
    results = synthetic_results.build_poor(tmp_path / "results")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = html.unescape(write_again(results))
        first, second, third = story.answer(read_tables(results / "demo/tables"))
    assert first.startswith("Merging did not help beyond noise here: 0 of 1")
    assert "0 gain and 0 lose" in second
    assert "95 % interval \u2212100.00 to +100.00" in third
    assert "too few to see any difference that is possible" in page
    assert "mine: TIES, n = 2: 0 of 1 models are there" in page
    assert not re.search(r"\bnan\b", page.lower())
