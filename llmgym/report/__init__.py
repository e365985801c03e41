"""What a run writes, and what it shows while it goes on."""
