"""Estimates, their uncertainty and comparisons: numbers and arrays in, numbers out."""
