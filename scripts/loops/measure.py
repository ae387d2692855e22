"""What a policy answers to held-out prompts, and what that is worth: by the exact judge, and by a ranker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

HERE = Path(__file__).resolve().parent


class Answers(NamedTuple):
    """Of each prompt, by its text: what the judge gives its answers, and what the ranker gives them (empty without)."""

    judged: dict[str, list[float]]
    ranked: dict[str, list[float]]

    @property
    def mean(self) -> float:
        """Mean judgement over prompts."""
        return fmean(fmean(scores) for scores in self.judged.values())


def prefopt(words: list[str], log: Path, cwd: Path | None = None) -> None:
    """Run the command on one core; what it says goes to `log`. Raises: SystemExit with the log's end where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": python_path()}
    with open(log, "a", encoding="utf-8") as file:
        print(" ".join(words), file=file, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "prefopt.cli", *words], stdout=file, stderr=file, env=environment, cwd=cwd
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{log.read_text()[-1500:]}")


def python_path() -> str:
    """Where the judges of this folder and prefopt itself are found."""
    return os.pathsep.join([str(HERE), str(HERE.parents[1])])


def answer(policy: str, out: Path, sampling: list[str], judge: str, ranker: str | None, seed: int) -> Answers:
    """Sample answers, judge them, and have them ranked where there is a ranker. sampling: words for `prefopt pairs`."""
    words = [f"policy={policy}", f"seed={seed}", *sampling, "score=python", f"score.function={judge}"]
    if ranker is not None:
        words += ["margins=[{name: reward}]", f"reward={ranker}"]
    prefopt(["pairs", *words, "select=keep_all", f"out={out}"], out.with_suffix(".log"))
    judged: dict[str, list[float]] = {}
    ranked: dict[str, list[float]] = {}
    with open(out / "candidates.jsonl", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            row = json.loads(line)
            prompt = row["prompt"][-1]["content"]
            judged[prompt] = [candidate["score"] for candidate in row["candidates"]]
            if ranker is not None:
                ranked[prompt] = [candidate["margins"][0] for candidate in row["candidates"]]
    return Answers(judged, ranked)


def win_rate(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """How often an answer of ours is worth more than one of theirs to the same prompt, ties one half."""
    rates = []
    for prompt in ours.keys() & theirs.keys():
        pairs = [(a, b) for a in ours[prompt] for b in theirs[prompt]]
        rates.append(fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs))
    return fmean(rates)
