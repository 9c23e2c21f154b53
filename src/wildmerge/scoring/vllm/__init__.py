"""The `vllm` backend: one engine for all models of a base."""
