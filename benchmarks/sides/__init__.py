"""The sides that are compared: a file each, whose `load` returns what samples a work."""
