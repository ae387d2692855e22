"""python tests/faults/campaign.py --attacks 100: attacks on runs until each promise was tried that often; a table.

`make test-faults N=100`. Exit code 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from attacks import CHAIN, Bed, Outcome
from runs import SHAPES
from tiny import make_model, make_pairs

PROMISES = {
    "kill": "A run survives death at any instant",
    "save": "A checkpoint is whole or it is not there",
    "signal": "Preemption is orderly",
}


def attack(bed: Bed, kind: str, shape: str, seed: int) -> Outcome:
    """One run with its harms; its folder is deleted where nothing was wrong."""
    outcome: Outcome = getattr(bed, kind)(shape, seed)
    for complaint in outcome.complaints:
        print(f"LOST: {kind}, {shape}, seed {seed}: {'; '.join(outcome.story)}: {complaint}", flush=True)
    return outcome


def campaign(
    kind: str, num_attacks: int, bed: Bed, seed: int, jobs: int, shapes: list[str]
) -> Iterator[dict[str, object]]:
    """At least `num_attacks` harms, dealt over all shapes; one entry for each of `shapes`, as soon as it is there."""
    with ThreadPoolExecutor(jobs) as pool:
        for place, (shape, _) in enumerate(SHAPES.items()):
            if shape not in shapes:
                continue
            bed.prepare(shape)
            wanted = num_attacks // len(SHAPES) + (place < num_attacks % len(SHAPES))
            harms, lost, runs, started = Counter[str](), 0, 0, time.monotonic()
            while harms.total() < wanted:
                waves = max(1, min(jobs, -(-(wanted - harms.total()) // CHAIN)))
                numbers = [seed * 10_000 + place * 1000 + runs + n for n in range(waves)]
                runs += waves
                for outcome in pool.map(lambda number, s=shape: attack(bed, kind, s, number), numbers):
                    harms += outcome.harms
                    lost += outcome.harms.total() if outcome.complaints else 0
            entry = {"promise": PROMISES[kind], "shape": shape, "attacks": harms.total(), "runs": runs, "lost": lost}
            yield {**entry, "moments": dict(harms), "seconds": round(time.monotonic() - started)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Harm runs, give the same command again, and compare.")
    parser.add_argument("--attacks", type=int, default=100, help="harms per promise")
    parser.add_argument("--kinds", nargs="+", choices=PROMISES, default=list(PROMISES))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="a part of the campaign")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    bed = Bed(make_model(place / "model"), make_pairs(place / "pairs.jsonl"), place)
    table: list[dict[str, object]] = []
    for kind in arguments.kinds:
        for entry in campaign(kind, arguments.attacks, bed, arguments.seed, arguments.jobs, arguments.shapes):
            table.append(entry)
            print(json.dumps(entry), flush=True)
            if arguments.json:  # what is there outlives a campaign that is cut short
                arguments.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print("| promise | runs of | attacks | survived | lost |\n|---|---|---|---|---|")
    for row in table:
        attacks, lost = int(str(row["attacks"])), int(str(row["lost"]))
        print(f"| {row['promise']} | {row['shape']} | {attacks} | {attacks - lost} | {lost} |")
    lost = sum(int(str(row["lost"])) for row in table)
    if lost:
        print(f"the folders of all runs are kept in {place}")
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
