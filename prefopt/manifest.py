"""What a run folder records besides run.yaml, so that the folder alone tells how the run came about.

`settings` are the composed ones, before `demo://` became a path of this machine: a later start is compared with them.
Hashes of data and tokenizer are inside the data fingerprint. Standard library only.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prefopt.masking import masked_values

PACKAGES = (
    "prefopt",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "deepspeed",
    "peft",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "numpy",
    "pyarrow",
)
"""Packages whose version can change a number."""


def new_manifest(
    settings: dict[str, Any], identity: str, fingerprint: str, world: dict[str, Any], command: list[str]
) -> dict[str, Any]:
    """The manifest of a run that starts now.

    settings: the composed run as plain dicts. fingerprint: of the encoded data. world: device, number of processes and
    engine of the first start.
    """
    return {
        "identity": identity,
        "settings": settings,
        "data_fingerprint": fingerprint,
        "world": world,
        "seeds": {"train.seed": settings["train"]["seed"]},
        "starts": [start_record(command, world)],
    }


def start_record(command: list[str], world: dict[str, Any]) -> dict[str, Any]:
    """One start of a run: when, by which command line, where and by which engine, with which versions and code.

    Secrets are masked: the command line has also what is no setting of the run.
    """
    about = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "world": world,
        "working_directory": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "git": git_state(),
    }
    return {key: masked_values(value) for key, value in about.items()}


def package_versions() -> dict[str, str]:
    """Versions of the installed packages in `PACKAGES`, read from metadata: nothing is imported."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # an optional package that is not there has no version to record
    return versions


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory and whether tracked files differ from it; None outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for every dotted key that differs between two nested mappings, lists entered by place."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = [*before, *(key for key in after if key not in before)]
    absent = "nothing"
    return [
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in keys
        if key not in before or key not in after or before[key] != after[key]
    ]


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    items: Iterator[tuple[Any, Any]] | None = None
    if isinstance(value, Mapping) and value:
        items = iter(value.items())
    elif isinstance(value, list) and value:
        items = iter(enumerate(value))
    if items is None:
        yield where, "null" if value is None else value
        return
    for key, item in items:
        yield from _flat(item, f"{where}.{key}" if where else str(key))
