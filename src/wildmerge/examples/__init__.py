"""Checkpoints that wildmerge can make by itself, so that a study runs without any download.

They are examples, not the product: nothing else in the package imports from here.
"""
