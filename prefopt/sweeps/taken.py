"""Which sweep a command is about, and how its runs are started."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from prefopt.console import PLAIN
from prefopt.errors import UserError
from prefopt.sweeps.groups import Starting, split
from prefopt.sweeps.jobs import Job
from prefopt.sweeps.launcher import Launcher, make_launcher
from prefopt.sweeps.record import Sweep, find, here


def take(folder: Path | None, console: Any = None) -> Sweep:
    """The sweep of a folder, or the newest one; which one that is, where nobody said it, is a line on the console.

    console: None where stdout is for a program.

    Raises: UserError as `prefopt.sweeps.record.find`.
    """
    count = len(here())
    made = find(folder)
    if folder is None and console is not None:
        others = f", the newest of {count}; another: prefopt sweep COMMAND DIR" if count > 1 else ""
        console.print(f"sweep: {made.folder}{others}", **PLAIN)
    return made


def numbered(made: Sweep, numbers: Collection[int], fits: Callable[[Job], bool], doing: str) -> list[Job]:
    """The jobs of these numbers. fits: whether there is anything of a job to do; doing: what, for the message.

    Raises: UserError where there is none of a number, or it does not fit.
    """
    known = {job.number: job for job in made.jobs}
    for number in numbers:
        if number not in known:
            raise UserError(f"--job {number}: {made.folder} has no such job", f"it has 1 to {len(known)}")
        if not fits(known[number]):
            raise UserError(f"--job {number}: there is nothing of it to {doing}, it is {known[number].state}")
    return [known[number] for number in dict.fromkeys(numbers)]


def launcher_of(made: Sweep) -> Launcher:
    """The launcher that a sweep was last started by."""
    return make_launcher(starting_of(made, []).launcher)


def starting_of(made: Sweep, words: list[str]) -> Starting:
    """How a sweep's runs are started. words: hydra/launcher=NAME and its keys, where that is to differ.

    Raises: UserError for words of the runs, or of what chooses them.
    """
    config_dir = None if made.config_dir is None else Path(made.config_dir)
    rest, starting = split(words, config_dir, made.starting)
    if rest:
        raise UserError(
            f"{rest[0]}: the runs of a sweep are what they are, only hydra/launcher=NAME may differ",
            "another value is another sweep: `prefopt train -m` with it; runs of it that are done are not made again",
        )
    if "hydra/sweeper" in starting.given:
        raise UserError("hydra/sweeper: what a sweep chooses from is what it is", "give its command with other values")
    return starting
