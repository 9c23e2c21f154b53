"""The `prefix` backend, a library of its own: `PrefixLM` is lm-eval's model, faster."""

from wildmerge.scoring.prefix.backend import PrefixLM

__all__ = ["PrefixLM"]
