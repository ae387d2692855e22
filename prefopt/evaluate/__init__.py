"""`prefopt eval`: what a model is worth, measured; the measures are in `prefopt/evaluate/measures`, one per file."""
