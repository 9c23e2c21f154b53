"""`wildmerge compare` agrees with errorbars and statsmodels on the files that lm-eval itself writes."""

import csv
import json
import math
import shutil
from types import SimpleNamespace

import errorbars
import lm_eval
import numpy as np
import pytest
import yaml
from errorbars.adapters.lm_eval import load_lm_eval_samples
from errorbars.compare import paired_compare
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from statsmodels.stats.contingency_tables import mcnemar

from mini_study import make_task
from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.reporting.pairs import compare_results, outcome
from wildmerge.scoring.reading import Key, read_model
from wildmerge.statistics.of_pairs import compare_pairs

ITEMS = {"mini_one": 150, "mini_two": 60}


def run_lm_eval(model, out, tasks, asked):
    """Score a model and write its files as lm-eval's own command does; return their folder."""
    tracker = EvaluationTracker(output_path=str(out))
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        device="cpu",
        tasks=asked,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        evaluation_tracker=tracker,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, of_task in samples.items():
        tracker.save_results_samples(task_name=task, samples=of_task)
    (file,) = out.rglob("results_*.json")
    return file.parent


def evaluate(model, out, *options):
    """Score a model in float32, if not asked otherwise, by `wildmerge evaluate`; return its folder."""
    tasks = ["--tasks", ",".join(ITEMS), "--tasks-dir", "tasks", "--dtype", "float32"]
    assert main(["evaluate", str(model), "--out", str(out), *tasks, *options]) == 0
    return out


@pytest.fixture(scope="module")
def place(tiny, tmp_path_factory):
    """Two models, scored by lm-eval and by `wildmerge evaluate`; half of mini_two's questions twice.

    `ours` are by the prefix backend, `by_hf` by lm-eval's, as `theirs`; `in_bfloat16` is the base.
    """
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, items in ITEMS.items():
            make_task(folder, name, items=items)
        path = folder / "data/mini_two.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for number in range(0, 30, 2):
            rows[number]["question"] = rows[number + 1]["question"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        metrics = [{"metric": "acc", "weight_by_size": True}]
        group = {"group": "both", "task": [*ITEMS], "aggregate_metric_list": metrics}
        group["metadata"] = {"version": 2.0}  # of the tasks in it: 1.0
        (folder / "tasks/both.yaml").write_text(yaml.safe_dump(group))
        theirs, ours, by_hf = {}, {}, {}
        for name, model in (("base", tiny.base), ("expert", tiny.experts[0])):
            theirs[name] = run_lm_eval(model, folder / "theirs" / name, folder / "tasks", [*ITEMS])
            ours[name] = evaluate(model, folder / "ours" / name)
            by_hf[name] = evaluate(model, folder / "by_hf" / name, "--backend", "hf")
        in_bfloat16 = evaluate(tiny.base, folder / "in_bfloat16", "--dtype", "bfloat16")
        group_run = run_lm_eval(tiny.base, folder / "theirs/group", folder / "tasks", ["both"])
    return SimpleNamespace(
        folder=folder,
        theirs=theirs,
        ours=ours,
        by_hf=by_hf,
        in_bfloat16=in_bfloat16,
        group=group_run,
    )


def by_errorbars(place, task, clusters=None):
    scores = []
    for name in ("expert", "base"):
        (file,) = place.theirs[name].glob(f"samples_{task}_*.jsonl")
        scores.append(load_lm_eval_samples(file, metric="acc").score)
    return paired_compare(*scores, clusters=clusters), scores


def questions(place, task):
    (file,) = place.theirs["base"].glob(f"samples_{task}_*.jsonl")
    return [json.loads(line)["doc"]["question"] for line in file.open()]


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["theirs", "ours"])
def test_numbers_are_those_of_errorbars_and_statsmodels(place, kind):
    """Two discordant items are added to our variances; without them, all is equal to 1e-9."""
    places = getattr(place, kind)
    compared, remarks = compare_results([places["base"], places["expert"]], None)
    assert errorbars.__version__ >= "0.2" and not remarks
    rows = {row.label: row for row in compared.itertuples()}
    variances = []
    for task, count in ITEMS.items():
        found, (ours, reference) = by_errorbars(place, task, clusters=questions(place, task))
        row = rows[task]
        assert row.estimate_points / 100 == pytest.approx(found.mean_diff, abs=1e-9)
        assert 0 < row.gained == found.mcnemar.n10 and 0 < row.lost == found.mcnemar.n01
        table = np.histogram2d(ours, reference, bins=2)[0]
        assert row.mcnemar_p == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-9)
        assert row.mcnemar_p == pytest.approx(found.mcnemar.p_value, abs=1e-9)
        sizes = np.unique(questions(place, task), return_counts=True)[1]
        added = 2 * (sizes @ sizes) / count / count**2
        stderr = found.se_clustered if task == "mini_two" else found.se_paired
        assert math.sqrt((row.stderr_points / 100) ** 2 - added) == pytest.approx(stderr, abs=1e-9)
        variances.append(stderr**2 + added / 2)
    mean = rows[""]
    both = (rows["mini_one"].estimate_points + rows["mini_two"].estimate_points) / 2
    assert mean.estimate_points == pytest.approx(both, abs=1e-9)
    assert mean.stderr_points == pytest.approx(100 * math.sqrt(sum(variances)) / 2, abs=1e-9)
    p = sorted([rows["mini_one"].p, rows["mini_two"].p])
    holm = [min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])]
    assert sorted([rows["mini_one"].p_adjusted, rows["mini_two"].p_adjusted]) == pytest.approx(holm)


def test_ours_and_lm_evals_files_are_compared_with_each_other(place):
    compared, remarks = compare_results([place.theirs["base"], place.by_hf["base"]], None)
    assert not remarks and set(compared["gained"] + compared["lost"]) == {0}
    assert set(compared["label"]) == {*ITEMS, ""}
    mixed, _ = compare_results([place.theirs["base"], place.by_hf["expert"]], "acc_norm")
    alike, _ = compare_results([place.by_hf["base"], place.by_hf["expert"]], "acc_norm")
    assert mixed["p"].tolist() == alike["p"].tolist()


def test_a_group_of_lm_eval_is_one_benchmark_of_all_its_items(place):
    (file,) = place.group.glob("results_*.json")
    found = read_model(file, None)
    assert [*found] == [Key("both", "")]
    group = json.loads(file.read_text())["groups"]["both"]["acc,none"]
    assert found["both", ""].score == pytest.approx(group, abs=1e-9)
    assert len(found["both", ""].values) == sum(ITEMS.values())


def test_a_group_is_compared_whoever_scored_it(place, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(place.folder)
    ours = evaluate(tiny.base, tmp_path / "ours", "--tasks", "both", "--backend", "hf")
    compared, remarks = compare_results([place.group, ours], None)
    assert not remarks and compared["label"].tolist() == ["both", ""]
    assert set(compared["gained"] + compared["lost"]) == {0}


def test_equal_answers_are_no_proof_of_equality():
    """Two benchmarks of 40 items: up to 3.5 points (statistics' acceptance test)."""
    same = {label: np.ones(40) for label in ("one", "two")}
    compared = compare_pairs({"a": same, "b": same}, dict.fromkeys(same))
    mean = compared[compared["label"] == ""].iloc[0]
    assert mean.p == 1
    assert outcome(mean) == (
        "no item is answered differently; a difference up to 3.5 points cannot be excluded"
    )


def test_the_sentence_says_what_was_gained_and_lost():
    right = np.repeat([1.0, 0.0], [500, 500])
    merged = right.copy()
    merged[:41] = 0.0
    merged[500:581] = 1.0
    row = compare_pairs({"a": {"x": right}, "b": {"x": merged}}, {"x": None}).iloc[-1]
    half = 196.2 * math.sqrt((122 / 1000 - 0.04**2) / 999 + 2e-6)  # t(999) = 1.962
    assert outcome(row) == (
        f"+4.0 points (95 % interval +{4 - half:.1f} to +{4 + half:.1f}; "
        "81 items gained, 41 lost): a gain"
    )


# --- one model scored twice -----------------------------------------------------------------------


@pytest.mark.parametrize("again", ["by hf", "in bfloat16"])
def test_one_model_scored_again_shows_what_rescoring_changes(place, again, capsys):
    second = place.by_hf["base"] if again == "by hf" else place.in_bfloat16
    compared, remarks = compare_results([place.ours["base"], second], None)
    assert set(compared["rescored"]) == {again} and not remarks
    mean = compared.iloc[-1]
    differing = compared["gained"].iloc[-1] + compared["lost"].iloc[-1]
    assert (mean.differing, mean.differing_of) == (differing, 210)
    floor = 1.959964 * math.sqrt(differing / 210 * (1 / 150 + 1 / 60)) / 2
    assert mean.floor_points == pytest.approx(100 * floor, rel=1e-6)
    assert main(["compare", str(place.ours["base"]), str(second)]) == 0
    printed = capsys.readouterr().out.splitlines()[0]
    assert f": one model. Scored again {again}, the model answers" in printed
    if differing:
        assert f"{100 * differing / 210:.1f} % of the items differently ({differing} of" in printed
        assert printed.endswith("points are within what rescoring changes")


def test_a_second_score_is_none_of_several_claims(place):
    models = [place.ours["base"], place.by_hf["base"], place.ours["expert"]]
    compared, _ = compare_results(models, None)
    alone, _ = compare_results([models[0], models[2]], None)
    means, mean = compared[compared["label"] == ""], alone.iloc[-1]
    assert means["rescored"].tolist() == ["by hf", ""]
    assert means["p_adjusted"].iloc[1] == mean.p_adjusted == mean.p


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_a_sentence_and_a_table_and_writes_csv(place, tmp_path, capsys):
    out = tmp_path / "compared.csv"
    models = [str(place.by_hf["base"]), str(place.by_hf["expert"]), str(place.theirs["base"])]
    assert main(["compare", *models, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{models[1]} against {models[0]}, in the mean of 2 benchmarks: " in printed
    assert f"{models[2]} against {models[0]}, in the mean of 2 benchmarks: no item is" in printed
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == ["mini_one", "mini_two", ""] * 2
    assert {row["model"] for row in rows} == {*models[1:]}
    assert {row["reference_name"] for row in rows} == {models[0]}


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def copied(place, tmp_path):
    """The expert's files of lm-eval, to be changed."""
    return shutil.copytree(place.theirs["expert"], tmp_path / "copied")


def samples_of(folder, task="mini_one"):
    (file,) = folder.glob(f"samples_{task}_*.jsonl")
    return file, file.read_text().splitlines(keepends=True)


def change(line, **values):
    return json.dumps(json.loads(line) | values) + "\n"


def refuse(place, other, words, metric=None):
    with pytest.raises(Refusal, match=words) as refusal:
        compare_results([place.theirs["base"], other], metric)
    assert "\n" not in str(refusal.value)


def test_an_item_that_would_count_twice_is_refused(place, copied):
    file, lines = samples_of(copied)
    file.write_text("".join([*lines, lines[7]]))
    refuse(place, copied, r"samples_mini_one_.*: item 7 stands there twice")


def test_other_items_are_refused_by_name(place, copied):
    file, lines = samples_of(copied)
    wrong = change(lines[3], doc_hash="0" * 64)
    file.write_text("".join([*lines[:3], wrong, *lines[4:]]))
    refuse(place, copied, "mini_one: item 3 of .* is document [0-9a-f]{16}, of .* 0{16}")


def test_fewer_items_are_refused(place, copied):
    """Also where lm-eval's own score is not there to compare with."""
    (copied / next(copied.glob("results_*.json")).name).unlink()
    file, lines = samples_of(copied)
    file.write_text("".join(lines[:-2]))
    refuse(place, copied, "mini_one: .* has 150 items and .* 148; score both with the same limit")


def test_samples_that_are_not_those_of_the_score_are_refused(place, copied):
    file, lines = samples_of(copied)
    right = json.loads(lines[0])["acc"]
    file.write_text("".join([change(lines[0], acc=1 - right), *lines[1:]]))
    refuse(place, copied, "lm-eval's acc is .* not the mean of these items")


def test_results_without_samples_are_refused(place, copied):
    for file in copied.glob("samples_*"):
        file.unlink()
    refuse(place, copied, "no samples; run lm-eval with --log_samples")
    refuse(place, next(copied.glob("results_*")), "no samples; run lm-eval with --log_samples")


def test_two_runs_in_one_folder_are_told_apart_by_their_results(place, copied):
    for file in [*copied.iterdir()]:
        stem, _, stamp = file.stem.rpartition("_")
        shutil.copy(file, file.with_name(f"{stem}_2020-01-01T00-00-00.000000{file.suffix}"))
    refuse(place, copied, "has mini_(one|two) of several runs; name the results_.*json of one")
    run = copied / "results_2020-01-01T00-00-00.000000.json"
    compared, _ = compare_results([place.theirs["base"], run], None)
    assert len(compared) == 3


def test_several_filters_need_a_choice(place, copied):
    file, lines = samples_of(copied)
    strict = [change(line, filter="strict") for line in lines]
    file.write_text("".join([*lines, *strict]))
    refuse(place, copied, r"once a filter \(none, strict\); name one, as --metric exact_match,none")


@pytest.mark.parametrize(
    ("value", "words"), [("x", "is 'x', no number"), (math.nan, "is nan, no number")]
)
def test_values_that_are_no_numbers_are_refused(place, copied, value, words):
    file, lines = samples_of(copied)
    file.write_text("".join([change(lines[0], acc=value), *lines[1:]]))
    refuse(place, copied, f"acc of item 0: {words}")


def test_a_broken_line_is_refused(place, copied):
    file, lines = samples_of(copied)
    file.write_text("".join(lines)[:-20])
    refuse(place, copied, "samples_mini_one_.*: not valid JSON lines")


def test_another_metric_is_refused_with_the_known_ones(place, copied):
    refuse(place, copied, "unknown metric 'f1'; known: acc, acc_norm", metric="f1")


def test_other_settings_are_refused(place, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(place.folder)
    options = ["--tasks", "mini_one", "--tasks-dir", "tasks", "--dtype", "float32"]
    options += ["--num-fewshot", "1", "--out", str(tmp_path / "few")]
    assert main(["evaluate", str(tiny.base), *options]) == 0
    words = r"mini_one: .* scored with other settings or versions \(num_fewshot 0 and 1\)"
    with pytest.raises(Refusal, match=words):
        compare_results([place.ours["base"], tmp_path / "few"], None)


def test_models_scored_by_other_backends_or_in_other_dtypes_are_refused(place):
    refuse(place, place.ours["expert"], r"were scored with .* \(backend hf and prefix\)")
    refuse(place, place.in_bfloat16, r"\(backend hf and prefix, dtype float32 and bfloat16\)")
    for other, words in (
        (place.by_hf["expert"], "backend prefix and hf"),
        (place.theirs["expert"], "backend prefix and hf"),
    ):
        with pytest.raises(Refusal, match=rf"other settings or versions \({words}\); score both"):
            compare_results([place.ours["base"], other], None)
    with pytest.raises(Refusal, match=r"\(dtype bfloat16 and float32\)"):
        compare_results([place.in_bfloat16, place.ours["expert"]], None)


def rewrite(folder, **values):
    """Change what lm-eval's results say."""
    (file,) = folder.glob("results_*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_models_scored_by_another_lm_eval_are_refused(place, copied):
    rewrite(copied, lm_eval_version="0.4.8")
    refuse(place, copied, r"\(lm_eval 0\.4\.13 and 0\.4\.8\)")


def test_files_that_do_not_say_how_they_were_scored_are_remarked_on(place, copied):
    rewrite(copied, model_source="CUSTOM", config={})
    _, (remark,) = compare_results([place.theirs["base"], copied], None)
    assert remark == (
        f"{copied}: its files do not say backend, dtype; compare only what was scored alike"
    )
    for file in copied.glob("results_*.json"):
        file.unlink()
    _, (remark,) = compare_results([place.theirs["base"], copied], None)
    assert "do not say backend, dtype, lm_eval;" in remark


def test_what_is_not_there_or_not_one_model_is_refused(place):
    refuse(place, place.folder / "nothing", "there is nothing")
    refuse(place, place.folder / "ours", "name the folder of one model in it: .*ours/base")
    refuse(place, place.folder / "theirs", "has samples of several models")
    refuse(place, place.theirs["base"], "named twice")


def test_benchmarks_that_not_all_models_have_are_left_out_and_named(place, copied):
    file, _ = samples_of(copied, "mini_two")
    file.unlink()
    compared, remarks = compare_results([place.theirs["base"], copied], None)
    assert set(compared["label"]) == {"mini_one", ""}
    (remark,) = remarks
    assert remark.endswith("left out, as not all models have it: mini_two")
