"""Checkpoints of the Hugging Face hub: the only package that uses the network."""
