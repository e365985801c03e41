"""One script per claim of speed; see README.md."""
