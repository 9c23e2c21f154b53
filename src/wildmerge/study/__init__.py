"""The study file, recipes, and the ids that follow from them; imports no torch."""
