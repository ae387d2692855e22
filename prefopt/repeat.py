"""`--repeat DIR`: the run of a folder once more, in a new folder, from what the old one recorded and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from prefopt.config import Composition
from prefopt.errors import UserError
from prefopt.fill import from_mapping
from prefopt.merge import leaves
from prefopt.overrides import Set, read_overrides
from prefopt.run_folder import MANIFEST, read_json
from prefopt.settings import RunSettings

_OF = " (of "
"""Between the file that set a value and the run folder that says so."""


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
    origins = _origins(run, manifest.get("sources") or {}, folder)
    if overrides:
        origins["dir"] = "command line"
    return Composition(run, origins, ()), manifest["data_fingerprint"]


def _origins(run: RunSettings, recorded: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Where each setting of a repeated run is from: what set it in the run of `folder`, or in one which that repeats.

    recorded: empty in the manifest of an older prefopt, which is then all that can be named.
    """
    origins = {}
    for key, _ in leaves(asdict(run)):
        said = recorded.get(key)
        first = said if said is None or _OF in said else f"{said}{_OF}{folder})"
        origins[key] = first or str(folder / MANIFEST)
    return origins | {"dir": f"--repeat {folder}"}
