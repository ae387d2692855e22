"""The batch script: what is submitted, what --sbatch-only prints, and what `sbatch` takes by hand.

It holds everything: the words of every job are in it, and it needs no file that prefopt would have to write first.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.sweeps.settings import SlurmSettings


@dataclass(frozen=True)
class Entry:
    """One job of a script: its number in the sweep, the identity of its run, and the words after `prefopt`."""

    number: int
    identity: str
    words: Sequence[str]


def batch_script(settings: SlurmSettings, folder: Path, name: str, entries: Sequence[Entry]) -> str:
    """A script for one job, or for an array with a task for each.

    folder: of the sweep, relative to the folder that this is started in; logs lie there as job-NUMBER.log.

    Raises: UserError where submitit is not installed.
    """
    array = len(entries) > 1
    number = "$SLURM_ARRAY_TASK_ID" if array else str(entries[0].number)
    directives: dict[str, Any] = {
        "chdir": str(Path.cwd()),
        "output": str(folder / f"job-{'%a' if array else number}.log"),
        "no-requeue" if settings.max_requeues == 0 else "requeue": True,
    }
    if array:
        together = settings.array_parallelism
        numbers = ",".join(str(entry.number) for entry in entries)
        directives["array"] = f"{numbers}%{together}" if together else numbers
    parameters = {
        "job_name": name,
        "partition": settings.partition,
        "time": settings.timeout_min,
        "nodes": settings.nodes or 1,
        "ntasks_per_node": 1,  # prefopt starts the ranks of its node itself
        "cpus_per_task": settings.cpus_per_task,
        "gpus_per_node": settings.gpus_per_node or None,
        "mem": None if settings.mem_gb is None else f"{round(settings.mem_gb * 1024)}M",
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "signal_delay_s": settings.signal_delay_s,
        "setup": [*settings.preamble, *_words(entries, array), f"log={shlex.quote(str(folder))}/job-{number}.log"],
        "teardown": _requeue(array),
        "stderr_to_stdout": True,
        "use_srun": False,
        "wckey": None,
        "additional_parameters": {**directives, **settings.sbatch},
    }
    return _render(_srun(settings), folder, parameters)


def _words(entries: Sequence[Entry], array: bool) -> list[str]:
    lines = [f"identity={entry.identity} words=({shlex.join(entry.words)})" for entry in entries]
    if not array:
        return lines
    cases = [f"{entry.number}) {line} ;;" for entry, line in zip(entries, lines)]
    return ["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"]


def _requeue(array: bool) -> list[str]:
    # The last task of an array has the array's own number in SLURM_JOB_ID, by which all tasks would run again.
    job = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if array else "$SLURM_JOB_ID"
    return [
        "code=$?",
        "# The run saved and ended before SLURM had to end it: SLURM itself would not run it again.",
        'if [ -e "${log%.log}.requeue" ]; then',
        f'  scontrol requeue "{job}"',
        "fi",
        "exit $code",
    ]


def _srun(settings: SlurmSettings) -> str:
    # A node that ends first, with code 75, must not have the others killed while they close. srun does not take over
    # --cpus-per-task from the job since SLURM 22.05.
    cpus = [] if settings.cpus_per_task is None else [f"--cpus-per-task={settings.cpus_per_task}"]
    python = settings.python or shlex.quote(sys.executable)
    job = f'{python} -m prefopt.slurm.job "$log" {settings.max_requeues} "$identity" "${{words[@]}}"'
    return " ".join(["srun", "--kill-on-bad-exit=0", *cpus, job])


def _render(command: str, folder: Path, parameters: dict[str, Any]) -> str:
    """The text by submitit.

    submitit also submits and runs: a pickled function that finds itself by the number that SLURM gave its job. That
    cannot be read, nor submitted by hand; its runner takes no notice of SIGTERM, calls a job that failed successful,
    and waits for ever where there is no sacct. So what runs is `prefopt/slurm/job.py`, and submitit writes the script.
    """
    try:
        from submitit.slurm.slurm import _make_sbatch_string
    except ImportError:
        raise UserError(
            "hydra/launcher=slurm needs submitit, which is not installed", 'pip install "prefopt[slurm]"'
        ) from None
    return _make_sbatch_string(command=command, folder=folder, **parameters) + "\n"
