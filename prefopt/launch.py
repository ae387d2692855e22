"""A composed run to ranks: data first, then the run folder, then the processes that read it.

Everything that can be refused is refused before a folder exists; everything that is written is written whole. The ranks
read the run folder and nothing else. Of several nodes the first does all of this, and the others wait for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt import rank_logs
from prefopt.batch import WeighsMargins
from prefopt.cache import cache_folder
from prefopt.changes import changes_budget, compare, go_on, newest_step
from prefopt.checks import check_num_margins
from prefopt.company import Company
from prefopt.config import identity
from prefopt.console import PLAIN
from prefopt.data_summary import data_lines
from prefopt.disk import write_whole
from prefopt.durable import clear_drafts
from prefopt.errors import UserError
from prefopt.handshake import Listener, Peer, ask_whether_shared, connect, greeting, hang_up, wait_for_start
from prefopt.lock import Lock, locked
from prefopt.loss_code import loss_code, loss_semantics
from prefopt.losses import make_loss
from prefopt.manifest import new_manifest, start_record
from prefopt.masking import masked_values
from prefopt.nodes import Meeting, find_meeting
from prefopt.positions_check import check_positions
from prefopt.rank_group import interruptible
from prefopt.ranks import World, accelerate_config, free_port, needs_accelerate, plan_world
from prefopt.run_folder import (
    BUDGET,
    EXIT,
    LOCK,
    MANIFEST,
    OURS,
    RUN,
    State,
    clear_before_anew,
    find_state,
    make_folder,
    read_json,
)
from prefopt.settings import DataSettings, RunSettings
from prefopt.start_ranks import start_ranks, started_early

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.data.dataset import Prepared


def train(
    run: RunSettings,
    words: list[str],
    console: Console,
    fingerprint: str | None = None,
    allowed: Sequence[str] = (),
    sources: Mapping[str, str] | None = None,
) -> int:
    """Train, or go on with, a checked run; the exit code of its ranks.

    run: as composed and checked. words: the command line, for the manifest. fingerprint: what the data must have, where
    a run is repeated. allowed: keys that may differ from the run in the folder. sources: key to the file that set it or
    "command line", for the manifest.

    Raises: UserError or RunError for whatever keeps the ranks from starting; then nothing new is left behind.
    """
    with interruptible():
        world = plan_world(run)
        if world.num_nodes == 1:
            return _lead(run, words, console, fingerprint, allowed, sources or {}, world)
        meeting = find_meeting(run.launch, world.num_nodes)
        own = greeting(run, world.recorded(), world.node_rank)
        if world.node_rank > 0:
            return _follow(run, console, world, meeting, own)
        listener = Listener(meeting)
        console.print(f"node 0 of {world.num_nodes} waits for the others at port {listener.port}", **PLAIN)
        peers = listener.gather(own, world.num_nodes, run.launch.timeout_minutes)
        try:
            code = _lead(run, words, console, fingerprint, allowed, sources or {}, world, peers, meeting.host)
        except BaseException as error:
            hang_up(peers, error)
            raise
        hang_up(peers, None, code)
        return code


def _lead(
    run: RunSettings,
    words: list[str],
    console: Console,
    fingerprint: str | None,
    allowed: Sequence[str],
    sources: Mapping[str, str],
    world: World,
    peers: list[Peer] | None = None,
    host: str = "",
) -> int:
    """The whole of a run on one node, or node 0's part of it. peers: the other nodes, who find this one at `host`."""
    from prefopt import demo

    folder = Path(run.dir)
    before = find_state(folder, run, None, allowed)  # another run's folder is refused before the data are read
    cache = cache_folder(run.data)
    real = demo.resolve(run, cache)
    with nullcontext() if before is State.DONE else started_early(real, world) as early:
        prepared = prepare_data(real, cache)
        print_data(prepared, run.data, console)
        if fingerprint is not None and prepared.fingerprint != fingerprint:
            raise UserError("--repeat: the data, the tokenizer or the template is not what the run was trained on")
        check_positions(real, prepared)
        find_state(folder, run, prepared.fingerprint, allowed)  # before it is touched
        with _claimed(folder) as lock:
            clear_drafts(folder)
            state = find_state(folder, run, prepared.fingerprint, allowed)
            if state is State.DONE:
                console.print(f"{folder} is done: see its model and result.json", **PLAIN)
                return 0
            if peers:
                ask_whether_shared(peers, folder, _read_by_ranks(real, prepared))
            if state is State.ANEW:
                clear_before_anew(folder)
                console.print(f"{folder} held a run that had done no step; it starts anew", **PLAIN)
            with _whole_or_nothing(folder, state):
                said = write_folder(folder, state, run, real, prepared, world, words, sources)
            for line in said:
                console.print(line, **PLAIN)
            word = "starts" if state is not State.RESUMED else "goes on" if newest_step(folder) else "starts again"
            learns = f"loss={run.loss['name']}, optim.lr={run.optim.lr:g}"
            console.print(f"{run.name} {word} in {folder} on {_where(world)}: {learns}", **PLAIN)
            (folder / EXIT).unlink(missing_ok=True)
            rank_logs.clear(folder)
            port = free_port()
            for peer in peers or []:
                peer.send(what="go", port=port)
            company = Company(peers, is_head=True) if peers else None
            code = start_ranks(real, world, port, host, lock, company, early)
    if code == 0 and demo.is_demo(real):
        demo.report(folder, console)
    return code


@contextmanager
def _claimed(folder: Path) -> Iterator[Lock]:
    """The lock of the run folder, which is made where there is none; one that stays empty goes again.

    Raises: RunError where the folder cannot be made or written; UserError where somebody works in it.
    """
    was_made = make_folder(folder)
    try:
        with locked(folder) as lock:
            yield lock
    finally:
        if was_made:
            with suppress(OSError):  # it has become a run, by this start or by another
                folder.rmdir()


@contextmanager
def _whole_or_nothing(folder: Path, state: State) -> Iterator[None]:
    """Around the writing of a new run: where it comes to nothing, what was written goes. The lock is held."""
    try:
        yield
    except BaseException:
        for name in OURS - {LOCK} if state is State.NEW else ():
            with suppress(OSError):  # the disk that failed may fail again
                (folder / name).unlink(missing_ok=True)
        raise


def _follow(run: RunSettings, console: Console, world: World, meeting: Meeting, own: dict[str, Any]) -> int:
    """The part of a node that is not node 0: it prepares and writes nothing, and runs its ranks when told to."""

    def say(line: str) -> None:
        console.print(f"node {world.node_rank} of {world.num_nodes} {line}", **PLAIN)

    head = connect(meeting, own, run.launch.timeout_minutes, say)
    try:
        say(f"waits while {head.name} prepares the run")
        told = wait_for_start(head, Path(run.dir))
        if told["what"] == "over":
            if told["code"]:
                raise UserError(f"{head.name} ended: {told['said']}", told["hint"], told["code"])
            say(f"has nothing to do: {run.dir} is done")
            return 0
        say(f"runs ranks {world.own_ranks[0]} to {world.own_ranks[-1]} in {run.dir}")
        return start_ranks(run, world, told["port"], meeting.host, company=Company([head], is_head=False))
    finally:
        head.close()


def _read_by_ranks(run: RunSettings, prepared: Prepared) -> list[Path]:
    """What the ranks of every node read besides the run folder, as far as it lies on a disk."""
    named = (run.model.path, run.model.tokenizer, run.model.reference)
    artefacts = [Path(one["artefact"]) for ones in prepared.describe()["sources"].values() for one in ones]
    return [*artefacts, *(Path(path).resolve() for path in named if path and Path(path).exists())]


def tokenizer_path(run: RunSettings) -> str:
    """Where the tokenizer comes from."""
    return run.model.tokenizer or run.model.path


def prepare_data(run: RunSettings, cache: Path) -> Prepared:
    """The encoded data of a run whose paths are real ones.

    Raises: UserError for rows, files and templates that cannot serve; RunError for disk and network.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with _deepspeed_quiet():
        from prefopt.data.dataset import prepare
        from prefopt.train.mismatched import check_prompts_differ

    loss = make_loss(run.loss)
    revision = run.model.revision if run.model.tokenizer is None else None
    prepared = prepare(run.data, tokenizer_path(run), loss.needs, cache, revision)
    for rows in filter(len, (prepared.train, *prepared.eval.values())):
        if isinstance(loss, WeighsMargins) and loss.num_margins and not run.data.margins:
            (first, *_) = rows[0].margins or [[]]
            check_num_margins(run, loss.num_margins, len(first), f"the rows of {rows.name} have")
        if "kl" in loss.needs:
            check_prompts_differ(rows.prompt_hashes, rows.name)
    return prepared


@contextmanager
def _deepspeed_quiet() -> Iterator[None]:
    """This process computes nothing: DeepSpeed, which transformers imports, need not look for a GPU and say so."""
    before = os.environ.get("DS_ACCELERATOR")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        yield
    finally:
        if before is None:
            del os.environ["DS_ACCELERATOR"]


def print_data(prepared: Prepared, settings: DataSettings, console: Console) -> None:
    """A few lines on what became of the rows."""
    for line in data_lines(prepared.report, settings):
        console.print(line, **PLAIN)


def write_folder(
    folder: Path,
    state: State,
    run: RunSettings,
    real: RunSettings,
    prepared: Prepared,
    world: World,
    words: list[str],
    sources: Mapping[str, str] | None = None,
) -> list[str]:
    """Everything the ranks read and a reader needs; run.yaml last, because it makes the folder a run.

    sources: where each setting is from; None: not known. Returns lines to say: what differs from the run that goes on,
    which `find_state` has found to be allowed.

    Raises: RunError where the disk is full or may not be written.
    """
    import yaml

    report = masked_values(prepared.report)  # rows may quote what they hold
    write_whole(folder / "data.json", _json({**prepared.describe(), "report": report}))
    write_whole(folder / "data_report.json", _json(report))
    left_out = masked_values(prepared.left_out)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in left_out)
    write_whole(folder / "left_out.jsonl", lines)
    if run.data.eval_size:
        held_out = masked_values([{"id": one} for one in prepared.eval["heldout"].ids])
        write_whole(folder / "held_out.jsonl", "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in held_out))
    if needs_accelerate(run, world):
        write_whole(folder / "accelerate.yaml", accelerate_config(run, world))
    where = {**world.recorded(), "engine": run.engine}
    said: list[str] = []
    manifest = read_json(folder / MANIFEST) if state is State.RESUMED else None
    if manifest is None:
        code = loss_code(run.loss)
        manifest = new_manifest(asdict(run), identity(run), prepared.fingerprint, where, words, code)
    else:
        if changes_budget(compare(manifest, run, prepared.fingerprint)):
            (folder / BUDGET).unlink(missing_ok=True)
        said = go_on(manifest, run, prepared.fingerprint, start_record(words, where), folder)
    manifest["loss_semantics"] = loss_semantics(run.loss)
    if sources:
        manifest["sources"] = masked_values(dict(sources))
    write_whole(folder / MANIFEST, _json(manifest))
    write_whole(folder / RUN, yaml.safe_dump(asdict(real), sort_keys=False, allow_unicode=True))
    return said


def _where(world: World) -> str:
    one, many = ("GPU", "GPUs") if world.device == "cuda" else ("CPU process", "CPU processes")
    nodes = f" of {world.num_nodes} nodes" if world.num_nodes > 1 else ""
    return f"{world.num_processes} {one if world.num_processes == 1 else many}{nodes}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
