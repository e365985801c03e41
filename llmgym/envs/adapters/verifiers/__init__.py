"""Environments of the package verifiers: tasksets, which are played in a process of their own."""
