"""Python and its packages, cores, memory, disks: what every run stands on. A container's limits count."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from prefopt.cache import cache_folder
from prefopt.disk import size
from prefopt.doctor.finding import Finding, ok, problem, warning
from prefopt.settings import DataSettings

OLDEST_PYTHON = (3, 11)
ROOM = 5 * 2**30
"""Bytes below which a disk is warned of: checkpoints of a 1B model with AdamW take about 16 GiB, of a tiny one 1."""
MEMORY = 4 * 2**30


def python() -> Iterator[Finding]:
    """The interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield problem("python", found, f"prefopt needs {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    else:
        yield ok("python", found)


def packages() -> Iterator[Finding]:
    """What prefopt itself requires, by its own metadata: everything without an extra, in the version that it wants."""
    yield required(requires("prefopt") or [])


def required(requirements: list[str]) -> Finding:
    """Whether each requirement without an extra is installed in a version that it allows."""
    from packaging.requirements import Requirement

    wrong = []
    seen = 0
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        seen += 1
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} is {installed}, {requirement.specifier} is needed")
    if wrong:
        return problem("packages", "; ".join(wrong), "pip install --upgrade prefopt puts them right")
    return ok("packages", f"the {seen} that prefopt needs are there")


def cores() -> Iterator[Finding]:
    """The cores that this process may use, and what OpenMP was told about them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield threads(usable, os.environ)


def threads(usable: int, environment: Mapping[str, str]) -> Finding:
    """usable: cores. environment: the variables, OMP_* among them."""
    told = [f"{k}={environment[k]}" for k in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY") if k in environment]
    found = f"{usable} usable{', ' + ', '.join(told) if told else ''}"
    number = environment.get("OMP_NUM_THREADS", "")
    if number.isdigit() and int(number) > usable:
        return warning("cores", found, f"more threads than cores wait for each other: OMP_NUM_THREADS={usable}")
    if not environment.get("OMP_WAIT_POLICY"):
        return ok("cores", found, "beside other busy processes OMP_WAIT_POLICY=passive saves much time")
    return ok("cores", found)


def memory() -> Iterator[Finding]:
    """Memory that is free, that of the container where that is less, and what /dev/shm has for data loaders."""
    import psutil

    about = psutil.virtual_memory()
    limit = container_limit(Path("/sys/fs/cgroup"))
    free, total = about.available, about.total
    if limit is not None and limit < total:
        free, total = min(free, limit), limit
    found = f"{size(free)} free of {size(total)}"
    if free < MEMORY:
        yield warning(
            "memory", found, "a 0.5B model in float32 with AdamW takes 8 GiB: prefopt plan says what yours does"
        )
    else:
        yield ok("memory", found)


def container_limit(root: Path) -> int | None:
    """The memory, in bytes, that the container may use; None where it has no limit. root: the cgroup file system."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        return int(text) if text.isdigit() else None
    return None


def disks() -> Iterator[Finding]:
    """Room and permission where runs, the cache and downloaded models go."""
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME") or "~/.cache/huggingface"
    yield disk("disk of runs/", Path("runs"), "another place: dir=FOLDER")
    yield disk("disk of the cache", cache_folder(DataSettings()), "another place: PREFOPT_CACHE=FOLDER")
    yield disk("disk of the hub cache", Path(hub).expanduser(), "another place: HF_HOME=FOLDER")


def disk(name: str, folder: Path, elsewhere: str) -> Finding:
    """Whether `folder`, or the nearest one above it that exists, can be written and has room."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        return problem(name, f"{there} is a file", elsewhere)
    if not os.access(there, os.W_OK | os.X_OK):
        return problem(name, f"{there} cannot be written", elsewhere)
    free = shutil.disk_usage(there).free
    found = f"{size(free)} free at {folder.absolute()}"
    if free < ROOM:
        return warning(
            name, found, f"checkpoints hold weights and two moments; prefopt plan says how much; {elsewhere}"
        )
    return ok(name, found)
