"""The paper's study: what its file says, how many models it has, and that planning it is quick."""

import csv
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from paper_lock import PARAMETERS, make_paper_lock
from wildmerge.errors import Refusal
from wildmerge.planning.lock import lock_path
from wildmerge.planning.models import list_jobs, list_models
from wildmerge.study.file import load_study
from wildmerge.tasks.definitions import members_of
from wildmerge.tasks.index import check_benchmarks, stock_tasks

ROOT = Path(__file__).parent.parent
PAPER = ROOT / "config/paper.yaml"
ABLATION = 10 + 9 + 6 + 6  # lambda, density, beta on Task Arithmetic and on TIES; all at n = 12


@pytest.fixture(scope="module")
def paper():
    study = load_study(PAPER)
    return study, make_paper_lock(study)


def published():
    with (ROOT / "results/published/published_tables.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_made_up_lock_has_the_bases_true_sizes(paper):
    _, lock = paper
    for repo, parameters in PARAMETERS.items():
        stored = lock.checkpoints[repo]["tensors"].values()
        assert sum(shape[0] * (shape[1] if shape[1:] else 1) for _, shape in stored) == parameters


def test_there_are_621_models_a_base_and_the_ablations(paper):
    models = list_models(*paper)
    for base in paper[0].bases:
        of_base = [model for model in models if model.base == base]
        kinds = Counter(model.kind for model in of_base)
        assert (kinds["base"], kinds["expert"]) == (1, 12)
        assert kinds["merge"] == 8 * 76 + ABLATION
    assert len(models) == 2484 + 4 * ABLATION
    assert len({model.recipe_id for model in models}) == len(models)


def test_every_model_stands_in_one_job(paper):
    jobs = list_jobs(*paper)
    in_jobs = [model.recipe_id for job in jobs for model in job.models]
    assert sorted(in_jobs) == sorted(model.recipe_id for model in list_models(*paper))
    assert len({job.id for job in jobs}) == len(jobs)
    assert all(len(job.models) <= paper[0].models_per_job for job in jobs)


def test_the_ablations_have_every_point_of_appendix_c(paper):
    def points(method, parameter):
        models = [m for m in list_models(*paper) if m.recipe.method == method and m.n == 12]
        main = [m for m in models if m.recipe.parameters.get("scale", "mean") == "mean"]
        return sorted({m.recipe.parameters[parameter] for m in main})

    lambdas = [0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5, 1.7, 1.9]
    assert points("task_arithmetic", "lambda") == lambdas
    assert points("ties", "density") == pytest.approx([i / 10 for i in range(1, 11)])
    for method in ("task_arithmetic_sb", "ties_sb"):
        assert points(method, "beta") == [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_bases_and_methods_are_called_as_in_the_published_tables(paper):
    rows = published()
    assert {row["base_model"] for row in rows} == {*paper[0].bases, "average"}
    assert {row["method"] for row in rows} < {v.label for v in paper[0].variants}


def metrics(task):
    """Return the metrics that a stock task, or every member of a stock group or tag, reports."""
    members = members_of(stock_tasks(), task).tasks.values()
    return set.intersection(*({e["metric"] for e in m["metric_list"]} for m in members))


def test_the_metric_is_acc_where_the_task_has_it_else_acc_norm(paper):
    check_benchmarks(paper[0], "paper.yaml")
    assert len(paper[0].benchmarks) == 16
    for benchmark in paper[0].benchmarks:
        known = metrics(benchmark.task)
        assert benchmark.metric == ("acc" if "acc" in known else "acc_norm"), benchmark
        assert benchmark.metric in known


def test_a_part_is_a_study_of_its_own_name_with_the_same_models(paper):
    part = load_study(PAPER, ["Qwen3-4B"], 20)
    assert part.name == "paper-Qwen3-4B-limit20"
    assert {benchmark.limit for benchmark in part.benchmarks} == {20}
    ids = {model.recipe_id for model in list_models(*paper) if model.base == "Qwen3-4B"}
    assert {model.recipe_id for model in list_models(part, paper[1])} == ids
    assert load_study(PAPER, list(paper[0].bases)).name == "paper"


@pytest.mark.parametrize(
    ("bases", "limit", "words"),
    [(["Qwen3-4b"], None, "did you mean 'Qwen3-4B'"), (None, 0, "limit: 0"), (None, "x", "'x'")],
)
def test_a_wrong_part_is_refused(bases, limit, words):
    with pytest.raises(Refusal, match=words):
        load_study(PAPER, bases, limit)


@pytest.mark.parametrize(
    ("options", "models", "jobs", "starts"),
    [
        pytest.param((), 2608, 452, 20, marks=pytest.mark.slow),
        (("--config", "bases=[Qwen3-4B]", "limit=20"), 652, 113, 8),
    ],
)
def test_a_dry_run_of_the_study_is_quick_and_counts_right(tmp_path, options, models, jobs, starts):
    """Quick: it takes as much CPU time as that many starts of snakemake, whatever the machine."""
    study = tmp_path / "config/paper.yaml"
    study.parent.mkdir()
    study.write_text(PAPER.read_text())
    shutil.copytree(ROOT / "results/published", tmp_path / "results/published")
    lock = make_paper_lock(load_study(study))
    lock.write(lock_path(study))
    command = [
        *(sys.executable, "-m", "snakemake", "--dry-run", "--nolock", "--cores", "2"),
        *("--snakefile", str(ROOT / "Snakefile"), "--configfile", "config/paper.yaml"),
        *("--workflow-profile", str(ROOT / "profiles/default"), *options),
    ]
    measured = [sys.executable, "-c", MEASURE, *command]
    done = subprocess.run(measured, cwd=tmp_path, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    name = "paper-Qwen3-4B-limit20" if options else "paper"
    assert f"{name}: {models:,} models in {jobs:,} jobs\n" in output
    assert re.search(rf"^models +{jobs}$", output, re.MULTILINE)
    start, busy, peak = map(float, done.stdout.splitlines()[-1].split())
    print(f"{busy:.1f} s, {busy / start:.1f} starts, {peak:.0f} MB")
    assert busy < starts * start
    assert peak < 1000


MEASURE = """
import resource, subprocess, sys

def busy(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=None if command is run else subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

run = sys.argv[1:]
print(busy([*run[:3], "--help"]), busy(run), end=" ")
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3)
"""
"""Runs a command and prints the CPU seconds that its program takes to start and that it takes itself,
which other work does not change, and its peak memory in MB; from a small process, because a child's peak
begins with that of the process it was forked from."""
