"""Where a benchmark's definition and data come from."""
