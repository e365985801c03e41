"""The sides of the update benchmark: a file each, whose `load` returns what takes one optimiser step."""
