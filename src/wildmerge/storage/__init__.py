"""Files and folders that are whole or absent, and locks and signs of life that say who works on them."""
