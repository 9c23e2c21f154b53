"""The notebooks: they hold no outputs, say what a study lacks, and read their own study anywhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import synthetic_results
from wildmerge.reporting import showing
from wildmerge.reporting.figures.study import list_figures
from wildmerge.reporting.notebook import PARAMETERS, execute_notebook
from wildmerge.reporting.printing import in_markdown
from wildmerge.reporting.story import study as story
from wildmerge.reporting.tables.study import aggregate, read_tables

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLISHED = """table,reference,base_model,method,n_merged,n_subsets,reference_accuracy_pct,\
pct_subsets_above_reference,mean_accuracy_delta_points
1,base,tiny-llama,task_arithmetic,2,15,50.3,20,-0.27
3,base,tiny-llama,iso_c,4,15,50.3,40,1.27
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study with a grid, an own method of a strange name, and published numbers."""
    results = tmp_path_factory.mktemp("notebooks") / "results"
    densities = {f"ties density={value}": {"density": value} for value in (0.1, 0.2, 0.4)}
    study = synthetic_results.build(
        results,
        bases=("tiny-llama",),
        tasks={"addition": 0.25, "date_order": 0.5},
        variants={"task_arithmetic": {}, "iso_c": {}, "<own>": {}} | densities,
        items=50,
    )
    published = results / "published.csv"
    published.write_text(PUBLISHED.replace("\\\n", ""))
    aggregate(results, "demo", published)
    return study


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """All notebooks as one: a kernel starts once."""
    first, *others = (nbformat.read(source, as_version=4) for source in SOURCES)
    for other in others:
        first.cells += [c for c in other.cells if PARAMETERS not in c.metadata.get("tags", ())]
    for number, cell in enumerate(first.cells):
        cell["id"] = str(number)  # once in a notebook
    path = tmp_path_factory.mktemp("sources") / "together.ipynb"
    nbformat.write(first, path)
    return path


def shown(notebook: Path) -> tuple[str, int]:
    """All text that an executed notebook shows, and how many pictures."""
    cells = json.loads(notebook.read_text())["cells"]
    data = [output["data"] for cell in cells for output in cell.get("outputs", ())]
    texts = [each.get("text/markdown", each.get("text/html", "")) for each in data]
    return "\n".join("".join(text) for text in texts), sum("image/png" in each for each in data)


def test_the_sources_hold_no_outputs_and_one_cell_that_names_the_tables():
    assert len(SOURCES) == 5
    for source in SOURCES:
        cells = json.loads(source.read_text())["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
        assert sum(PARAMETERS in cell["metadata"].get("tags", ()) for cell in cells) == 1


def test_the_notebooks_show_every_figure_and_chapter_of_a_study(study, together):
    executed = execute_notebook(together, study / "tables", study / "notebooks/together.ipynb")
    tables = read_tables(study / "tables")
    text, pictures = shown(executed)
    assert pictures == len(list_figures(tables))
    for chapter in story.chapters(tables):
        for sentence in chapter.sentences:
            assert in_markdown(sentence) in text, chapter.title
    for sentence in story.answer(tables):
        assert in_markdown(sentence) in text
    assert "2 cells of Tables 1 to 3" in text
    assert not any(in_markdown(lack) in text for lack in showing.LACKS.values())
    assert "<own>" not in text and "<odd" not in text
    assert " at 0x" not in executed.read_text()  # an address would differ on every run


def test_a_study_that_lacks_almost_everything_gets_sentences(together, tmp_path):
    tables = aggregate(synthetic_results.build_poor(tmp_path / "results"), "demo")
    executed = execute_notebook(together, tables, tmp_path / "together.ipynb")
    text, pictures = shown(executed)
    assert pictures == len(list_figures(read_tables(tables)))
    for kind in ("distance", "forgetting", "grid", "published", "ranking", "steps"):
        assert in_markdown(showing.LACKS[kind]) in text
    errors = [
        output
        for cell in json.loads(executed.read_text())["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] in {"error", "stream"}
    ]
    assert not errors  # no warning either


def test_an_executed_notebook_that_is_run_again_reads_its_own_study(study, tmp_path, monkeypatch):
    """Opened from its own folder, as Jupyter does, wherever the study has been moved to."""
    first = SOURCES[0]
    executed = execute_notebook(first, study / "tables", study / "notebooks" / first.name)
    moved = Path(shutil.copytree(study, tmp_path / "moved"))
    again = moved / "notebooks" / first.name
    monkeypatch.chdir(ROOT)
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute"]
    command += ["--ExecutePreprocessor.record_timing=False", "--inplace", str(again)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert shown(again) == shown(executed)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_each_notebook_runs_by_itself_and_gives_the_same_bytes(source, study, tmp_path):
    first = execute_notebook(source, study / "tables", tmp_path / "first.ipynb").read_bytes()
    again = execute_notebook(source, study / "tables", tmp_path / "again.ipynb").read_bytes()
    assert first == again
