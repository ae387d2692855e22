"""A real SLURM on this machine: two nodes, one controller, accounting; skipped where its packages are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rig import Cluster

HERE = Path(__file__).resolve().parent
PACKAGES = "munge slurmctld slurmd slurm-client slurmdbd mariadb-server-core mariadb-client-core"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "slurmdbd", "mariadbd", "mariadb-install-db")


@pytest.fixture(scope="session")
def start_cluster() -> Iterator[Callable[..., Cluster]]:
    """Starts a SLURM of its own with these options; all are stopped and deleted at the end."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"needs a SLURM, and there is no {missing[0]}: apt-get install --no-install-recommends {PACKAGES}")
    folders: list[Path] = []

    def start(*options: str) -> Cluster:
        folder = Path(tempfile.mkdtemp(prefix="sl", dir="/tmp"))  # short: unix sockets lie below it
        folders.append(folder)
        script = HERE / "start-local-slurm.sh"
        done = subprocess.run([script, *options, folder], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, (done.stdout, done.stderr)
        without_job = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        return Cluster({**without_job, "SLURM_CONF": str(folder / "etc" / "slurm.conf")})

    try:
        yield start
    finally:
        for folder in folders:
            subprocess.run([HERE / "stop-local-slurm.sh", "--purge", folder], timeout=240)


@pytest.fixture(scope="session")
def cluster(start_cluster: Callable[..., Cluster]) -> Cluster:
    """Two nodes; preempted jobs have 20 seconds; sacct answers, and limits of accounts are enforced."""
    return start_cluster("--accounting", "--limits", "--grace", "20")


@pytest.fixture(scope="session")
def plain_cluster(start_cluster: Callable[..., Cluster]) -> Cluster:
    """Without accounting: sacct fails there."""
    return start_cluster()
