"""Results to figure specifications: pure functions."""
