"""What lies outside of this machine: SLURM and the Hugging Face hub. A token is known to be there and never shown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from prefopt.doctor.finding import Finding, ok, warning
from prefopt.slurm.commands import unanswered

SLURM = ("sbatch", "squeue", "sacct", "scancel", "sinfo")
SECONDS = 5.0
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def slurm() -> Iterator[Finding]:
    """Whether hydra/launcher=slurm can start jobs from here."""
    trouble = unanswered(SECONDS) if shutil.which("sinfo") else ""
    yield slurm_programs(shutil.which, os.environ.get("SLURM_JOB_ID"), _has("submitit"), trouble)


def slurm_programs(
    which: Callable[[str], str | None], job: str | None, has_submitit: bool, trouble: str = ""
) -> Finding:
    """which: path of a program or None. job: the SLURM job that this process is in.

    trouble: why the controller does not answer; empty where it does.
    """
    there = [name for name in SLURM if which(name)]
    if not there:
        return ok("SLURM", "not here; hydra/launcher=slurm needs it")
    missing = [name for name in SLURM if name not in there]
    found = f"{', '.join(there)}{f'; inside of job {job}' if job else ''}"
    if missing:
        return warning(
            "SLURM", found, f"{', '.join(missing)} not found: log in to a node that has it, or ask its people"
        )
    if trouble:
        return warning("SLURM", f"{found}; {trouble}", "hydra/launcher=slurm works on a login node of the cluster")
    found += "; the controller answers"
    if not has_submitit:
        return warning("SLURM", found, "hydra/launcher=slurm also needs pip install 'prefopt[slurm]'")
    return ok("SLURM", found)


def hub() -> Iterator[Finding]:
    """Whether models and data can be fetched by name."""
    from huggingface_hub import constants, get_token

    token = get_token() is not None
    switch = offline_switch(os.environ)
    if switch:
        yield hub_answer(f"offline by {switch}", token, reached=None)
        return
    trouble = _head(constants.ENDPOINT)
    yield hub_answer(trouble or f"{constants.ENDPOINT} answers", token, reached=not trouble)


def hub_answer(said: str, has_token: bool, reached: bool | None) -> Finding:
    """said: how it went. reached: None where it was not asked, because a variable says that there is no network."""
    found = f"{said}; token {'found' if has_token else 'not found (gated models need one: hf auth login)'}"
    if reached is False:
        return warning(
            "hub", found, "local folders and what is cached work; set HF_HUB_OFFLINE=1, or HTTPS_PROXY for a proxy"
        )
    if reached is None:
        return ok("hub", found, "only local folders and what is cached can be used")
    return ok("hub", found)


def offline_switch(environment: Mapping[str, str]) -> str:
    """The variable that keeps the libraries off the network; empty where none does."""
    for name in OFFLINE:
        if environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{name}={environment[name]}"
    return ""


def _head(url: str) -> str:
    """One HEAD request; empty where there was an answer, whichever."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, method="HEAD"), timeout=SECONDS):
            return ""
    except HTTPError:
        return ""  # an answer, if not a friendly one
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"{url} does not answer ({reason})"


def _has(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
