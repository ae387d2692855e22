"""`prefopt rounds`: loops of commands that build data and train on it, round after round, resumable.

    rounds.yaml + recipe + words --compose--> Loop --unfold--> every command of every round --run--> child processes

`unfold` knows each command before the first one starts: the folders of steps are fixed, so that what a later step reads
is a path that can be named now. Imports nothing heavy.
"""
