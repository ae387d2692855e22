"""One measured training with prefopt, in this process: JOB.json -> RESULT.json."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from bench.job import Job, Result, Step, peak_memory, train_seconds
from bench.llama import SHAPES
from bench.matrix_rate import matrix_rate


def measure(job: Job) -> Result:
    """Train and time each step: from one step's line in metrics.jsonl to the next, so that everything counts."""
    import torch
    from rich.console import Console

    from prefopt.cache import cache_folder
    from prefopt.checks import check
    from prefopt.config import compose
    from prefopt.launch import prepare_data, write_folder
    from prefopt.ranks import plan_world
    from prefopt.run_folder import State
    from prefopt.train.loop import Trainer

    folder = Path(job.folder) / "run"
    os.environ["PREFOPT_CACHE"] = str(Path(job.folder) / "cache")
    run = compose([*job.overrides, f"dir={folder}"])
    check(run)
    torch.set_num_threads(job.threads)
    prepared = prepare_data(run, cache_folder(run.data))
    if prepared.left_out:
        raise RuntimeError(f"rows were left out: {prepared.left_out[:3]}")
    folder.mkdir(parents=True)
    write_folder(folder, State.NEW, run, run, prepared, plan_world(run), [])
    trainer = Trainer(folder)
    order = [trainer.rows[int(place)].id for step in trainer.plan.steps for place in step]
    reference_seconds = _reference_seconds(trainer, job) if job.has_reference else 0.0
    unique = [int(sum(trainer.rows.costs[step])) for step in trainer.plan.steps]
    stamps: list[tuple[float, float]] = []
    write = trainer.metrics.write

    def stamped(values: dict) -> None:
        write(values)
        if "loss" in values:
            stamps.append((time.perf_counter(), time.process_time()))

    trainer.metrics.write = stamped  # type: ignore[method-assign]
    peak: list[int] = []
    rates: list[float] = []
    save = trainer._save

    def measured() -> None:  # behind the last step, before anything is saved
        peak.append(peak_memory())
        rates.append(matrix_rate(SHAPES[job.shape], job.tokens, job.dtype, job.threads))
        save()

    trainer._save = measured  # type: ignore[method-assign]
    start = (time.perf_counter(), time.process_time())
    trainer.run()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    times = train_seconds([start, *stamps])
    steps = [Step(line["loss"], *t, tokens) for line, t, tokens in zip(lines, times, unique, strict=True)]
    Console().print(trainer.engine.in_force)
    return Result(steps, peak[0], reference_seconds, order, 0.0, rates[0])


def _reference_seconds(trainer: object, job: Job) -> float:
    """Seconds that scoring the reference takes for all rows of the job."""
    from prefopt.train.scoring import score, sequence_logps

    engine = trainer.engine  # type: ignore[attr-defined]
    engine.module.eval()
    start = time.perf_counter()
    score(engine, engine, sequence_logps(trainer.rows))  # type: ignore[attr-defined]
    seconds = time.perf_counter() - start
    engine.module.train()
    return seconds


if __name__ == "__main__":
    job = Job.read(Path(sys.argv[1]))
    measure(job).write(Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
