"""Estimates and their uncertainty: plain numbers in, plain numbers out."""
