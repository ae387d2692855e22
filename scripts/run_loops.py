"""Run whole loops on small models over seeds, and print what docs/experiments.md reports.

    python scripts/run_loops.py rso [--seeds 1 2 3] [--jobs 2] [--out loops]

rso: SFT, a reward model, rejection-sampled pairs and tournaments, a policy by each loss. rrhf: four ways to make
candidates, two iterations each. modpo: a front of weights, beside weighted-sum DPO and interpolated weights;
modpo_length: harmlessness as people judged it against length, five weights by one multirun;
modpo_three, modpo_qa: three objectives that people rated. figure4: DPO and SimPO, reward against likelihood and length.
back_translation, iterative_dpo: rounds. What is there already in --out is not made again. Needs ../shared/data and
../shared/models for what runs on stories; the rest runs on the demo.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev

from loops import back_translation, figure4, iterative, modpo, modpo_length, modpo_qa, modpo_three, rrhf, rso
from rich.console import Console
from rich.table import Table

LOOPS: dict[str, Callable[[Path, int], dict[str, dict[str, float]]]] = {
    "rso": rso.run,
    "rrhf": rrhf.run,
    "modpo": modpo.run,
    "modpo_length": modpo_length.run,
    "modpo_qa": modpo_qa.run,
    "modpo_three": modpo_three.run,
    "figure4": figure4.run,
    "back_translation": back_translation.run,
    "iterative_dpo": iterative.run,
}
"""(folder, seed) to rows of figures: row, column, value."""


def timed(name: str, folder: Path, seed: int) -> dict[str, object]:
    """A loop with one seed, or what it gave before."""
    kept = folder / f"{seed}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    start = time.monotonic()
    figures = LOOPS[name](folder / str(seed), seed)
    found = {"seed": seed, "seconds": round(time.monotonic() - start), "figures": figures}
    kept.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("loops"))
    arguments = parser.parse_args()
    folder = (arguments.out / arguments.loop).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = list(pool.map(lambda seed: timed(arguments.loop, folder, seed), arguments.seeds))
    show(arguments.loop, found)


def show(name: str, found: list[dict]) -> None:
    """Mean and standard deviation over seeds of every figure."""
    seconds = ", ".join(str(one["seconds"]) for one in found)
    table = Table(title=f"{name}: seeds {[one['seed'] for one in found]}, {seconds} s")
    first = found[0]["figures"]
    columns = list(dict.fromkeys(column for row in first.values() for column in row))
    for column in ("", *columns):
        table.add_column(column)
    for row in first:
        cells = []
        for column in columns:
            values = [one["figures"][row][column] for one in found if column in one["figures"].get(row, {})]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values):.3f}{spread}" if values else "")
        table.add_row(row, *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
