"""Training: the loop, and what is told of it."""
