"""Whole loops on small models: what docs/experiments.md reports (`scripts/run_loops.py`)."""
