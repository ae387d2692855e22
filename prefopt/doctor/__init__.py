"""`prefopt doctor`: what of this machine a run would meet, found before the run does. Nothing heavy at import.

A probe is a plain function that returns `Finding`s. Each is called in its own try, and what may hang or die (torch,
NCCL) is asked in a process of its own with a time limit, so that a broken part is a line and not a traceback.
"""
