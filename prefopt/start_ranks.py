"""The ranks of this node, from their start to an exit code that is true, and a sentence where they failed."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from prefopt import compiled, rank_logs
from prefopt.company import Company, Ending
from prefopt.disk import write_whole
from prefopt.early_rank import EarlyRank, early_rank
from prefopt.errors import FAILURE, RunError, UserError, stopped_unsaved
from prefopt.lock import Lock
from prefopt.rank_group import RankGroup
from prefopt.rank_logs import Death, write_death
from prefopt.ranks import World, command, environment, needs_accelerate
from prefopt.run_folder import EXIT, RESULT, read_json
from prefopt.settings import RunSettings


def start_ranks(
    run: RunSettings,
    world: World,
    port: int,
    host: str = "",
    lock: Lock | None = None,
    company: Company | None = None,
    early: EarlyRank | None = None,
) -> int:
    """Run this node's ranks to their end; the exit code of the run, the same on all nodes.

    host, port: where the ranks find each other. lock: held by the ranks too. company: the other nodes.
    early: the one rank, where it has been started already (`started_early`).
    """
    folder = Path(run.dir)
    group = RankGroup()
    if lock is not None:
        lock.on_lost = lambda said: group.end(said, grace=0)
    if company is not None:
        company.watch(group)
    added = _environment(run, world)
    if run.deepspeed.config is not None:
        compiled.free_abandoned()
    sys.stdout.flush()
    with rank_logs.shown(folder, world.own_ranks):
        code = group.run(command(run, world, port, host), added, _nobody if lock is None else lock.add_child, early)
    ending, error = _ending(folder, code, group, alone=not needs_accelerate(run, world))
    if error is not None:
        print(f"prefopt: {error}", file=sys.stderr)
    # A rank that lost its peers knew less. A folder that is gone was what the ranks were ended for.
    if group.ended_for and lock is not None and not ending.is_sure and folder.is_dir():
        write_whole(folder / EXIT, json.dumps({"exit_code": FAILURE, "message": str(error)}))
    return ending.code if company is None else company.close(ending)


def started_early(run: RunSettings, world: World) -> AbstractContextManager[EarlyRank | None]:
    """The rank of a run that has only one, while its data are prepared; None where there are more."""
    if needs_accelerate(run, world):
        return nullcontext()
    return early_rank(command(run, world, port=0), _environment(run, world))


def _environment(run: RunSettings, world: World) -> dict[str, str]:
    return {**environment(run, world), rank_logs.VARIABLE: str(Path(run.dir).resolve())}


def _ending(folder: Path, code: int, group: RankGroup, alone: bool) -> tuple[Ending, UserError | None]:
    """How the ranks ended, and what is still to be said: a rank with something to say has said it itself.

    `accelerate launch` gives 1 for everything, so a rank that knows better writes exit.json, and for one that cannot
    its launcher does, naming the rank.
    """
    if (folder / RESULT).exists():
        return Ending(0, is_sure=True), None
    try:
        said = read_json(folder / EXIT)
    except UserError:  # a disk that the ranks could not write can often not be read either; they have said so
        said = None
    if said is not None and "rank" not in said:
        line = _first_line(said["message"])
        # On a full disk the rank's own words did not get into its log, from which they are shown.
        unsaid = None if rank_logs.holds(folder, line) else RunError(*_parted(said["message"]))
        return Ending(int(said["exit_code"]), is_sure=True, said=line), unsaid
    if group.signal is not None:
        error = stopped_unsaved(group.signal)
        return Ending(error.exit_code, is_sure=True, said=error.message), error
    if group.ended_for:
        error = RunError(group.ended_for, "the ranks of this node were ended; the same command goes on")
        return Ending(FAILURE, said=error.message), error
    if said is None:
        said = _note(folder, code, alone)
    error = RunError(*_parted(said["message"]))
    return Ending(code or FAILURE, said=error.message), error


def _note(folder: Path, code: int, alone: bool) -> dict[str, Any]:
    """What is written down for ranks that ended without a word, of themselves or of their launcher."""
    if code == 0:
        return {"message": "the ranks ended without an error, and without a result"}
    if not alone:
        return {"message": f"the launcher of the ranks ended with exit code {code}"}
    death = Death(code if code <= 128 else 128 - code)
    return write_death(folder, {0: death})


def _nobody(_pid: int) -> None:
    """Who is told of the ranks of a node that holds no lock."""


def _parted(message: str) -> tuple[str, str]:
    first, _, rest = message.partition("\n")
    return first, rest.strip()


def _first_line(message: str) -> str:
    return message.splitlines()[0] if message else ""
