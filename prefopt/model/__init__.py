"""The policy: loading it, running a batch through it, saving it."""
