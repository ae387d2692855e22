"""Several runs of one command: what they are, who starts them, how they stand."""
