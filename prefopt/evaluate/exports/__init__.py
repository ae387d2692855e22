"""Answers as the files that evaluators read."""
