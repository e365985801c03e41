"""Environments on OpenEnv servers."""
