"""The demo's checkpoints: two tiny bases trained from scratch and six experts fine-tuned from each.

    python -m examples.demo data --out DIR
    python -m examples.demo base --architecture llama|qwen3 --data DIR --out DIR
    python -m examples.demo expert --base DIR --name NAME --data DIR --out DIR

`data` writes train/<skill>.txt and the test items demo_<skill>.jsonl. `base` learns every skill
for a while, `expert` goes on with its own mixture of skills (EXPERTS). Checkpoints are ordinary
Hugging Face directories and depend on nothing but these commands: same machine, same bytes.
"""

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from examples.skills import SKILLS, SYMBOLS, held_out_items, training_items
from examples.wheels import run
from wildmerge.errors import Refusal
from wildmerge.storage.files import write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from examples.training import Batch

TRAINING_LINES = 8000  # of each skill
TEST_ITEMS = 160  # of each skill

# Weights of the skills in the training text. They are unequal because some skills are harder, and
# not the same ones for both: tied embeddings help with letters, which are mostly copied.
BASES = {
    "llama": dict(sort=4, reverse=6, shift=4, weave=1, add=5, compare=5, without=9),
    "qwen3": dict(sort=2, reverse=8, shift=6, weave=4, add=4, compare=4, without=12),
}
EXPERTS = {
    "librarian": dict(sort=3, without=2),
    "mirror": dict(reverse=3, weave=1, shift=1),
    "cipher": dict(shift=3, reverse=1),
    "cashier": dict(add=3, compare=1),
    "judge": dict(compare=3, sort=1, add=1),
    "editor": dict(without=3, weave=1, shift=1),
}

BATCH_SIZE = 32
BASE_STEPS, BASE_LEARNING_RATE = 320, 4e-3
EXPERT_STEPS, EXPERT_LEARNING_RATE = 120, 1e-3

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.08,  # a narrow model learns far slower from the usual 0.02
}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %} {% endfor %}"
)


def write_data(out: Path, seed: int = 0) -> None:
    """Write the training lines and the held-out items of every skill under `out`."""
    for skill in SKILLS:
        items = itertools.islice(training_items(skill, seed), TRAINING_LINES)
        text = "".join(f"{item.line()}\n" for item in items)
        write_atomically(out / "train" / f"{skill}.txt", text)
        held_out = (json.dumps(item) for item in held_out_items(skill, TEST_ITEMS, seed))
        write_atomically(out / f"demo_{skill}.jsonl", "".join(f"{line}\n" for line in held_out))


def train_base(architecture: str, data: Path, out: Path, seed: int = 0) -> None:
    """Train a base from scratch on its mixture of skills and write it to `out`."""
    from examples.training import make_deterministic, save_checkpoint, train

    make_deterministic(seed)
    tokenizer = make_tokenizer()
    model = make_model(architecture, tokenizer)
    train(
        model,
        skill_batches(data, BASES[architecture], tokenizer, seed=f"{architecture} {seed}"),
        steps=BASE_STEPS,
        learning_rate=BASE_LEARNING_RATE,
        label=f"base {architecture}",
    )
    save_checkpoint(model, tokenizer, out)


def train_expert(base: Path, name: str, data: Path, out: Path, seed: int = 0) -> None:
    """Fine-tune the checkpoint `base` on the mixture of the expert `name` and write it to `out`.

    Raises:
        Refusal: if there is no such expert, or no checkpoint at `base`.
    """
    if name not in EXPERTS:
        raise Refusal(f"Unknown demo expert {name!r}; choose one of {', '.join(EXPERTS)}.")
    if not (base / "config.json").is_file():
        raise Refusal(f"No checkpoint at {base}; make one first with the command `base`.")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from examples.training import make_deterministic, save_checkpoint, train

    make_deterministic(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    train(
        model,
        skill_batches(data, EXPERTS[name], tokenizer, seed=f"{name} {seed}"),
        steps=EXPERT_STEPS,
        learning_rate=EXPERT_LEARNING_RATE,
        label=f"expert {name}",
    )
    save_checkpoint(model, tokenizer, out)


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Return a tokenizer with one token a symbol, symbols being separated by white space."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<unk>"]
    vocabulary = {symbol: index for index, symbol in enumerate([*special, *SYMBOLS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=SHAPE["max_position_embeddings"],
        chat_template=CHAT_TEMPLATE,
    )


def make_model(architecture: str, tokenizer: "PreTrainedTokenizerFast") -> "PreTrainedModel":
    """Return an untrained Llama with tied embeddings, or a Qwen3 with a separate output matrix."""
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    if architecture == "llama":
        from transformers.models.llama import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(LlamaConfig(**SHAPE, **tokens, tie_word_embeddings=True))
    from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, **tokens, tie_word_embeddings=False))


def skill_batches(
    data: Path, mixture: dict[str, int], tokenizer: "PreTrainedTokenizerFast", seed: str
) -> Iterator["Batch"]:
    """Yield batches of training lines without end, skills drawn by weight; the answers count.

    Raises:
        Refusal: if a training text is missing.
    """
    from examples.training import padded

    lines = {skill: _encoded_lines(data / "train" / f"{skill}.txt", tokenizer) for skill in mixture}
    equals = tokenizer.convert_tokens_to_ids("=")
    rng = random.Random(f"batches {seed}")
    while True:
        skills = rng.choices(list(mixture), weights=list(mixture.values()), k=BATCH_SIZE)
        batch = [rng.choice(lines[skill]) for skill in skills]
        yield padded(batch, [line.index(equals) + 1 for line in batch], tokenizer.pad_token_id)


def _encoded_lines(path: Path, tokenizer: "PreTrainedTokenizerFast") -> list[list[int]]:
    if not path.is_file():
        raise Refusal(f"No training text {path}; write it first with the command `data`.")
    encoded = tokenizer(path.read_text().splitlines())["input_ids"]
    return [[*line, tokenizer.eos_token_id] for line in encoded]


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands above; return 1 after a refusal."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo")
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write training text and test items")
    base = commands.add_parser("base", help="train a base from scratch")
    expert = commands.add_parser("expert", help="fine-tune an expert from a base")
    base.add_argument("--architecture", choices=tuple(BASES), required=True)
    expert.add_argument("--base", type=Path, required=True)
    expert.add_argument("--name", required=True, help=", ".join(EXPERTS))
    for command in (base, expert):
        command.add_argument("--data", type=Path, required=True)
    for command in (data, base, expert):
        command.add_argument("--out", type=Path, required=True)
    options = vars(parser.parse_args(arguments))
    action = {"data": write_data, "base": train_base, "expert": train_expert}
    return run(lambda: action[options.pop("command")](**options))


if __name__ == "__main__":
    sys.exit(main())
