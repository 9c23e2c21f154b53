"""`wildmerge evaluate` loses no result to a kill, and answers bad input with one line."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from mini_study import make_task
from wildmerge.cli.main import main
from wildmerge.tasks.loading import _unreadable

NAMES = [f"mini_{number}" for number in range(1, 7)]


def evaluate(model, out, *options):
    return ["evaluate", str(model), "--out", str(out), "--dtype", "float32", *options]


def test_a_kill_during_the_fourth_of_six_benchmarks_costs_that_one(tiny, tmp_path, monkeypatch):
    for name in NAMES:
        make_task(tmp_path, name, items=1500 if name == "mini_4" else 12)  # a while in the fourth

    def options(out):
        return evaluate(tiny.base, out, "--tasks", ",".join(NAMES), "--tasks-dir", "tasks")

    command = [sys.executable, "-m", "wildmerge.cli", *options("killed")]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not [*tmp_path.glob("killed/evals/*/mini_3-*.json")]:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("killed/evals/*/*.json")}
    assert sorted(path.name.partition("-")[0] for path in done) == ["mini_1", "mini_2", "mini_3"]

    monkeypatch.chdir(tmp_path)
    for out in ("killed", "undisturbed"):
        assert main(options(out)) == 0
    again = {path: path.stat().st_mtime_ns for path in done}
    assert again == done  # computed once
    files = {
        out: {path.name: path.read_bytes() for path in (tmp_path / out).glob("*.json")}
        for out in ("killed", "undisturbed")
    }
    assert sorted(files["killed"]) == [f"{name}.json" for name in NAMES]
    assert files["killed"] == files["undisturbed"]


def test_scores_are_of_the_model_and_the_settings_that_were_named(tiny, tmp_path, monkeypatch):
    """One folder for all: no score of another model, number of items, examples or metric comes back."""
    make_task(tmp_path, "mini_one", items=40)
    monkeypatch.chdir(tmp_path)
    shared = ["--tasks", "mini_one", "--tasks-dir", "tasks"]
    runs = [
        (tiny.base, []),
        (tiny.experts[0], []),
        (tiny.base, ["--limit", "10"]),
        (tiny.base, ["--num-fewshot", "2"]),
        (tiny.base, ["--metric", "acc_norm"]),
        (tiny.base, ["--backend", "hf"]),
        (tiny.base, []),
    ]
    for number, (model, options) in enumerate(runs):
        for out in ("one", f"own-{number}"):
            assert main(evaluate(model, out, *shared, *options)) == 0
        mine, shared_file = (tmp_path / out / "mini_one.json" for out in (f"own-{number}", "one"))
        assert mine.read_bytes() == shared_file.read_bytes()
    # the metric is read off the same answers; all else is asked anew
    assert len([*tmp_path.glob("one/evals/*/*.json")]) == 5


def refusal_of(capsys, *arguments):
    """Return the one line on stderr with which a command refuses."""
    assert main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def refuse(tiny, tmp_path, monkeypatch, capsys):
    """Run `wildmerge evaluate` on a tiny model and return its one line of refusal."""
    make_task(tmp_path, "mini_one")
    monkeypatch.chdir(tmp_path)
    shared = ["--tasks-dir", "tasks"]

    def run(*options, model=tiny.base):
        return refusal_of(capsys, *evaluate(model, tmp_path / "out", *shared, *options))

    return run


def test_unknown_task(refuse):
    assert "unknown benchmark 'arc_eazy'; did you mean 'arc_easy'" in refuse("--tasks", "arc_eazy")


def test_unknown_metric(refuse):
    line = refuse("--tasks", "mini_one", "--metric", "acc_nrom")
    assert "benchmark mini_one: unknown metric 'acc_nrom'; did you mean 'acc_norm'?" in line


@pytest.mark.parametrize("task", ["arc_easy", "prost"])
def test_task_whose_data_cannot_be_reached(refuse, task):
    hub = {"arc_easy": "allenai/ai2_arc", "prost": "corypaik/prost"}[task]
    line = refuse("--tasks", task)
    assert f"benchmark {task}: its data cannot be read" in line
    assert hub in line
    assert "--task-data" in line


def test_no_password_of_an_address_is_quoted():
    error = OSError("no answer from https://me:secret@host/set?token=secret\nat all")
    line = _unreadable("task", error)
    assert "https://host/set at all" in line
    assert "secret" not in line


def test_own_task_whose_data_file_is_missing(refuse, tmp_path):
    (tmp_path / "data/mini_one.jsonl").unlink()
    assert "data/mini_one.jsonl" in refuse("--tasks", "mini_one")


def test_model_without_tokenizer(refuse, tiny, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).symlink_to(tiny.base / name)
    assert "bare: no tokenizer files" in refuse("--tasks", "mini_one", model=bare)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--limit", "0"), ("--num-fewshot", "-1"), ("--backend", "vlm"), ("--dtype", "float8")],
)
def test_option_out_of_range(refuse, option, value):
    assert f"'{option}'" in refuse("--tasks", "mini_one", option, value)


def test_requests_longer_than_the_context_are_cut_and_counted(tiny, tmp_path, monkeypatch, caplog):
    make_task(tmp_path, "mini_one", items=6)
    monkeypatch.chdir(tmp_path)
    options = ["--tasks", "mini_one", "--tasks-dir", "tasks", "--num-fewshot", "5"]
    assert main(evaluate(tiny.base, "out", *options, "--limit", "4")) == 0
    result = json.loads((tmp_path / "out/mini_one.json").read_text())
    assert result["tokens"]["truncated"] == result["tokens"]["requests"] == 16
    assert "mini_one: 16 of 16 requests are longer than the model's context" in caplog.text


def test_an_adapter_is_scored_as_the_model_that_it_makes_of_its_base(tiny, tmp_path, monkeypatch):
    """The same scores as of the model that PEFT makes of both, which is gone afterwards."""
    make_task(tmp_path, "mini_one")
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny.base, dtype="float32")
    config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    adapted = get_peft_model(model, config)
    adapted.save_pretrained("adapter")
    adapted.merge_and_unload().save_pretrained("whole")
    for path in tiny.base.glob("tokenizer*"):
        shutil.copy(path, "whole")
    options = ["--tasks", "mini_one", "--tasks-dir", "tasks", "--device", "cpu"]
    for name in ("adapter", "whole"):
        assert main(evaluate(name, f"scores-{name}", *options)) == 0
    one, two = (
        json.loads((tmp_path / f"scores-{name}/mini_one.json").read_text())
        for name in ("adapter", "whole")
    )
    assert one["score"] == two["score"]
    assert not list((tmp_path / "scores-adapter").glob(".model-*"))


def test_an_adapter_whose_base_is_not_here_is_refused(tiny, tmp_path, monkeypatch, capsys):
    make_task(tmp_path, "mini_one")
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny.base)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained("adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = "org/base"
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    options = evaluate("adapter", "out", "--tasks", "mini_one", "--tasks-dir", "tasks")
    assert "an adapter of org/base, which is not here; give --base" in refusal_of(capsys, *options)
    assert main([*options, "--base", str(tiny.base)]) == 0


def test_a_hub_model_that_was_not_fetched_is_refused(refuse):
    assert "run `wildmerge fetch org/model`" in refuse("--tasks", "mini_one", model="org/model")


def test_the_chat_template_is_put_around_prompts(tiny, tmp_path, monkeypatch):
    make_task(tmp_path, "mini_one")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.base, "chatty")
    (tmp_path / "chatty/chat_template.jinja").write_text(
        "{% for m in messages %}ask {{ m['content'] }} answer {% endfor %}"
    )
    options = ["--tasks", "mini_one", "--tasks-dir", "tasks", "--device", "cpu"]
    assert main(evaluate("chatty", "plain", *options)) == 0
    assert main(evaluate("chatty", "chat", *options, "--chat-template")) == 0
    plain, chat = (
        json.loads((tmp_path / n / "mini_one.json").read_text()) for n in ("plain", "chat")
    )
    assert chat["settings"]["chat_template"] and not plain["settings"]["chat_template"]
    assert chat["tokens"]["naive"] > plain["tokens"]["naive"]
