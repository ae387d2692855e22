"""`prefopt plan`: what a run takes of memory, network, time and disk, told before there is a machine to run it on.

The formulas and their sources, and how far they lie from what was measured, are in docs/plan.md.
"""
