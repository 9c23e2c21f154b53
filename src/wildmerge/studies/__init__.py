"""A study: its file, what it is made of, its lock and its cost."""
