"""Text environments: the base, the vector environment, the checker and the built-in tasks."""
