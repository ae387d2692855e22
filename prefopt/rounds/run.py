"""A loop from its command line to its end: checked whole, then step by step, each recorded when it is done.

What is done is not done again: a killed loop starts with the first step that rounds.json does not call done, and that
step goes on with what its own folder holds.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING

from prefopt.console import PLAIN, print_table
from prefopt.durable import clear_drafts
from prefopt.errors import RunError, UserError
from prefopt.lock import locked
from prefopt.rounds.check import check
from prefopt.rounds.child import Children, last_lines
from prefopt.rounds.compose import compose
from prefopt.rounds.record import Record, open_record
from prefopt.rounds.results import numbers_of, table
from prefopt.rounds.settings import Loop
from prefopt.rounds.unfold import Command, unfold, words_of
from prefopt.run_folder import make_folder

if TYPE_CHECKING:
    from rich.console import Console

SAVED = 75
"""Exit code of a command that was stopped by a signal and goes on when it is given again."""


def run_rounds(words: list[str], config_dir: Path | None = None, is_dry: bool = False) -> int:
    """Run, or go on with, the loop of a command line; 0 once all of it is done. is_dry: print its commands only.

    Raises: UserError for whatever cannot be, before anything is started; with exit code 75 after a signal. RunError
        where a step failed.
    """
    from rich.console import Console

    console = Console()
    loop = compose(words, config_dir)
    commands = unfold(loop)
    check(loop, commands, config_dir)
    record = open_record(loop)
    if is_dry:
        _print_commands(loop, commands, record, config_dir, console)
        return 0
    children = Children()
    make_folder(loop.folder)
    with children.heeding(), locked(loop.folder) as lock:
        lock.on_lost = children.kill
        clear_drafts(loop.folder)
        record = open_record(loop)
        record.save()
        console.print(f"{loop.settings.name}: {_said(loop, commands, record)}", style="bold", **PLAIN)
        for command in commands:
            if not record.is_done(command.where):
                _run_step(command, words_of(command, loop, config_dir), record, children)
    print_table(console, table(commands, record))
    return 0


def _run_step(command: Command, words: list[str], record: Record, children: Children) -> None:
    """One step to its end, recorded.

    Raises: RunError where it failed; UserError with exit code 75 where a signal ended it, or came before it.
    """
    if children.signal is not None:
        raise _stopped(children.signal, f"before {command.label}")
    for path in command.reads:
        if not Path(path).exists():
            raise RunError(
                f"{command.label} needs {path}, which is not there",
                "restore it; a step that is to be done again is taken out of rounds.json",
            )
    make_folder(command.folder.parent)
    record.begin(command.where, words)
    begun = time.monotonic()
    code = children.run(words, command.log, command.label)
    seconds = time.monotonic() - begun
    record.end(command.where, seconds, numbers_of(command) if code == 0 else None)
    if code == 0:
        return
    if children.ended_for:
        raise RunError(children.ended_for, "the same command goes on")
    if code == SAVED or (children.signal is not None and code > 128):
        raise _stopped(children.signal, f"in {command.label}")
    lines = last_lines(command.log)
    told = "\n    ".join([f"its last lines, all of them in {command.log}:", *lines])
    raise RunError(f"{command.label} failed with {_ending(code)}", told)


def _stopped(number: int | None, where: str) -> UserError:
    by = "a signal" if number is None else Signals(number).name
    return UserError(f"stopped by {by} {where}; what is done is saved", "the same command goes on", SAVED)


def _ending(code: int) -> str:
    if code <= 128:
        return f"exit code {code}"
    try:
        name = Signals(code - 128).name
    except ValueError:
        return f"exit code {code}"
    kernel = ", which the kernel also sends where memory runs out" if name == "SIGKILL" else ""
    return f"exit code {code} ({name}{kernel})"


def _said(loop: Loop, commands: Sequence[Command], record: Record) -> str:
    rounds = f"{loop.settings.rounds} round{'s' if loop.settings.rounds > 1 else ''}"
    done = sum(record.is_done(command.where) for command in commands)
    return f"{rounds}, {len(commands)} steps, {done} of them done, in {loop.folder}"


def _print_commands(
    loop: Loop, commands: Sequence[Command], record: Record, config_dir: Path | None, console: Console
) -> None:
    console.print(f"{loop.settings.name}: {_said(loop, commands, record)}", style="bold", **PLAIN)
    for command in commands:
        console.print(f"\n{command.label}{' (done)' if record.is_done(command.where) else ''}", style="bold", **PLAIN)
        console.print(shlex.join(["prefopt", *words_of(command, loop, config_dir)]), **PLAIN)
