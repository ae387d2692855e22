"""Measurements of prefopt at some size; each command is a module with `add_arguments` and `run`."""
