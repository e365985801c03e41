"""The sides that are compared: one file each, whose `load` returns what samples a work."""
