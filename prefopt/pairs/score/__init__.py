"""Stages that say what candidates are worth: one file each, found by its name."""
