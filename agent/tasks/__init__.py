"""Tasks: the record of one, its progress, and the stores that keep them."""
