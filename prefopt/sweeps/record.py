"""sweep.json: all that is known of a sweep, true after every change, read by any later command from any shell."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefopt.disk import write_whole
from prefopt.errors import UserError
from prefopt.run_folder import read_json
from prefopt.sweeps.jobs import Job
from prefopt.sweeps.states import settle

SWEEPS = Path("sweeps")
"""Where the folders of sweeps lie, in the working directory of the command."""

RECORD = "sweep.json"


@dataclass
class Sweep:
    """A sweep. words: overrides of the run with the values that vary. config_dir: of the command line.

    working_directory: where the command was given; all paths are relative to it. starting: group to settings
    (`prefopt/sweeps/groups.py`). metric: by which jobs are compared; direction: minimize or maximize. made_at: when its
    command was first given, ISO 8601 in UTC to the microsecond.
    """

    folder: Path
    words: list[str]
    config_dir: str | None
    working_directory: str
    starting: dict[str, dict[str, Any]]
    metric: str | None
    direction: str
    jobs: list[Job] = field(default_factory=list)
    made_at: str = field(default_factory=lambda: _iso(datetime.now(UTC)))

    def place(self, job: Job) -> None:
        """Give a new job its files and its command line."""
        job.log = str(self.folder / f"job-{job.number}.log")
        job.note = str(self.folder / f"job-{job.number}.json")
        config = [] if self.config_dir is None else ["--config-dir", self.config_dir]
        job.words = ["train", *config, *job.overrides]

    def record(self, job: Job) -> None:
        """Settle the state of a job that has changed, and write sweep.json."""
        settle(job)
        self.save()

    def save(self) -> None:
        """Write sweep.json whole.

        Raises: RunError where it cannot be written.
        """
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("folder", "jobs")}
        plain["jobs"] = [asdict(job) for job in self.jobs]
        write_whole(self.folder / RECORD, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def load(folder: Path) -> Sweep | None:
    """The sweep of a folder; None where it has no sweep.json.

    Raises: UserError where sweep.json holds something else.
    """
    plain = read_json(folder / RECORD)
    if plain is None:
        return None
    plain.setdefault("made_at", _touched_at(folder / RECORD))  # of a version that did not record it
    try:
        jobs = [Job(**job) for job in plain.pop("jobs")]
        return Sweep(folder=folder, jobs=jobs, **plain)
    except (TypeError, KeyError):
        raise UserError(
            f"{folder / RECORD} is not of this version of prefopt",
            "give the command of the sweep once more: what is done is not run again",
        ) from None


def here() -> list[Path]:
    """The folders of the sweeps of this working directory, by when each was first made; the newest last.

    Not by when they were last touched: to look at an old sweep, or to resume it, does not make it the newest.
    """
    return [file.parent for file in sorted(SWEEPS.glob(f"*/{RECORD}"), key=lambda file: (_made_at(file), file))]


def find(folder: Path | None) -> Sweep:
    """The sweep of a folder, or the newest one; this process then is where the sweep's paths are relative to.

    Raises: UserError where there is none, or its working directory is gone.
    """
    if folder is None:
        found = here()
        if not found:
            raise UserError("there is no sweep here", "prefopt sweep COMMAND DIR, where DIR is the folder of a sweep")
        folder = found[-1]
    sweep = load(folder)
    if sweep is None:
        raise UserError(f"{folder} is no sweep: it has no {RECORD}", _others())
    home = Path(sweep.working_directory)
    if not home.is_dir():
        raise UserError(f"{folder / RECORD}: its working directory {home} is gone")
    sweep.folder = Path(os.path.relpath(folder.resolve(), home))
    os.chdir(home)
    return sweep


def _made_at(file: Path) -> str:
    try:
        plain = read_json(file) or {}
    except UserError:  # damaged: said where somebody asks for this sweep
        plain = {}
    return str(plain.get("made_at") or _touched_at(file))


def _touched_at(file: Path) -> str:
    return _iso(datetime.fromtimestamp(file.stat().st_mtime, UTC))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def _others() -> str:
    names = sorted(str(file.parent) for file in SWEEPS.glob(f"*/{RECORD}"))
    return "sweeps here: " + ", ".join(names[:5]) if names else "there is no sweep here"
