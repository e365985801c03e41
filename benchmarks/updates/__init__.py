"""The sides of the update benchmark: one file each, whose `load` returns what takes one optimiser step."""
