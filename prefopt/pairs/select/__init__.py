"""Stages that choose what is trained on: one file each, found by its name."""
