"""The `prefix` backend: each distinct prefix of a benchmark is computed once."""
