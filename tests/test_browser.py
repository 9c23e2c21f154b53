"""The report in a real browser: sorting, highlighting and the CSV buttons, without error or request."""

import html
import json
import re
import shutil
import subprocess

import pytest

import synthetic_results
from wildmerge.reporting.figures.study import draw_figures
from wildmerge.reporting.report.study import write_report
from wildmerge.reporting.tables.study import aggregate

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

LISTEN = """<script>
const problems = [];
addEventListener("error", (event) => problems.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => problems.push(event.blockedURI));
</script>"""
USE = """<script>
const texts = (table, column) => [...document.querySelectorAll(`#${table} tbody tr:not(.block)`)]
  .map((row) => row.cells[column].textContent);
const seen = { before: texts("methods", 1), blocks: [] };
document.querySelectorAll("#methods th button")[1].click();
seen.descending = texts("methods", 1);
document.querySelectorAll("#methods th button")[1].click();
seen.ascending = texts("methods", 1);
document.querySelectorAll("#table1 thead tr:last-child th button")[2].click();
for (const body of document.querySelectorAll("#table1 tbody"))
  seen.blocks.push([...body.rows].map((row) => row.cells[row.cells.length > 1 ? 2 : 0].textContent));
const name = document.querySelector("#methods button.key");
name.click();
seen.key = name.textContent;
seen.marked = [...document.querySelectorAll("tr.on")].map((row) => row.dataset.key);
seen.dimmed = [...document.querySelectorAll("svg .off")].map((part) => part.dataset.key);
document.getElementById("highlight").click();
seen.left = document.querySelectorAll("tr.on, svg .off").length;
let saved = null;
URL.createObjectURL = (blob) => { saved = blob; return "#"; };
HTMLAnchorElement.prototype.click = () => {};
document.querySelector('button.csv[data-table="table1"]').click();
seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
saved.text().then((text) => {
  seen.csv = text;
  seen.problems = problems;
  document.body.innerHTML = "";
  const out = document.createElement("pre");
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script>"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a browser saw when it used the report."""
    folder = tmp_path_factory.mktemp("browser")
    study = synthetic_results.build(
        folder / "results",
        tasks={"addition": 0.25, "date_order": 0.5},
        variants={"task_arithmetic": {}, "ties": {}, "model_stock": {}},
        items=40,
    )
    draw_figures(aggregate(folder / "results", "demo"), study / "figures")
    page = write_report(
        study / "tables", study / "figures", study / "report.html", "demo"
    ).read_text()
    used = folder / "used.html"
    used.write_text(page.replace("<head>", f"<head>{LISTEN}").replace("</body>", f"{USE}</body>"))
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", used.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(html.unescape(re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)[1]))


def number(text):
    return float(re.match(r"[-+]?[\d.]+", text.replace("\u2212", "-"))[0])


def test_nothing_is_requested_and_nothing_fails(seen):
    assert seen["problems"] == []
    assert all(name.startswith("data:") for name in seen["requests"])


def test_a_click_on_a_heading_sorts_by_number_and_again_the_other_way(seen):
    values = [number(text) for text in seen["before"]]
    assert [number(text) for text in seen["descending"]] == sorted(values, reverse=True)
    assert [number(text) for text in seen["ascending"]] == sorted(values)


def test_rows_are_sorted_within_their_block(seen):
    assert len(seen["blocks"]) == 3  # two bases and their mean
    for title, *values in seen["blocks"]:
        assert "%" in title
        assert [number(v) for v in values] == sorted(map(number, values), reverse=True)


def test_a_click_on_a_name_highlights_it_in_tables_and_figures_and_again_ends_it(seen):
    assert set(seen["marked"]) == {seen["key"]} and len(seen["marked"]) >= 3
    assert seen["dimmed"] and seen["key"] not in seen["dimmed"]
    assert seen["left"] == 0


def test_the_csv_is_the_table(seen):
    lines = seen["csv"].splitlines()
    assert len(lines) == 2 + sum(len(block) - 1 for block in seen["blocks"])
    assert '"n = 2"' in lines[0] and '"Method"' in lines[1]
    assert "\u2212" not in seen["csv"]
