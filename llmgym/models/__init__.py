"""Models of transformers: loading, adapters, and whether they can be run and trained exactly."""
