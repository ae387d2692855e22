"""A real `prefopt train` of the 28M Llama on synthetic rows, as benchmarks start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.llama import SHAPES, make_model
from bench.pair_rows import mix

PAIRS_PER_STEP = 8


def make_bed(folder: Path, num_steps: int) -> None:
    """Model and rows in `folder`: prompts around 60 words, responses around 20."""
    rows = mix(60, 20, PAIRS_PER_STEP * num_steps)
    make_model(folder / "model", SHAPES["28m"], [text for row in rows for text in row])
    lines = (json.dumps(row._asdict()) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")


def train(bed: Path, run: str, *overrides: str, threads: int = 1) -> dict[str, Any]:
    """One epoch in a process of its own: what result.json says, the wall seconds of the command, the metrics' lines."""
    folder = bed / run
    command = [
        *(sys.executable, "-m", "prefopt.cli", "train", f"model.path={bed / 'model'}", f"dir={folder}"),
        *(f"data.train=[{{path: {bed / 'rows.jsonl'}}}]", f"data.cache_dir={bed / 'cache'}", "data.eval={}"),
        *(f"train.batch_size={PAIRS_PER_STEP}", "train.tokens_per_micro_batch=1024", "train.eval_every=never"),
        *("train.save_every=never", "launch.device=cpu", f"launch.threads_per_process={threads}"),
        *overrides,
    ]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
        )
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {**result, "wall_seconds": time.perf_counter() - start, "lines": lines}
