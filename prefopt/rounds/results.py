"""The one or two numbers that a done step is told by, and the table of all steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefopt.rounds.record import DONE, Record
from prefopt.rounds.unfold import Command
from prefopt.run_folder import RESULT, read_json


def numbers_of(command: Command) -> dict[str, float]:
    """What a step has left: accuracy and margin of the last evaluation, else its loss; rows that were written.

    Raises: UserError where result.json holds something else.
    """
    return {"train": _of_training, "pairs": _of_pairs}[command.step.run](command.folder)


def _of_training(folder: Path) -> dict[str, float]:
    after = (read_json(folder / RESULT) or {}).get("after") or {}
    for wanted in (("rewards/accuracy", "rewards/margin"), ("loss",)):
        found = {}
        for name in wanted:
            values = [after[key] for key in sorted(after) if key.startswith("eval/") and key.endswith(f"/{name}")]
            if values and isinstance(values[0], int | float):  # of the first evaluation set
                found[name.rpartition("/")[2]] = float(values[0])
        if found:
            return found
    return {}


def _of_pairs(folder: Path) -> dict[str, float]:
    file = folder / "pairs.jsonl"
    if not file.is_file():
        return {}
    with open(file, "rb") as rows:
        return {"rows": float(sum(1 for _ in rows))}


def table(commands: Sequence[Command], record: Record) -> Any:
    """All steps, one row each, whether they are done or not."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table("step", "round", header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    made.add_column("seconds", justify="right", no_wrap=True)
    made.add_column("result")
    for command in commands:
        step = record.steps.get(command.where)
        seconds, said = "", "not started"
        if step is not None:
            seconds, said = f"{step.seconds:.0f}", "begun"
            if step.state == DONE:
                said = ", ".join(f"{label} {value:.4g}" for label, value in step.numbers.items())
        place = str(command.round) if command.round else command.place.partition("-")[0]
        made.add_row(*(Text(cell, overflow="fold") for cell in (command.step.name, place, seconds, said)))
    return made
