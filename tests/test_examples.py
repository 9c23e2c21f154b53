"""The demo's skills, benchmarks and checkpoints: right, fair, held out, whole and repeatable."""

import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from examples import demo, skills, training
from wildmerge.errors import Refusal

ROOT = Path(__file__).resolve().parents[1]


# How to answer a prompt by reading it, without the code that made it.
SOLVERS = {
    "sort": lambda direction, *row: sorted(row, reverse=direction == "down"),
    "reverse": lambda *row: row[::-1],
    "shift": lambda n, *row: [chr((ord(c) - 97 + int(n)) % 26 + 97) for c in row],
    "weave": lambda *row: [row[i + j] for i in range(3) for j in (0, 4)],
    "add": lambda n, _, *row: [str(int(d) + int(n))[-1] for d in row],
    "compare": lambda *row: ["more" if int(row[i]) > int(row[i + 4]) else "less" for i in range(3)],
    "without": lambda out, _, *row: [c for c in row if c != out],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "results/examples/demo/data"
    demo.write_data(out)
    return out


@pytest.fixture(scope="module")
def bases(data):
    """Bases after a handful of steps: real checkpoints, little knowledge."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "BASE_STEPS", 20)
        for architecture in ("llama", "qwen3"):
            demo.train_base(architecture, data, data.parent / architecture / "base")
    return {name: data.parent / name / "base" for name in ("llama", "qwen3")}


@pytest.mark.parametrize("skill", skills.SKILLS)
def test_answers_are_right_and_distractors_wrong(skill):
    for item in skills.held_out_items(skill, 300, seed=1):
        name, *symbols = item["prompt"].removesuffix(" =").split()
        assert name == skill
        assert item["choices"][item["label"]] == " ".join(SOLVERS[skill](*symbols))
        assert len(set(item["choices"])) == len(item["choices"]) == 4


@pytest.mark.parametrize("skill", skills.SKILLS)
def test_choices_do_not_betray_the_answer(skill):
    """Neither length, nor being most like the others, nor being likely text shows the answer."""
    items = skills.held_out_items(skill, 600, seed=2)
    pairs = Counter()
    for item, _ in zip(skills.training_items(skill, seed=2), range(5000), strict=False):
        answer = item.answer.split()
        pairs.update(zip(["^", *answer], answer, strict=False))

    def likely(choice, _):
        symbols = choice.split()
        counts = [pairs[pair] + 0.1 for pair in zip(["^", *symbols], symbols, strict=False)]
        return torch.tensor(counts).log().sum().item()

    def central(choice, choices):
        return -sum(a != b for other in choices for a, b in zip(choice, other, strict=True))

    for rule in (likely, central):
        right = 0.0
        for item in items:
            assert len({len(choice) for choice in item["choices"]}) == 1
            scores = [rule(choice, item["choices"]) for choice in item["choices"]]
            best = [i for i, score in enumerate(scores) if score == max(scores)]
            right += (item["label"] in best) / len(best)
        assert right / len(items) < 0.25 + 0.07  # four standard errors


@pytest.mark.parametrize("skill", skills.SKILLS)
def test_held_out_items_are_not_in_the_training_text(data, skill):
    lines = (data / "train" / f"{skill}.txt").read_text().splitlines()
    items = [json.loads(line) for line in (data / f"demo_{skill}.jsonl").read_text().splitlines()]
    assert len(lines) == demo.TRAINING_LINES
    assert len({item["prompt"] for item in items}) == demo.TEST_ITEMS
    trained = {tuple(sorted(line[: line.index("=") + 1].split())) for line in lines}
    assert not trained & {tuple(sorted(item["prompt"].split())) for item in items}


def test_every_skill_is_a_benchmark_and_some_experts_subject():
    tasks = {path.stem: yaml.safe_load(path.read_text()) for path in tasks_folder().glob("demo_*")}
    assert {task["task"] for task in tasks.values()} == {f"demo_{skill}" for skill in skills.SKILLS}
    assert set().union(*demo.EXPERTS.values()) == set(skills.SKILLS)
    assert all(set(mixture) == set(skills.SKILLS) for mixture in demo.BASES.values())


def tasks_folder():
    return ROOT / "config/tasks/demo"


def test_lm_eval_scores_the_tasks(data, bases, monkeypatch):
    """The stock harness reads the YAML files; every item counts, and acc_norm agrees with acc."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(data.parents[3])
    names = [f"demo_{skill}" for skill in skills.SKILLS]
    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(bases["llama"]), device="cpu", dtype="float32", batch_size=128),
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks_folder()), include_defaults=False),
        bootstrap_iters=0,
        limit=40,
    )
    for name in names:
        scores = results["results"][name]
        assert scores["acc,none"] == scores["acc_norm,none"]
        sample = results["samples"][name][0]
        assert [request[0] for request in sample["arguments"]] == [sample["doc"]["prompt"]] * 4
        assert len(results["samples"][name]) == 40


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_checkpoints_load_whole_and_generate(bases, architecture):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(
        bases[architecture], output_loading_info=True
    )
    assert not any(info.values()), info
    assert model.dtype == torch.bfloat16
    assert model.config.model_type == architecture
    assert model.config.tie_word_embeddings == (architecture == "llama")
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    tokenizer = AutoTokenizer.from_pretrained(bases[architecture])
    prompt = tokenizer("sort up d b a c e =", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=3, do_sample=False)[0])
    assert text.startswith("sort up d b a c e =")
    assert tokenizer.unk_token not in tokenizer.decode(
        tokenizer(" ".join(skills.SYMBOLS)).input_ids
    )
    message = [{"role": "user", "content": "reverse a b ="}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "reverse a b = "


def test_training_again_gives_the_same_bytes(data, bases, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "BASE_STEPS", 20)
    monkeypatch.setattr(demo, "EXPERT_STEPS", 10)
    demo.train_base("llama", data, tmp_path / "base")
    assert digests(tmp_path / "base") == digests(bases["llama"])
    for name in ("one", "two"):
        demo.train_expert(tmp_path / "base", "judge", data, tmp_path / name)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one") != digests(tmp_path / "base")


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_fine_tuning_moves_weights_beyond_bfloat16_rounding(data, bases, tmp_path):
    from safetensors.torch import load_file

    demo.train_expert(bases["qwen3"], "mirror", data, tmp_path / "mirror")
    before = load_file(bases["qwen3"] / "model.safetensors")
    after = load_file(tmp_path / "mirror/model.safetensors")
    assert before.keys() == after.keys()
    for name in (name for name in before if "proj" in name):
        old, new = before[name].float(), after[name].float()
        rounding = old * 2**-9  # the most that rounding to 8 significant bits moves a weight
        assert ((new - old).norm() / rounding.norm()).item() > 10, name


def test_only_counted_tokens_make_the_loss():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 7)
    batch = training.padded([[1, 2, 3, 4], [5, 6, 1]], starts=[2, 1], padding=0)
    loss = training.next_token_loss(lambda **_: SimpleNamespace(logits=logits), batch)
    logp = logits.double().log_softmax(-1)
    counted = [(0, 1, 3), (0, 2, 4), (1, 0, 6), (1, 1, 1)]  # row, position before, token
    expected = -sum(logp[where].item() for where in counted) / len(counted)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_an_interrupted_save_leaves_nothing_under_the_final_name(tmp_path):
    class Interrupted:
        def save_pretrained(self, folder):
            raise KeyboardInterrupt

    tokenizer = demo.make_tokenizer()
    model = demo.make_model("llama", tokenizer)
    with pytest.raises(KeyboardInterrupt):
        training.save_checkpoint(model, Interrupted(), tmp_path / "base")
    assert not (tmp_path / "base").exists()
    training.save_checkpoint(model, tokenizer, tmp_path / "base")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_refusals_name_the_remedy(data, tmp_path, capsys):
    missing = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert demo.main(["base", "--architecture", "llama", *missing]) == 1
    assert "command `data`" in capsys.readouterr().err
    with pytest.raises(Refusal, match="command `base`"):
        demo.train_expert(tmp_path, "judge", data, tmp_path / "out")
    with pytest.raises(Refusal, match="librarian"):
        demo.train_expert(tmp_path, "libarian", data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_skills_are_drawn_from_the_seed_alone():
    for skill in skills.SKILLS.values():
        assert skill(random.Random(7)) == skill(random.Random(7))
    assert skills.held_out_items("sort", 5, 0) != skills.held_out_items("sort", 5, 1)
