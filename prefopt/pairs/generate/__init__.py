"""Stages that make candidates: one file each, found by its name."""
