"""Files that are whole or absent, and locks and signs of life that tell who works on them."""
