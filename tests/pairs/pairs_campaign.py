"""python tests/pairs/pairs_campaign.py --kills 100: kill -9 of `prefopt pairs` at random instants, and a table.

`make test-pairs-faults N=100`. After each few kills the same command runs to its end, and its folder must be, byte for
byte, that of a command which nobody harmed, no chunk made twice. Exit code 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from pairs_bed import NUM_CHUNKS, RESULTS, STAGES, Made, kill_tree, make_base, wait_until

CHAIN = 4
"""Kills of one folder, before it is brought to its end and compared."""


@dataclass(frozen=True)
class Moment:
    """A moment in the life of a command, and how long after it began the kill may come, seconds."""

    name: str
    has_begun: Callable[[Path, int], bool]
    spread: float


def _chunks(out: Path, stage: str) -> int:
    return len(list((out / stage).glob("*.jsonl")))


def _merging(out: Path) -> bool:
    return any(out.glob(".candidates.jsonl.tmp-*")) or any((out / name).exists() for name in RESULTS)


MOMENTS = (
    Moment("start", lambda out, n: True, 6.0),
    Moment("folder begun", lambda out, n: any(out.glob("*")) or any(out.glob(".*.tmp-*")), 0.05),
    Moment("models loading", lambda out, n: (out / "notes").exists(), 2.0),
    Moment("generating", lambda out, n: _chunks(out, STAGES[0]) > n, 0.1),
    Moment("between stages", lambda out, n: _chunks(out, STAGES[0]) == NUM_CHUNKS, 0.01),
    Moment("scoring", lambda out, n: _chunks(out, STAGES[1]) > n, 0.01),
    Moment("before the merge", lambda out, n: _chunks(out, STAGES[1]) == NUM_CHUNKS, 0.3),
    Moment("merging", lambda out, n: _merging(out), 0.3),
    Moment("the very end", lambda out, n: (out / "card.md").exists(), 0.02),
)
"""In the order in which a command comes to them."""


@dataclass
class Outcome:
    """kills: how many, by moment. complaints: what was lost; empty for a folder that is as it must be."""

    kills: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)


def attack(made: Made, want: dict[str, bytes], moments: list[Moment], luck: random.Random) -> Outcome:
    """Kill the command at each of these moments, finish it, and compare. want: files of an undisturbed one."""
    outcome = Outcome()
    chunks: dict[str, tuple[int, int]] = {}
    for moment in moments:
        process = made.start()
        after = luck.randrange(NUM_CHUNKS)
        if wait_until(process, lambda m=moment, n=after: m.has_begun(made.out, n)):
            time.sleep(luck.uniform(0, moment.spread))
        if process.poll() is None:
            outcome.kills[moment.name] += 1
        kill_tree(process)
        now = made.chunks()
        outcome.complaints += [f"{name} was made again" for name, was in chunks.items() if now.get(name) != was]
        chunks = now
    done = made.run()
    if done.returncode:
        return Outcome(outcome.kills, [*outcome.complaints, f"exit code {done.returncode}: {done.stderr}"])
    now = made.chunks()
    outcome.complaints += [f"{name} was made again" for name, was in chunks.items() if now.get(name) != was]
    outcome.complaints += [f"{name} differs" for name, text in made.results().items() if text != want[name]]
    outcome.complaints += [f"{file.name} is left" for file in made.out.rglob(".*.tmp-*")]
    outcome.complaints += made.complaints()
    return outcome


def campaign(kills: int, seed: int, place: Path, want: dict[str, bytes], more: tuple[str, ...] = ()) -> Outcome:
    """At least `kills` kills, at all moments by turns; folders in which nothing was wrong are deleted.

    want: the files of an undisturbed command. more: words that may differ from it, as the number of processes.
    """
    luck, total, deal = random.Random(seed), Outcome(), 0
    while total.kills.total() < kills:
        count = min(CHAIN, kills - total.kills.total())
        places = sorted((deal + n * len(MOMENTS) // count) % len(MOMENTS) for n in range(count))
        made = Made(place / f"attack-{seed}-{deal}", more)
        outcome = attack(made, want, [MOMENTS[p] for p in places], luck)
        total.kills += outcome.kills
        total.complaints += [f"{made.out}: {complaint}" for complaint in outcome.complaints]
        if not outcome.complaints:
            shutil.rmtree(made.out)
        deal += 1
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill prefopt pairs, give the same command again, and compare.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    make_base()
    place = Path(tempfile.mkdtemp(prefix="pairs-faults-"))
    undisturbed = Made(place / "undisturbed")
    assert undisturbed.run().returncode == 0
    total = Outcome()
    for number, more in enumerate(((), ("num_processes=2",))):
        kills = arguments.kills // 2 + (number < arguments.kills % 2)
        found = campaign(kills, arguments.seed + number, place, undisturbed.results(), more)
        total.kills += found.kills
        total.complaints += found.complaints
    print("| moment | kills |\n|---|---|")
    for moment in MOMENTS:
        print(f"| {moment.name} | {total.kills[moment.name]} |")
    print(f"| all | {total.kills.total()} |\n\nlost: {len(total.complaints)}")
    for complaint in total.complaints:
        print(f"LOST: {complaint}")
    if not total.complaints:
        shutil.rmtree(place)
    return 1 if total.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
