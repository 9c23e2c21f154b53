"""Checkpoints: reading them lazily, whether and how they fit together, and writing a merged one."""
