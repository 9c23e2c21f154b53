"""Checkpoints and benchmark data that the example studies make; no part of the library."""
