"""Preference data, built: generate candidates, score them, select, write. Each stage maps Examples to Examples.

A stage of a kind is a frozen dataclass of settings in `generate/`, `score/` or `select/`, found by its file's name.
"""
