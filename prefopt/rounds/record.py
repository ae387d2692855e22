"""rounds.json: what a loop's folder holds and which steps are done, true after every change, synced onto the disk.

{"recipe": ..., "settings": {...}, "steps": {"round-1/train": {"state": "done", "starts": [...], "seconds": 61.2,
 "words": [...], "numbers": {"accuracy": 0.91}}}}
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefopt.disk import write_whole
from prefopt.errors import UserError
from prefopt.manifest import differences
from prefopt.rounds.settings import Loop, deciding
from prefopt.run_folder import LOCK, read_json

RECORD = "rounds.json"
BEGUN, DONE = "begun", "done"


@dataclass
class StepRecord:
    """What is known of one step. state: begun or done. starts: when, UTC. seconds: of all starts whose end was seen.

    words: what follows `prefopt`, of the last start. numbers: label to value, of what it left.
    """

    state: str = BEGUN
    starts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    words: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass
class Record:
    """rounds.json of one folder. steps: by the place of the step."""

    folder: Path
    recipe: str
    settings: dict[str, Any]
    steps: dict[str, StepRecord] = field(default_factory=dict)

    def is_done(self, where: str) -> bool:
        """Whether a step has ended well."""
        return where in self.steps and self.steps[where].state == DONE

    def begin(self, where: str, words: list[str]) -> None:
        """Note that a step is started, once more or for the first time."""
        step = self.steps.setdefault(where, StepRecord())
        step.starts.append(datetime.now(UTC).isoformat(timespec="seconds"))
        step.words = words
        self.save()

    def end(self, where: str, seconds: float, numbers: dict[str, float] | None) -> None:
        """Note how long a start took; numbers: of a step that is done, None for one that is not."""
        step = self.steps[where]
        step.seconds += seconds
        if numbers is not None:
            step.state, step.numbers = DONE, numbers
        self.save()

    def save(self) -> None:
        """Write it whole.

        Raises: RunError where it cannot be written.
        """
        steps = {where: asdict(step) for where, step in self.steps.items()}
        plain = {"recipe": self.recipe, "settings": self.settings, "steps": steps}
        write_whole(self.folder / RECORD, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def open_record(loop: Loop) -> Record:
    """The record of the loop's folder; a new one where the folder is not there or empty. Changes nothing.

    Raises: UserError where the folder holds something else: another loop, with the list of differences.
    """
    folder, settings = loop.folder, deciding(loop.settings)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder", "another place: dir=FOLDER")
    found = read_json(folder / RECORD)
    if found is None:
        names = sorted(p.name for p in folder.iterdir()) if folder.exists() else []
        if foreign := [name for name in names if name != LOCK and not name.startswith(".")]:
            raise UserError(
                f"{folder} is not a loop: it holds {foreign[0]} and no {RECORD}", "another place: dir=FOLDER"
            )
        return Record(folder, loop.shown, settings)
    try:
        steps = {where: StepRecord(**step) for where, step in found["steps"].items()}
        record = Record(folder, found["recipe"], found["settings"], steps)
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / RECORD} is not of this version of prefopt", "another place: dir=FOLDER") from None
    if differing := differences(record.settings, json.loads(json.dumps(settings))):
        listed = "\n  ".join(str(difference) for difference in differing)
        raise UserError(
            f"{folder} holds another loop; it is left as it is. What differs (there -> here):\n  {listed}",
            "start a new loop by dir=FOLDER, or repeat the settings of this one",
        )
    return record
