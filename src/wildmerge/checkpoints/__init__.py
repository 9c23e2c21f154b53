"""Checkpoints: reading them lazily, telling whether they merge, and writing a merged one."""
