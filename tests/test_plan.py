"""The plan's numbers follow from study, lock and results; what it does not know it says."""

import json
import re
import subprocess
import sys

import pytest

from mini_study import make_study
from paper_lock import PARAMETERS, make_paper_lock
from test_paper import PAPER
from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.planning.lock import lock_path, make_lock
from wildmerge.planning.models import list_evaluations, list_models
from wildmerge.planning.plan import placeholder, plan
from wildmerge.scoring.session import Session
from wildmerge.study.file import EvaluationSettings, load_study


def line(text, start):
    """Return the cells of the first line that starts so."""
    (found, *_) = [row for row in text.splitlines() if row.strip().startswith(start)]
    return re.split(r"\s{2,}", found.strip())


def test_the_papers_plan_without_a_lock_and_without_a_network(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "wildmerge.cli", "plan", str(PAPER), "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("paper: 2,608 models in 452 jobs, 16 benchmarks each\n")
    assert line(done.stdout, "Qwen3-8B")[1:5] == ["652", "113", "8.00 B", "?"]
    assert "no lock" in done.stdout


def test_sizes_downloads_and_hours_follow_from_the_lock(tmp_path):
    study = load_study(PAPER)
    lock = make_paper_lock(study)
    text = plan(study, lock, tmp_path, gpu="A100", share=0.5, slots=3)
    weights = PARAMETERS["Qwen/Qwen3-8B"]
    row = line(text, "Qwen3-8B")
    assert row[3] == "8.19 B"
    files = [
        file["size"]
        for reference in ("Qwen/Qwen3-8B", *study.bases["Qwen3-8B"].experts.values())
        for file in lock.checkpoints[reference]["files"].values()
    ]
    assert row[4] == f"{sum(files) / 1e9:.1f} GB"
    tokens = int(line(text, "a model")[5].replace(",", ""))
    evaluate = 652 * tokens * 2 * weights / (312e12 * 0.5) / 3600
    inputs = sum(m.n + 1 for m in list_models(study, lock) if m.base == "Qwen3-8B" and m.n > 1)
    merge = inputs * 2 * weights / 2e9 / 3600
    assert [float(cell) for cell in row[5:]] == pytest.approx(
        [merge, evaluate, merge + evaluate], abs=0.06
    )
    assert line(text, "merged weights of 3 jobs")[1] == f"{3 * 2 * weights / 1e9:.1f} GB"
    assert "model.embed_tokens.weight 151936x4096: 2.5 GB in float32" in text


def test_a_limit_and_one_base_cost_less(tmp_path):
    text = plan(load_study(PAPER, ["Qwen3-4B"], 20), None, tmp_path)
    assert text.startswith("paper-Qwen3-4B-limit20: 652 models in 113 jobs")
    assert line(text, "arc_easy")[1] == "20"
    assert line(text, "mmlu")[1] == f"{57 * 20:,}"
    assert "Llama" not in text


def test_tokens_of_finished_results_replace_recorded_ones(tmp_path, monkeypatch):
    """A task that nobody recorded is unknown until a first model of a base is scored."""
    monkeypatch.chdir(tmp_path)
    study = load_study(make_study(tmp_path, ["llama"]))
    item = {"choices": ["a", "b", "c", "d"], "answer": 0}
    items = [item | {"question": f"what is {letter}?"} for letter in "abcdefghijklmnop"]
    (tmp_path / "data/mini_one.jsonl").write_text("\n".join(map(json.dumps, items)))
    lock = make_lock(study)
    text = plan(study, lock, tmp_path / "results")
    assert "unknown until a first model" in text
    assert line(text, "a model")[1:] == ["?"] * 5
    assert line(text, "all")[-3:] == ["0.0", "?", "?"]
    base = next(model for model in list_models(study, lock) if model.kind == "base")
    evaluation = list_evaluations(study, lock)[0]
    result = evaluation.path(tmp_path / "results", base.recipe_id)
    settings = EvaluationSettings(backend="prefix", dtype="float32")
    session = Session(["mini_one"], settings, tasks_dir=study.tasks_dir)
    folder = lock.folder(base.recipe.base)
    session.score(folder, base.recipe_id, [evaluation], tmp_path / "results")
    tokens = json.loads(result.read_text())["tokens"]
    assert tokens["naive"] > tokens["grouped"] > tokens["computed"] > 0
    counted = [tokens[name] for name in ("requests", "naive", "grouped", "computed")]
    cells = line(plan(study, lock, tmp_path / "results"), "mini_one")
    assert cells[1:] == ["16", *(f"{n:,}" for n in counted), "counted on 16 items with llama"]


def test_counts_do_not_depend_on_the_lock():
    study = load_study(PAPER)
    assert len(list_models(study, placeholder(study))) == 2608


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpu": "H1000"}, "did you mean 'H100'"),
        ({"share": 0}, "--share"),
        ({"slots": 0}, "--slots"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, words):
    with pytest.raises(Refusal, match=words):
        plan(load_study(PAPER), None, tmp_path, **options)


def test_a_lock_of_one_base_serves_a_plan_of_all_and_its_own_recipes(tmp_path, capsys):
    file = tmp_path / "paper.yaml"
    file.write_text(PAPER.read_text())
    make_paper_lock(load_study(file, ["Qwen3-4B"])).write(lock_path(file))
    assert main(["plan", str(file)]) == 0
    text = capsys.readouterr().out
    assert line(text, "Qwen3-4B")[3] == "4.02 B"
    assert line(text, "Qwen3-8B")[3] == "8.00 B"
    results = ["--results", str(tmp_path)]
    assert main(["recipes", str(file), "--bases", "Qwen3-4B", *results]) == 0
    assert len((tmp_path / "paper-Qwen3-4B/recipes.csv").read_text().splitlines()) == 1 + 652
    assert main(["recipes", str(file), *results]) == 1
    assert "does not know" in capsys.readouterr().err
