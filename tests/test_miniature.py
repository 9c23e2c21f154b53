"""The paper's study in miniature: two bases, four experts of each as people publish them, from a hub.

Every expert shows a row of the table of what checkpoints look like: a LoRA adapter, `.bin`, a larger
vocabulary, an output head of its own or none, float32 among bfloat16, shards. They are locked, fetched,
inspected, merged, scored on stock task definitions and set beside "published" numbers, by snakemake and
the real hub client; only the hub (tests/hub_server.py) is a local one.
"""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from hub_server import TOKEN, HubServer
from tiny_models import make_family
from wild import EMBEDDING, HEAD, changed, tokens_of, weights, with_tokens
from wildmerge.scoring.items import read_values

ROOT = Path(__file__).parent.parent
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9"}
BASES = {
    "llama": ["adapter", "pickled", "wordy", "own-head-shards"],
    "qwen3": ["headless", "shards", "half", "wordy"],
}
PUBLISHED = "table reference base_model method n_merged n_subsets reference_accuracy_pct "
PUBLISHED += "pct_subsets_above_reference mean_accuracy_delta_points"
CELLS = [
    (1, "base", "llama", "task_arithmetic", 2, 2, 25.0, 50, 1.0),
    (1, "base", "qwen3", "task_arithmetic", 2, 2, 25.0, 50, 2.0),
    (1, "base", "average", "task_arithmetic", 2, 2, 25.0, 50, 9.0),
    (3, "base", "qwen3", "tsv_m", 4, 1, 25.0, 0, -1.0),
]


def publish(folder, architecture, hub):
    """Make a base and its four experts and put them on the hub; return their ids."""
    family = make_family(folder / architecture, architecture, experts=4)
    first, second, third, fourth = family.experts
    made = folder / f"{architecture}-published"
    tokens = [*reversed(tokens_of(family.base)), "<new>"]
    if architecture == "llama":
        experts = [
            adapter(first, family.base, made / "adapter"),
            pickled(second, made / "pickled"),
            with_tokens(third, made / "wordy", tokens),
            resaved(fourth, made / "own-head-shards", torch.float32, own_head=True),
        ]
    else:
        experts = [
            changed(first, made / "headless", lambda t: t.pop(HEAD), {"tie_word_embeddings": True}),
            resaved(second, made / "shards", torch.float32),
            resaved(third, made / "half", torch.bfloat16),
            with_tokens(fourth, made / "wordy", tokens),
        ]
    assert [expert.name for expert in experts] == BASES[architecture]
    hub.add(f"base/{architecture}", family.base, gated=True)
    for expert in experts:
        hub.add(f"{architecture}/{expert.name}", expert)
    return {
        "checkpoint": f"base/{architecture}",
        "experts": [f"{architecture}/{expert.name}" for expert in experts],
    }


def adapter(expert, base, folder):
    """Write the LoRA adapter that comes near to what an expert's query projections moved by."""
    new, old, rank = weights(expert), weights(base), 2
    parts = {}
    for name in [name for name in old if "q_proj" in name]:
        u, sigma, vh = torch.linalg.svd(new[name].float() - old[name].float())
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        parts[f"{stem}.lora_A.weight"] = vh[:rank].contiguous()
        parts[f"{stem}.lora_B.weight"] = (u[:, :rank] * sigma[:rank]).contiguous()
    folder.mkdir(parents=True)
    save_file(parts, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]}
    content = config | {"base_model_name_or_path": "base/llama", "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


def pickled(expert, folder):
    """Rewrite an expert as a `.bin` checkpoint."""
    changed(expert, folder, lambda tensors: None)
    torch.save(weights(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def resaved(expert, folder, dtype, *, own_head=False):
    """Save an expert anew, in small shards and a dtype; perhaps with a head, equal to the embedding."""
    changed(expert, folder, lambda tensors: None)
    (folder / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(expert, dtype=dtype)
    model.save_pretrained(folder, max_shard_size="20KB")
    if own_head:
        name = "model-head.safetensors"
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        save_file({HEAD: model.state_dict()[EMBEDDING].clone()}, folder / name)
        index["weight_map"][HEAD] = name
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_data(folder):
    """Write items of two stock benchmarks in their original schema; HEAD-QA is a tag of two tasks."""
    draw = random.Random(0)

    def word(length):
        return "".join(draw.choices("abcdefghij", k=length))

    def rows(make, count=12):
        return "".join(json.dumps(make()) + "\n" for _ in range(count))

    def arc():
        choices = {"text": [word(3) for _ in range(4)], "label": list("ABCD")}
        return {"question": word(6), "choices": choices, "answerKey": draw.choice("ABCD")}

    def headqa():
        answers = [{"aid": i + 1, "atext": word(3)} for i in range(4)]
        return {"qtext": word(6), "ra": draw.randint(1, 4), "answers": answers}

    for task, make in (("arc_easy", arc), ("headqa_en", headqa), ("headqa_es", headqa)):
        (folder / task).mkdir(parents=True)
        (folder / task / "test.jsonl").write_text(rows(make))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run of the miniature: the hub, the folder, and what snakemake printed."""
    folder = tmp_path_factory.mktemp("miniature")
    with HubServer() as hub:
        bases = {name: publish(folder / "models", name, hub) for name in BASES}
        write_data(folder / "data")
        with (folder / "published.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([PUBLISHED.split(), *CELLS])
        study = {
            "name": "miniature",
            "bases": bases,
            "methods": ["task_arithmetic", "ties", "tsv_m"],
            "sizes": [2, 4],
            "subsets": 2,
            "benchmarks": ["arc_easy", {"task": "headqa", "metric": "acc_norm"}],
            "task_data": "data",
            "published": "published.csv",
            "evaluation": {"dtype": "float32"},
        }
        (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        yield hub, folder, snakemake(hub, folder, HF_TOKEN=TOKEN)


def snakemake(hub, folder, *options, **environment):
    target = "results/miniature/report.html"
    command = [sys.executable, "-m", "snakemake", target, "--cores", "2", "--nolock", *options]
    command += ["--snakefile", ROOT / "Snakefile", "--configfile", "study.yaml"]
    command += ["--workflow-profile", ROOT / "profiles/default"]
    environment = os.environ | hub.environment(folder / "home") | environment
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_every_expert_is_inspected_and_merges(place):
    _, folder, output = place
    assert "miniature: 28 models in 8 jobs" in output
    for base, experts in BASES.items():
        found = rows(folder / f"results/miniature/inspect/{base}.csv")
        assert len(found) == len(experts)
        assert {row["merges"] for row in found} == {"yes"}
        remarks = dict(zip(experts, (row["remarks"] for row in found), strict=True))
        assert "rows are dropped" in remarks["wordy"]
    merges = list((folder / "results/merges").glob("*.json"))
    assert len(merges) == 2 * 3 * (2 + 1)


@pytest.mark.slow
def test_ours_stands_beside_the_published_numbers(place):
    _, folder, _ = place
    tables = folder / "results/miniature/tables"
    compared = {(r["base"], r["method"]): r for r in rows(tables / "published_comparison.csv")}
    assert len(compared) == len(CELLS)
    ours = {
        (r["base"], r["method"], r["n"]): r["delta_points"]
        for number in (1, 3)
        for r in rows(tables / f"table{number}.csv")
    }
    for (base, method), cell in compared.items():
        assert cell["ours_delta_points"] == ours[base, method, cell["n"]]
    assert compared["average", "task_arithmetic"]["average_differs_in"] == "difference"
    assert "Beside the published numbers" in (folder / "results/miniature/report.html").read_text()


@pytest.mark.slow
def test_a_tag_is_scored_over_all_its_items(place):
    _, folder, _ = place
    files = [*(folder / "results/evals").glob("*/headqa-*.json")]
    assert files
    for path in files:
        result = json.loads(path.read_text())
        assert result["n"] == 24
        read_values(path.with_suffix(".parquet"), "acc", 24, result["metrics"]["acc"]["score"])


@pytest.mark.slow
def test_a_finished_study_needs_no_hub_and_tells_no_secret(place):
    hub, folder, output = place
    assert "Nothing to be done" in snakemake(hub, folder, **NOWHERE)
    assert TOKEN not in output
    for path in (folder / "results").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    assert not list(folder.glob("results/**/*.safetensors"))
