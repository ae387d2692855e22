"""`--repeat DIR`: the run of a folder once more, in a new folder, from what the old one recorded and nothing else."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from prefopt.config import Composition
from prefopt.errors import UserError
from prefopt.fill import from_mapping
from prefopt.merge import leaves
from prefopt.overrides import Set, read_overrides
from prefopt.run_folder import MANIFEST, read_json
from prefopt.settings import RunSettings


def repeat(folder: Path, overrides: list[str]) -> tuple[Composition, str]:
    """The recorded run, to be trained in `dir=...` (default: FOLDER-repeat), and the fingerprint its data must have.

    Raises: UserError where the folder is no run or was changed on the way (`--allow-change`), or something but `dir` is
        to be changed: that would be another run.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        raise UserError(f"--repeat: {folder} has no {MANIFEST}", "give the folder of a run")
    if changed := [change["key"] for start in manifest["starts"] for change in start.get("changes", [])]:
        raise UserError(
            f"--repeat: {folder} went on with another {changed[0]} after it had begun, which no command repeats",
            f"{folder / MANIFEST} says when; train with the settings you want",
        )
    run = replace(from_mapping(RunSettings, manifest["settings"]), dir=f"{str(folder).rstrip('/')}-repeat")
    for override in read_overrides(overrides):
        if not (isinstance(override, Set) and override.key == "dir"):
            raise UserError(f"--repeat takes no {override.text}: that would be another run", "only dir=FOLDER")
        run = replace(run, dir=str(override.value))
    origins = {key: str(folder / MANIFEST) for key, _ in leaves(asdict(run))}
    return Composition(run, origins, ()), manifest["data_fingerprint"]
