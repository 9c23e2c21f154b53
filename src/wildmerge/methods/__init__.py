"""The merge methods, one file each; `catalogue` finds them."""
