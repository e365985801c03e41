"""Reasoning Gym's data sets as environments of one turn: a question, an answer, and the package's own score of it."""
