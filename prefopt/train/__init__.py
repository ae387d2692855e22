"""The engine, the step and the loop. `python -m prefopt.train RUN_DIR` is what a rank runs."""
