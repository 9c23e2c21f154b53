"""Deterministic training of small causal language models, from scratch or from a checkpoint.

The loop knows nothing about skills or file formats: it takes a model and batches of token ids with
a loss mask. On one machine the same seed and one thread give the same bytes.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from wildmerge.storage.files import current_umask, write_atomically
from wildmerge.storage.folders import new_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Batch:
    """Token sequences of one length, padded on the right.

    Attributes:
        tokens: (batch, length) int64 token ids. Padding may be any id: attention is causal, so what
            stands on the right cannot change what stands on the left.
        counts: (batch, length) bool, True where predicting this token counts in the loss.
    """

    tokens: Tensor
    counts: Tensor


def make_deterministic(seed: int, threads: int = 1) -> None:
    """Fix torch's seed and thread number, and refuse kernels whose result varies between runs."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    steps: int,
    learning_rate: float,
    label: str,
    warmup: float = 0.1,
    weight_decay: float = 0.0,
    clip: float = 1.0,
) -> float:
    """Train `model` in place with AdamW; linear warm-up, then linear decay to zero.

    Args:
        model: causal language model of transformers, in float32.
        batches: at least `steps` batches; the order is the order of training.
        steps: number of optimiser steps.
        learning_rate: peak learning rate.
        label: name shown with the progress.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: AdamW's decoupled weight decay.
        clip: largest gradient norm.

    Returns:
        Mean loss (nats a counted token) over the last tenth of the steps.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    rising = max(1, round(warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, (steps - step) / max(1, steps - rising))
    )
    model.train()
    losses = []
    report = progress(label, steps)
    for _, batch in zip(range(steps), batches, strict=False):
        loss = next_token_loss(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        report(losses[-1])
    model.eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy (nats) of the tokens that count."""
    logits = model(input_ids=batch.tokens, use_cache=False).logits[:, :-1]
    targets = batch.tokens[:, 1:].masked_fill(~batch.counts[:, 1:], -100)
    return nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1), ignore_index=-100
    )


def padded(sequences: list[list[int]], starts: list[int], padding: int) -> Batch:
    """Make a batch of token id lists; tokens from index `starts[i]` on count in the loss."""
    length = max(map(len, sequences))
    tokens = torch.full((len(sequences), length), padding)
    counts = torch.zeros((len(sequences), length), dtype=torch.bool)
    for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
        counts[row, start : len(sequence)] = True
    return Batch(tokens, counts)


def progress(label: str, steps: int) -> Callable[[float], None]:
    """Return a function to call with the loss after each step: a bar, or four lines in a log."""
    if sys.stderr.isatty():
        bar = tqdm(total=steps, desc=label, unit="step")

        def advance(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if bar.n == steps:
                bar.close()

        return advance
    return _log_lines(label, steps)


def _log_lines(label: str, steps: int) -> Callable[[float], None]:
    done: Iterator[int] = iter(range(1, steps + 1))

    def advance(loss: float) -> None:
        step = next(done)
        if step * 4 // steps > (step - 1) * 4 // steps:
            print(f"{label}: step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    return advance


def save_checkpoint(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    out: str | os.PathLike[str],
    card: str = "",
) -> Path:
    """Write a Hugging Face model directory; it appears when complete and replaces an existing one.

    Args:
        model: its weights are rounded to bfloat16, as language models are published.
        tokenizer: goes beside them.
        out: the directory.
        card: text of its README.md; none without one.
    """
    out = Path(out)
    with new_folder(out, overwrite=True) as partial:
        model.to(torch.bfloat16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if card:
            write_atomically(partial / "README.md", card)
        for file in partial.iterdir():
            file.chmod(0o666 & ~current_umask())
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
    return out
