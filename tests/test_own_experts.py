"""Experts as people save them, in a folder beside the repository, by the README's command alone.

A full fine-tune by transformers' Trainer, a LoRA that trained embedding, head and two added tokens, and
an rsLoRA are merged and scored by a study of one's own. Two kills of the whole process group cost
nothing that was finished, and the merged weights are what PEFT makes of the same experts.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from mini_study import make_task
from tiny_models import make_family

ROOT = Path(__file__).parent.parent
STUDY = {
    "name": "mine",
    "bases": {
        "tiny": {
            "checkpoint": "base",
            "experts": {"full": "full", "chat": "chat-lora", "stable": "rs-lora"},
        }
    },
    "methods": ["task_arithmetic", "ties"],
    "sizes": [2, 3],
    "benchmarks": ["mini_one", {"task": "mini_two", "metric": "acc_norm"}],
    "tasks_dir": "tasks",
    "evaluation": {"dtype": "float32"},
    "models_per_job": 1,
    "keep_weights": True,
}
MODELS = 1 + 3 + 2 * (3 + 1)


@pytest.fixture
def repository(tmp_path):
    """The repository, as a clone of it would look: only what is in it, no results."""
    folder = tmp_path / "wildmerge"
    folder.mkdir()
    for name in ("Snakefile", "workflow", "profiles", "config", "notebooks", "examples"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def mine(tmp_path):
    """A folder beside it with a base, three experts, two tasks and mine.yaml."""
    folder = tmp_path / "mine"
    base = make_family(folder, "qwen3", experts=0).base
    train(AutoModelForCausalLM.from_pretrained(base), base, folder / "full")
    chat = AutoModelForCausalLM.from_pretrained(base)
    chat.resize_token_embeddings(chat.config.vocab_size + 2)
    whole = {"modules_to_save": ["embed_tokens", "lm_head"]}
    train(lora(chat, **whole), base, folder / "chat-lora", added=["<|user|>", "<|assistant|>"])
    train(
        lora(AutoModelForCausalLM.from_pretrained(base), use_rslora=True), base, folder / "rs-lora"
    )
    make_task(folder, "mini_one", items=24)
    make_task(folder, "mini_two", items=24)
    for path in (folder / "tasks").glob("*.yaml"):
        path.write_text(path.read_text().replace("data/", f"{folder}/data/"))
    (folder / "mine.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return folder


def lora(model, **options):
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "up_proj"], **options)
    return get_peft_model(model, config)


def train(model, base, folder, added=()):
    """Train a little and save as a training script does: weights, tokenizer, and Trainer's own files."""
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
    ids = torch.randint(3, 32, (16, 12)).tolist()
    data = Dataset.from_list([{"input_ids": row, "labels": row} for row in ids])
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        save_steps=2,
        learning_rate=1e-2,
        per_device_train_batch_size=4,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    trainer.save_model()


def start(repository):
    """Start the README's command in a process group of its own."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.Popen(
        ["snakemake", "--config", "study=../mine/mine.yaml"],
        cwd=repository,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def results_of(repository):
    return {p: p.stat().st_mtime_ns for p in repository.glob("results/evals/*/*.json")}


def kill_when(repository, number):
    """Run until so many results stand, then kill all of its processes; return those results."""
    process = start(repository)
    while len(results_of(repository)) < number:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return results_of(repository)


@pytest.mark.slow
def test_own_experts_survive_two_kills_by_the_command_of_the_readme(repository, mine):
    first = kill_when(repository, 3)
    second = kill_when(repository, len(first) + 5)
    process = start(repository)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    finished = results_of(repository)
    assert len(finished) == 2 * MODELS
    for known in (first, second):  # what stood at a kill was not computed again
        assert known.items() <= finished.items()
    assert (repository / "results/mine/report.html").exists()
    status = subprocess.run(
        [sys.executable, "-m", "wildmerge", "status", "../mine/mine.yaml"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"mine: {MODELS} of {MODELS} models done; jobs: 0 running, 0 failed" in status
    assert "Nothing to be done" in start(repository).communicate()[0]
    assert not list(repository.glob("results/**/.*partial*"))
    check_weights(repository, mine)


def check_weights(repository, mine):
    """Task Arithmetic of all three is the base plus the mean of what PEFT says that they moved."""
    base = {k: t.double() for k, t in load_file(mine / "base/model.safetensors").items()}
    moved = []
    for name in ("full", "chat-lora", "rs-lora"):
        tensors = whole(mine, name)
        moved.append({k: tensors[k][: len(t)].double() - t for k, t in base.items()})
    expected = {k: t + sum(m[k] for m in moved) / 3 for k, t in base.items()}
    found = [load_file(p) for p in repository.glob("results/merges/*/model.safetensors")]
    assert len(found) == 2 * (3 + 1)
    away = [max(float((t[k] - expected[k]).abs().max()) for k in expected) for t in found]
    assert sorted(away)[0] < 1e-6 < sorted(away)[1]  # one of them is that merge


def whole(mine, name):
    """Return an expert's weights as transformers and PEFT load them."""
    if name == "full":
        return load_file(mine / "full/model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(mine / "base")
    if name == "chat-lora":
        model.resize_token_embeddings(model.config.vocab_size + 2)
    return PeftModel.from_pretrained(model, mine / name).merge_and_unload().state_dict()
