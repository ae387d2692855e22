"""A run folder of `prefopt train` as something to measure: its model, its reference, and whether it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefopt.errors import UserError, did_you_mean
from prefopt.lock import holder
from prefopt.run_folder import EXIT, RESULT, RUN, read_json
from prefopt.settings import RunSettings, load

MODEL = "model"
"""Where a run that is done has its final model, or its adapters."""


@dataclass(frozen=True)
class Trained:
    """A run that is done. model: the folder of its final model. settings: as its run.yaml has them, paths real."""

    folder: Path
    settings: RunSettings
    model: str

    @property
    def reference(self) -> tuple[str, str | None]:
        """The model that the run compared with: the one that it names, else the one that it started from; and its
        revision on the hub, or None."""
        model = self.settings.model
        if model.reference is not None and model.reference != model.path:
            return model.reference, None
        return model.path, model.revision


def open_trained(path: str) -> Trained:
    """The run in a folder.

    Raises: UserError where there is none, or where it is not done, with how it stands.
    """
    folder = Path(path)
    if not folder.is_dir():
        beside = sorted(p.parent.name for p in folder.parent.glob(f"*/{RUN}"))
        raise UserError(f"run={path}: there is no such folder", did_you_mean(folder.name, beside[:100]))
    if not (folder / RUN).is_file():
        hint = "model=FOLDER measures any model" if (folder / "config.json").is_file() else f"it has no {RUN}"
        raise UserError(f"run={path}: this is no folder of prefopt train", hint)
    if read_json(folder / RESULT, "run") is None:
        raise _not_done(path, folder)
    if not (folder / MODEL).is_dir():
        raise UserError(f"run={path}: the run is done, but its folder {MODEL} is gone", "restore it, or model=FOLDER")
    return Trained(folder, load(folder / RUN), str(folder / MODEL))


def _not_done(path: str, folder: Path) -> UserError:
    """The error that says how a run without a result stands."""
    worker = holder(folder)
    if worker:
        return UserError(f"run={path}: the run still goes on ({worker})", "wait for it; prefopt sweep status shows it")
    said = read_json(folder / EXIT, "run") or {}
    message = str(said.get("message") or "").split("\n")[0]
    go_on = "give the command that started it once more: it goes on from what is saved"
    if said.get("exit_code") == 75:
        return UserError(f"run={path}: the run was stopped before its end", go_on)
    if message:
        return UserError(f"run={path}: the run failed: {message}", go_on)
    return UserError(f"run={path}: the run did not come to its end: there is no {RESULT}", go_on)
