"""Engines sample replies: tokens in, tokens and log-probabilities out."""
