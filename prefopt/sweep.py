"""`prefopt train -m`: every combination of comma-separated values, one run after the other, one table at the end.

Each job is an ordinary run in its own folder, started as `prefopt train` of its own; a job that is done is not run
again, one that failed or was stopped goes on. The sweep's folder holds a log per job and sweep.json, which is true at
any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from prefopt.checks import check
from prefopt.config import compose_with_origins, identity
from prefopt.console import PLAIN
from prefopt.errors import FAILURE, UserError
from prefopt.overrides import parse
from prefopt.ranks import plan_world
from prefopt.run_folder import EXIT, RESULT, State, find_state, make_folder, read_json, write_whole

if TYPE_CHECKING:
    from rich.console import Console

STOPPED = 75
HEADLINES = ("loss", "rewards/accuracy", "rewards/margin")
"""Metrics of the last evaluation that the table shows, of the first evaluation set."""


@dataclass
class Job:
    """One run of a sweep. state: waiting, running, done, failed or stopped. error: its last one, in one line."""

    number: int
    overrides: list[str]
    varied: list[str]
    identity: str
    dir: str
    log: str = ""
    state: str = "waiting"
    exit_code: int | None = None
    error: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


def sweep(overrides: list[str], config_dir: Path | None, list_only: bool = False) -> int:
    """Run every combination; 0 where all are done, 1 where one failed, 128 + number after a signal.

    list_only: print the jobs and do nothing else.

    Raises: UserError, before anything starts, that names every job that cannot be composed or is refused by a check.
    """
    from rich.console import Console

    console = Console()
    jobs, notes = plan_jobs(overrides, config_dir)
    for note in notes:
        print(f"prefopt: {note}", file=sys.stderr)
    if list_only:
        for job in jobs:
            console.print(f"job {job.number}: {' '.join(job.varied)} -> {job.dir}", **PLAIN)
        return 0
    folder = Path("sweeps") / sweep_name(jobs)
    make_folder(folder)
    for job in jobs:
        job.log = str(folder / f"job-{job.number}.log")
    code = _Runner(folder, jobs, config_dir, console).run()
    console.print(table(jobs))
    console.print(f"logs and sweep.json in {folder}", **PLAIN)
    return code


def expand(overrides: list[str]) -> list[tuple[list[str], list[str]]]:
    """Every combination: (all overrides of the job, those of them that vary), in the order of the command line.

    Raises: UserError where nothing varies, or by an interval or a glob.
    """
    choices: list[list[str]] = []
    varies: list[bool] = []
    for text in overrides:
        override = parse(text)
        is_sweep = override.is_sweep_override()
        if is_sweep and (not override.is_discrete_sweep() or "glob(" in text):
            raise UserError(f"{text}: only listed values and range() can be swept over", "key=value,value,...")
        values = [f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()] if is_sweep else [text]
        choices.append(values)
        varies.append(is_sweep)
    if not any(varies):
        raise UserError("-m: no key has several values", "for instance loss.beta=2,2.5,10; or leave -m out")
    return [(list(job), [text for text, varied in zip(job, varies) if varied]) for job in product(*choices)]


def plan_jobs(overrides: list[str], config_dir: Path | None) -> tuple[list[Job], list[str]]:
    """The jobs, each composed and checked, and the notes to print.

    Raises: UserError that names every bad job, and two jobs that would be the same run or share a folder.
    """
    jobs: list[Job] = []
    bad: list[str] = []
    notes: dict[str, None] = {}
    for number, (job_overrides, varied) in enumerate(expand(overrides), start=1):
        try:
            composition = compose_with_origins(job_overrides, config_dir)
            run = composition.run
            check(run)
            plan_world(run)
            state = find_state(Path(run.dir), run, None)
        except UserError as error:
            bad.append(f"job {number} ({' '.join(varied)}): {error}")
            continue
        notes.update(dict.fromkeys(composition.notes))
        job = Job(number, job_overrides, varied, identity(run), run.dir)
        if state is State.DONE:
            job.state, job.exit_code, job.metrics = "done", 0, _metrics(Path(run.dir))
        same = next((other for other in jobs if other.dir == job.dir), None)
        if same is not None:
            bad.append(f"job {number} ({' '.join(varied)}): has the folder of job {same.number}, {job.dir}")
        jobs.append(job)
    if bad:
        raise UserError("nothing was started:\n  " + "\n  ".join(bad))
    return jobs, list(notes)


def sweep_name(jobs: list[Job]) -> str:
    """Name of the first run and a hash of all jobs: the same command finds the same folder."""
    text = json.dumps(sorted(job.dir for job in jobs))
    first = Path(jobs[0].dir).name.removesuffix(f"-{jobs[0].identity}")
    return f"{first}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def table(jobs: list[Job]) -> Any:
    """All jobs, one row each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = [name for name in HEADLINES if any(name in headline_metrics(job.metrics) for job in jobs)]
    made = Table("job", "what varies", header_style="bold", box=SIMPLE_HEAD)
    for heading in ("state", "exit", *(name.rpartition("/")[2] for name in shown)):
        made.add_column(heading, no_wrap=True)
    made.add_column("error")
    made.add_column("log", no_wrap=True)
    for job in jobs:
        found = headline_metrics(job.metrics)
        numbers = [f"{found[name]:.4g}" if name in found else "" for name in shown]
        code = "" if job.exit_code is None else str(job.exit_code)
        cells = [str(job.number), " ".join(job.varied), job.state, code, *numbers, job.error, Path(job.log).name]
        made.add_row(*(Text(cell, overflow="fold") for cell in cells))
    return made


def headline_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """`HEADLINES` of the first evaluation set, from names like eval/heldout/rewards/accuracy."""
    sets = list(dict.fromkeys(name.split("/")[1] for name in metrics if name.count("/") > 1))
    if not sets:
        return {}
    return {name: metrics[key] for name in HEADLINES if (key := f"eval/{sets[0]}/{name}") in metrics}


class _Runner:
    """Runs jobs one after the other and keeps sweep.json true."""

    def __init__(self, folder: Path, jobs: list[Job], config_dir: Path | None, console: Console) -> None:
        self.folder = folder
        self.jobs = jobs
        self.config_dir = config_dir
        self.console = console
        self.process: subprocess.Popen[bytes] | None = None
        self.signal: int | None = None

    def run(self) -> int:
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.signal(number, self._forward) for number in handled}
        try:
            for job in self.jobs:
                if job.state != "done" and self.signal is None:
                    self._run_job(job)
                self._record()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self.signal is not None:
            return 128 + self.signal
        return FAILURE if any(job.state != "done" for job in self.jobs) else 0

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def _run_job(self, job: Job) -> None:
        self.console.print(
            f"\njob {job.number} of {len(self.jobs)}: {' '.join(job.varied)}, log in {job.log}", style="bold", **PLAIN
        )
        job.state = "running"
        self._record()
        config = [] if self.config_dir is None else ["--config-dir", str(self.config_dir)]
        arguments = [sys.executable, "-m", "prefopt.cli", "train", *config, *job.overrides]
        job.exit_code = self._tee(arguments, Path(job.log))
        job.state = {0: "done", STOPPED: "stopped"}.get(job.exit_code, "failed")
        if job.exit_code == 0:
            job.metrics = _metrics(Path(job.dir))
        else:
            job.error = _last_error(Path(job.dir), Path(job.log))

    def _tee(self, arguments: list[str], log: Path) -> int:
        """Run a command with its output on the terminal and in a file; its exit code."""
        sys.stdout.flush()
        # A session of its own: a signal from the terminal reaches it once, through `_forward`.
        self.process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        with open(log, "wb") as file:
            for line in self.process.stdout:
                file.write(line)
                file.flush()
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        code = self.process.wait()
        return 128 - code if code < 0 else code

    def _record(self) -> None:
        record = {"jobs": [asdict(job) for job in self.jobs]}
        write_whole(self.folder / "sweep.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _metrics(folder: Path) -> dict[str, float]:
    result = read_json(folder / RESULT)
    return dict(result.get("metrics", {})) if result is not None else {}


def _last_error(folder: Path, log: Path) -> str:
    """The last error in one line: what a rank wrote down, else the last complaint in the log, else its last line."""
    said = read_json(folder / EXIT)
    if said is not None and said.get("message"):
        return str(said["message"]).splitlines()[0]
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    complaints = [line.removeprefix("prefopt: ") for line in lines if line.startswith("prefopt: ")]
    return (complaints or lines or ["no output"])[-1]
