"""A composed run to ranks: data first, then the run folder, then the processes that read it.

Everything that can be refused is refused before a folder exists; everything that is written is written whole. The ranks
read the run folder and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.batch import WeighsMargins
from prefopt.cache import cache_folder
from prefopt.checks import check_num_margins
from prefopt.config import identity
from prefopt.console import PLAIN
from prefopt.data_summary import data_lines
from prefopt.errors import UserError
from prefopt.losses import make_loss
from prefopt.manifest import new_manifest, start_record
from prefopt.ranks import (
    World,
    accelerate_config,
    command,
    environment,
    free_port,
    needs_accelerate,
    plan_world,
    run_ranks,
)
from prefopt.run_folder import (
    EXIT,
    MANIFEST,
    RUN,
    Lock,
    State,
    find_state,
    locked,
    make_folder,
    read_json,
    write_whole,
)
from prefopt.settings import DataSettings, RunSettings

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.data.dataset import Prepared


def train(run: RunSettings, words: list[str], console: Console, fingerprint: str | None = None) -> int:
    """Train, or go on with, a checked run; the exit code of its ranks.

    run: as composed and checked. words: the command line, for the manifest. fingerprint: what the data must have, where
    a run is repeated.

    Raises: UserError or RunError for whatever keeps the ranks from starting; then nothing new is left behind.
    """
    from prefopt import demo

    world = plan_world(run)
    folder = Path(run.dir)
    find_state(folder, run, asdict(world), None)  # another run's folder is refused before the data are read
    cache = cache_folder(run.data)
    real = demo.resolve(run, cache)
    prepared = prepare_data(real, cache)
    print_data(prepared, run.data, console)
    if fingerprint is not None and prepared.fingerprint != fingerprint:
        raise UserError("--repeat: the data, the tokenizer or the template is not what the run was trained on")
    was_made = make_folder(folder)
    started = False
    try:
        with locked(folder) as lock:
            state = find_state(folder, run, asdict(world), prepared.fingerprint)
            if state is State.DONE:
                console.print(f"{folder} is done: see its model and result.json", **PLAIN)
                return 0
            write_folder(folder, state, run, real, prepared, world, words)
            started = True
            word = "goes on" if state is State.RESUMED else "starts"
            console.print(f"{run.name} {word} in {folder} on {_where(world)}", **PLAIN)
            code = start_ranks(real, world, folder, lock)
    finally:
        if was_made and not started:
            _remove(folder)
    if code == 0 and demo.is_demo(real):
        demo.report(folder, console)
    return code


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
) -> None:
    """Everything the ranks read and a reader needs; run.yaml last, because it makes the folder a run.

    Raises: RunError where the disk is full or may not be written.
    """
    import yaml

    write_whole(folder / "data.json", _json(prepared.describe()))
    write_whole(folder / "data_report.json", _json(prepared.report))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in prepared.left_out)
    write_whole(folder / "left_out.jsonl", lines)
    if needs_accelerate(run, world):
        write_whole(folder / "accelerate.yaml", accelerate_config(run, world))
    manifest = read_json(folder / MANIFEST) if state is State.RESUMED else None
    if manifest is None:
        manifest = new_manifest(asdict(run), identity(run), prepared.fingerprint, world.recorded(), words)
    else:
        manifest["starts"].append(start_record(words))
    write_whole(folder / MANIFEST, _json(manifest))
    write_whole(folder / RUN, yaml.safe_dump(asdict(real), sort_keys=False, allow_unicode=True))


def start_ranks(run: RunSettings, world: World, folder: Path, lock: Lock) -> int:
    """Run the ranks to their end; the exit code that a rank wrote down, else the process's own.

    `accelerate launch` gives 1 for everything, so a rank that knows better writes exit.json.
    """
    (folder / EXIT).unlink(missing_ok=True)
    sys.stdout.flush()
    code = run_ranks(command(run, world, free_port()), environment(run, world), started=lock.add_child)
    if code == 0:
        return 0
    said = read_json(folder / EXIT)
    return int(said["exit_code"]) if said is not None and said.get("exit_code") else code


def _where(world: World) -> str:
    one, many = ("GPU", "GPUs") if world.device == "cuda" else ("CPU process", "CPU processes")
    nodes = f" of {world.num_nodes} nodes" if world.num_nodes > 1 else ""
    return f"{world.num_processes} {one if world.num_processes == 1 else many}{nodes}"


def _remove(folder: Path) -> None:
    """Take away a folder that this start made and never got to use."""
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
