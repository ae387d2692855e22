"""Attacks on runs: each harms the real command once or several times, gives it again, and compares what it leaves.

kill       kill -9 of the command's process group at a random moment
save       kill -9 of one random rank before a random operation on a checkpoint's files
signal     SIGTERM, SIGINT or SIGUSR1 to one random rank, to all, or to the command
"""

from __future__ import annotations

import random
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runs import MOMENTS, SHAPES, Moment, Run, ended, kill, metrics, ranks_of, wait_for

NUM_STEPS = 16  # 32 training pairs, 4 a step, 2 epochs
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE = 60.0
"""Seconds that a cluster gives a run to save itself."""
CHAIN = 4
"""Harms to one run before it may come to its end."""


@dataclass
class Outcome:
    """What came of the attacks on one run. harms: how many of each kind. complaints: what was wrong. story: harms."""

    harms: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)


class Bed:
    """A model, pairs, and the straight run of each shape, made once."""

    def __init__(self, model: Path, pairs: Path, place: Path) -> None:
        self.model, self.pairs, self.place = model, pairs, place
        self._straight: dict[str, dict[str, Any]] = {}
        self._count = 0

    def run(self, shape: str) -> Run:
        """A new run that has not begun."""
        self._count += 1
        return Run(self.model, self.pairs, self.place / f"run-{self._count}", SHAPES[shape])

    def prepare(self, shape: str) -> None:
        """Train the straight run of a shape."""
        if shape not in self._straight:
            run = self.run(shape)
            code, err = run.finish()
            assert code == 0, err
            self._straight[shape] = run.left()

    def conclude(self, run: Run, shape: str, outcome: Outcome) -> Outcome:
        """The same command to its end, and what differs from the straight run."""
        code, err = run.finish()
        if code != 0:
            outcome.complaints.append(f"the same command then ended with exit code {code}: {err[-2000:]}")
            return outcome
        left = run.left()
        for what, straight in self._straight[shape].items():
            if left[what] != straight:
                outcome.complaints.append(f"{what} differ from the straight run's: {_first(straight, left[what])}")
        return outcome

    def kill(self, shape: str, seed: int, count: int = CHAIN) -> Outcome:
        """kill -9 of everything, several times over."""
        luck, run, outcome = random.Random(seed), self.run(shape), Outcome()
        for moment in sorted(luck.choices(MOMENTS, k=count), key=MOMENTS.index):
            process = run.start()
            is_hit = wait_for(moment, run, process, luck, NUM_STEPS)
            if not is_hit and process.poll() == 0:
                break
            kill(process)
            outcome.story.append(f"killed at: {moment.name}")
            outcome.harms[moment.name] += 1
        return self.conclude(run, shape, outcome)

    def save(self, shape: str, seed: int, count: int = CHAIN) -> Outcome:
        """One rank dies inside a save; the command must end, and not with 0."""
        luck, run, outcome = random.Random(seed), self.run(shape), Outcome()
        for _ in range(count):
            rank = luck.randrange(2 if "launch.num_processes=2" in run.more else 1)
            at = luck.randint(1, 60 if rank == 0 else 20)
            try:
                code, err = ended(run.start(DIE_RANK=str(rank), DIE_AT=str(at)))
            except subprocess.TimeoutExpired:
                outcome.complaints.append(f"hung after rank {rank} died at operation {at}")
                break
            if code == 0:
                break
            outcome.story.append(f"rank {rank} died at operation {at}")
            outcome.harms["inside a save"] += 1
            if "was killed by SIGKILL" not in err:
                outcome.complaints.append(f"no word of it: {err[-500:]}")
        return self.conclude(run, shape, outcome)

    def signal(self, shape: str, seed: int, count: int = CHAIN) -> Outcome:
        """Signals; the run must save and end with 75, and never with 0 before its end."""
        luck, run, outcome = random.Random(seed), self.run(shape), Outcome()
        chosen = [m for m in MOMENTS if m.name in ("training", "evaluation", "saving")]
        for _ in range(count):
            moment, number = _in_this_start(luck.choice(chosen), run), luck.choice(SIGNALS)
            whom = luck.choice(("one rank", "all ranks", "the command"))
            process = run.start()
            if not wait_for(moment, run, process, luck, NUM_STEPS):
                kill(process)
                break
            outcome.story.append(f"{number.name} to {whom} at: {moment.name}")
            had_begun = any((run.folder / "checkpoints").glob("step-*"))
            _send(process, number, whom, luck)
            try:
                code, err = ended(process, GRACE)
            except subprocess.TimeoutExpired:
                outcome.complaints.append(f"not over {GRACE:.0f} s after {outcome.story[-1]}")
                break
            outcome.harms[moment.name] += 1
            if code == 0 and (run.folder / "result.json").exists():
                break  # it came when all was done
            expected = (75,) if had_begun else (75, 128 + number)  # before the first step nothing can be saved
            if code not in expected:
                outcome.complaints.append(f"exit code {code} after {outcome.story[-1]}: {err[-1000:]}")
            if (run.folder / "model").exists():
                outcome.complaints.append("a final model was written")
        return self.conclude(run, shape, outcome)


def _in_this_start(moment: Moment, run: Run) -> Moment:
    """The moment once the start that is about to be made has trained a step: what the starts before it left does not
    count. (While Python starts nothing can heed a signal, and nothing is to be saved.)"""
    saved = max((int(p.name.removeprefix("step-")) for p in (run.folder / "checkpoints").glob("step-*")), default=-1)

    def has_begun(run: Run, step: int) -> bool:
        return any(line["step"] > saved for line in metrics(run.folder)) and moment.has_begun(run, step)

    return replace(moment, has_begun=has_begun)


def _send(process: subprocess.Popen[str], number: int, whom: str, luck: random.Random) -> None:
    ranks = ranks_of(process)
    if whom == "the command" or not ranks:
        process.send_signal(number)
        return
    for rank in ranks if whom == "all ranks" else [luck.choice(ranks)]:
        rank.send_signal(number)


def _first(straight: Any, found: Any) -> str:
    """The first difference, in words."""
    if isinstance(straight, dict):
        keys = [k for k in [*straight, *found] if straight.get(k) != found.get(k)]
        return f"{keys[0]}: {straight.get(keys[0])} -> {found.get(keys[0])} (and {len(keys) - 1} more)"
    if isinstance(straight, list):
        pairs = [(a, b) for a, b in zip(straight, found, strict=False) if a != b]
        return f"{pairs[0][0]} -> {pairs[0][1]}" if pairs else f"{len(straight)} -> {len(found)} entries"
    return f"{straight!r} -> {found!r}"[:500]
