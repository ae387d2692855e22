"""`prefopt pairs shard=slurm` as a job array on a real SLURM: its tasks make together what one process makes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from rig import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pairs"))
from pairs_bed import Made, make_base

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_tasks_of_an_array_make_the_files_of_one_process(plain_cluster: Cluster, tmp_path: Path) -> None:
    make_base()
    undisturbed, made = Made(tmp_path / "undisturbed"), Made(tmp_path / "out", ("shard=slurm",))
    assert undisturbed.run().returncode == 0
    command = shlex.join([sys.executable, "-m", "prefopt.cli", *made.words])
    submitted = ["sbatch", "--parsable", "--array=0-2", f"--output={tmp_path}/%a.log", "--wrap", command]
    job = plain_cluster.run(*submitted, cwd=tmp_path)
    plain_cluster.wait_for_end(job)
    told = [(tmp_path / f"{task}.log").read_text() for task in range(3)]
    assert made.results() == undisturbed.results(), told
    assert made.complaints() == []
    assert any(f"{made.out} is done: " in one for one in told)
