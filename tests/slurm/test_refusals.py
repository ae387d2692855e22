"""What is said where SLURM refuses or does not answer; its commands are scripts here, and no SLURM is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefopt.slurm.commands import LimitError, SlurmError, submit, unanswered
from prefopt.slurm.refusals import with_key
from prefopt.sweeps.settings import SlurmSettings

NO_CONTROLLER = "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host"


def command(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, does: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{does}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "sbatch: invalid partition specified: gpu; Invalid partition name specified",
            "hydra.launcher.partition=gpu: ",
        ),
        ("sbatch: Invalid generic resource (gres) specification", "hydra.launcher.gpus_per_node=1: "),
        ("sbatch: Invalid qos specification", ""),  # none was asked for
        ("sbatch: Node count specification invalid", ""),
    ],
)
def test_a_refusal_names_the_key_that_it_is_about(said: str, hint: str) -> None:
    error = with_key(SlurmError(said), SlurmSettings(partition="gpu", gpus_per_node=1))
    assert error.message == said
    assert error.hint.startswith(hint) if hint else not error.hint


def test_a_limit_stays_a_limit() -> None:
    assert isinstance(with_key(LimitError("Invalid partition"), SlurmSettings(partition="gpu")), LimitError)


def test_without_a_controller_our_sentence_comes_before_slurms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(tmp_path, monkeypatch, "sbatch", f"echo '{NO_CONTROLLER}' >&2; exit 1")
    with pytest.raises(SlurmError) as caught:
        submit(tmp_path / "job.sh")
    ours, _, theirs = caught.value.message.partition(" (")
    assert ours == "SLURM's controller does not answer; is this a login node of the cluster?"
    assert "Unknown host" in theirs


@pytest.mark.parametrize(
    ("does", "said"),
    [("echo batch", ""), ("exec sleep 20", "no answer in"), ("echo 'sinfo: error: no' >&2; exit 1", "sinfo: no")],
)
def test_whether_the_controller_answers_is_known_in_time(
    does: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, monkeypatch, "sinfo", does)
    found = unanswered(1.0)
    assert said in found if said else not found
