"""How a run came out, as plain values: what `prefopt train --json` prints and `prefopt.api.train` returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.run_folder import EXIT, RESULT, read_json

STATES = {0: "done", 75: "stopped"}


def ended(folder: Path, exit_code: int | None) -> dict[str, Any]:
    """The end of the run in `folder`.

    dir: the run's folder. state: done, stopped (it saved, and the same command goes on), failed, or unfinished where
    nobody wrote down how it ended. exit_code: of the command; given as None where only the folder is known. model: the
    trained model's folder, and result: what result.json holds; null where the run is not done. message: why it is not,
    as it was said; null where it is, or where nobody could say.

    Raises: UserError where a file of the folder is damaged.
    """
    result = read_json(folder / RESULT)
    said = None if result is not None else read_json(folder / EXIT)
    code = int(said["exit_code"]) if exit_code is None and said is not None else exit_code
    state = "done" if result is not None else "unfinished" if code is None else STATES.get(code, "failed")
    model = folder / "model"
    return {
        "dir": str(folder),
        "state": state,
        "exit_code": code,
        "model": str(model) if result is not None and model.is_dir() else None,
        "result": result,
        "message": None if said is None else said.get("message"),
    }
