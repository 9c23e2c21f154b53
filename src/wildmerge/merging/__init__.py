"""Merging a recipe: the engine, what methods see, and linear algebra."""
