"""From a study's results to its tables."""
