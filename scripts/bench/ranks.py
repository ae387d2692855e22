"""Tokens per second of one and more CPU processes, one thread each, on the same steps."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.small_run import make_bed, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=8)


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Medians over the steps but the first; losses of all must be the same."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bed = Path(folder)
        make_bed(bed, given.steps)
        for count in given.ranks:
            lines = train(bed, f"ranks-{count}", "loss=simpo", f"launch.num_processes={count}")["lines"]
            found[str(count)] = {
                "tokens_per_second": statistics.median(line["tokens_per_second"] for line in lines[1:]),
                "imbalance": statistics.mean(line["imbalance"] for line in lines),
                "data_wait_share": statistics.median(line["data_wait_share"] for line in lines[1:]),
                "losses": [line["loss"] for line in lines],
            }
    first = found[str(given.ranks[0])]["losses"]
    differences = [abs(a - b) for f in found.values() for a, b in zip(first, f["losses"], strict=True)]
    return {"ranks": found, "largest_loss_difference": max(differences)}
