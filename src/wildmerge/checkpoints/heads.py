"""Is the output head the embedding? One answer, that of transformers, which scores the models."""

from __future__ import annotations

from functools import lru_cache

from wildmerge.checkpoints.headers import Headers
from wildmerge.checkpoints.roles import head_of

HEAD = "lm_head.weight"
"""What transformers calls the head of a model that has its own."""


def is_tied(checkpoint: Headers) -> bool:
    """Return whether a model's output head is its embedding; a copy may be in the files all the same.

    Its config decides; where that is silent, its architecture; and for one that transformers does not
    know, whether its files hold a head.
    """
    config = checkpoint.config
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    tied = _tied_by_default(str(config.get("model_type")))
    return head_of(checkpoint) is None if tied is None else tied


@lru_cache
def _tied_by_default(model_type: str) -> bool | None:
    """Return whether an architecture ties its head when a config does not say; None if not known."""
    from transformers import CONFIG_MAPPING  # takes seconds, so only where a config is silent

    if model_type not in CONFIG_MAPPING:
        return None
    return bool(getattr(CONFIG_MAPPING[model_type], "tie_word_embeddings", False))
