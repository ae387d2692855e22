"""A sweep over beta with a reference beside one without: rows scored and wall time of each run."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from bench.small_run import make_bed, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--betas", type=int, default=8, help="runs of each sweep")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())


def run(given: argparse.Namespace) -> dict[str, Any]:
    """DPO and SimPO in alternation, so that a machine that slows down slows both; one SimPO run before warms files."""
    with tempfile.TemporaryDirectory() as folder:
        bed = Path(folder)
        make_bed(bed, given.steps)
        train(bed, "warm", "loss=simpo", threads=given.threads)
        found: dict[str, list[dict[str, Any]]] = {"dpo": [], "simpo": []}
        for number in range(given.betas):
            for loss, runs in found.items():
                beta = 0.01 * (number + 1) if loss == "dpo" else 1 + number / 4
                runs.append(train(bed, f"{loss}-{number}", f"loss={loss}", f"loss.beta={beta}", threads=given.threads))
    wall = {loss: [run["wall_seconds"] for run in runs] for loss, runs in found.items()}
    return {
        "runs": given.betas,
        "steps": given.steps,
        "reference_rows_scored": [run["reference_rows_scored"] for run in found["dpo"]],
        "wall_seconds": wall,
        "with_reference_over_without": sum(wall["dpo"]) / sum(wall["simpo"]),
        "without_the_run_that_scored": sum(wall["dpo"][1:]) / sum(wall["simpo"][1:]),
    }
