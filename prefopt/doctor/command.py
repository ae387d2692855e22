"""Runs every probe, prints the table, and says by the exit code whether a default run would work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from threading import Thread
from typing import TYPE_CHECKING

from prefopt import __version__
from prefopt.console import PLAIN
from prefopt.doctor import devices, extras, machine, surroundings
from prefopt.doctor.finding import Finding, State, warning
from prefopt.errors import FAILURE

if TYPE_CHECKING:
    from rich.console import Console

Probe = Callable[[], Iterable[Finding]]

PROBES: tuple[tuple[str, Probe, float], ...] = (
    ("python", machine.python, 5),
    ("packages", machine.packages, 20),
    ("torch", devices.torch_and_devices, 240),
    ("cores", machine.cores, 5),
    ("memory", machine.memory, 10),
    ("disk", machine.disks, 20),
    ("DeepSpeed", extras.deepspeed, 10),
    ("bitsandbytes", extras.bitsandbytes, 5),
    ("trackers", extras.trackers, 10),
    ("SLURM", surroundings.slurm, 10),
    ("hub", surroundings.hub, 30),
)
"""Name, probe, and the seconds after which it is given up: a file system that is gone hangs whoever asks for it."""

STYLES = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red"}


def findings(probes: Iterable[tuple[str, Probe, float]] = PROBES) -> Iterator[Finding]:
    """What each probe finds, one after another; a probe that fails or hangs is a warning of its own."""
    for name, probe, seconds in probes:
        said: list[Finding] = []
        # What hangs in the system cannot be stopped: a daemon is left behind, and `doctor` ends without it.
        asking = Thread(target=_ask, args=(name, probe, said), daemon=True)
        asking.start()
        asking.join(seconds)
        yield from tuple(said)
        if asking.is_alive():
            yield warning(name, f"no answer within {seconds:g} s", "something that it asks hangs: a disk, a driver?")


def _ask(name: str, probe: Probe, said: list[Finding]) -> None:
    try:
        said.extend(probe())
    except Exception as error:  # whatever a broken installation raises is what is wanted here
        line = (str(error).splitlines() or [""])[0][:200]
        said.append(
            warning(name, f"could not be asked: {type(error).__name__}: {line}", "see whether it is installed well")
        )


def doctor(console: Console, as_json: bool) -> int:
    """Print what was found; 1 where a run with default settings would fail, else 0."""
    found = []
    if not as_json:
        console.print(f"prefopt {__version__}", **PLAIN)
    for finding in findings():
        found.append(finding)
        if not as_json:
            _show(console, finding)
    states = [f.state for f in found]
    if as_json:
        print(json.dumps({"version": __version__, "findings": [asdict(f) for f in found]}, indent=2))
    else:
        console.print(summary(states), **PLAIN)
    return FAILURE if State.PROBLEM in states else 0


def summary(states: list[State]) -> str:
    """The last line."""
    problems, warnings = states.count(State.PROBLEM), states.count(State.WARNING)
    if problems:
        return f"{problems} {'problem' if problems == 1 else 'problems'}: a run with default settings will fail"
    if warnings:
        return f"a run with default settings works; {warnings} {'warning' if warnings == 1 else 'warnings'} for others"
    return "all is well"


def _show(console: Console, finding: Finding) -> None:
    """One line, as soon as it is known, and what to do on the next."""
    from rich.text import Text

    line = Text()
    line.append(f"{finding.state.value:<8}", style=STYLES[finding.state])
    line.append(f"{finding.name}: {finding.found}")
    console.print(line, soft_wrap=True)
    if finding.advice:
        console.print(f"        {finding.advice}", **PLAIN)
