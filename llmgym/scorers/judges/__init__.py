"""Judges: a language model is asked what an episode is worth, or which of two is better.

`question` makes the prompt, `endpoint` asks a server, `cache` remembers what was said, `verdicts` reads it, and `judge`
puts them together. `settings` makes a judge from a YAML file: ``--scorer judge:judge.yaml``.
"""
