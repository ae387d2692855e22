"""`--dry-run`: everything but the training. Loads no weights; all it writes is a cache of its own, which it deletes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.config import Composition, list_sources
from prefopt.console import PLAIN
from prefopt.launch import prepare_data, print_data, tokenizer_path
from prefopt.losses import make_loss
from prefopt.nodes import host_of_node_0
from prefopt.positions_check import check_positions
from prefopt.ranks import World, accelerate_config, command, environment, needs_accelerate, plan_world, shown
from prefopt.run_folder import find_state
from prefopt.settings import RunSettings, TrainSettings

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.data.dataset import Prepared


def dry_run(composition: Composition, console: Console, allowed: Sequence[str] = ()) -> int:
    """Print what `prefopt train` would do; 0. allowed: keys that may differ from the run in the folder.

    Raises: UserError as `launch.train` would.
    """
    from prefopt import demo

    run = composition.run
    world = plan_world(run)
    state = find_state(Path(run.dir), run, None, allowed)
    with tempfile.TemporaryDirectory(prefix="prefopt-dry-run-") as cache:
        real = demo.resolve(run, Path(cache), weights=False)
        prepared = prepare_data(real, Path(cache))
        heading(console, "data")
        print_data(prepared, run.data, console)
        check_positions(real, prepared)
        heading(console, "template")
        for line in template_lines(real, tokenizer_path(run)):
            console.print(line, **PLAIN)
        heading(console, "plan")
        for line in plan_lines(run, prepared, world):
            console.print(line, **PLAIN)
    heading(console, "launch")
    console.print(f"folder: {run.dir} ({state.value})", **PLAIN)
    for line in launch_lines(run, world):
        console.print(line, **PLAIN)
    heading(console, "settings")
    print_settings(list_sources(composition), console)
    return 0


def launch_lines(run: RunSettings, world: World) -> list[str]:
    """accelerate's configuration where it is used, and the command of each node; port 0 stands for one found then."""
    lines = []
    if needs_accelerate(run, world):
        lines = ["accelerate.yaml:", *(f"  {line}" for line in accelerate_config(run, world).splitlines())]
    host = host_of_node_0(run.launch)
    for node in range(world.num_nodes):
        if world.num_nodes > 1:
            lines.append(f"node {node}:")
        here = replace(world, node_rank=node)
        lines.append(shown(command(run, here, port=0, host=host), environment(run, here)))
    return lines


def plan_lines(run: RunSettings, prepared: Prepared, world: World) -> list[str]:
    """Steps and micro-batches of the run, prompts shared wherever model.layout allows it."""
    from prefopt.data.plan import make_plan, plan_notes
    from prefopt.train.rows import Rows

    shares = run.model.layout in ("auto", "shared")
    rows = Rows(prepared.train, make_loss(run.loss).needs, shares)
    train = run.train
    plan = make_plan(
        rows.counts,
        prepared.train.sources,
        batch_size=train.batch_size,
        epochs=train.epochs,
        max_steps=train.max_steps,
        seed=train.seed,
    )
    num_steps = len(plan)
    looked_at = range(min(num_steps, 50))
    is_measured = train.tokens_per_micro_batch == "auto"
    budget = TrainSettings().tokens_per_micro_batch if is_measured else train.tokens_per_micro_batch
    micro_batches = [rows.cut(plan.steps[s], world.num_processes, budget).num_micro_batches for s in looked_at]
    tokens = [int(rows.costs[plan.steps[step]].sum()) for step in looked_at]
    ends = ", ".join(map(str, plan.epoch_ends))
    lines = [
        f"steps: {_steps(plan.sizes(rows.counts), rows.unit)}, epochs end after {ends}",
        *plan_notes(plan, rows.counts, prepared.train.sources, train, rows.unit),
        f"micro-batches a step and rank: {min(micro_batches)} to {max(micro_batches)}"
        f" of at most {budget} tokens (first {len(micro_batches)} steps)"
        + ("; auto measures when the run starts" if is_measured else ""),
        f"tokens a step: {sum(tokens) / len(tokens):.0f} on average{', prompts shared' if shares else ''}",
    ]
    return lines


def _steps(sizes: list[int], unit: str) -> str:
    """How many steps of how many pairs: "5 of 8 pairs (1 of them smaller, 3)"; an epoch's last one holds the rest."""
    largest = max(sizes)
    smaller = sorted(size for size in sizes if size < largest)
    if not smaller:
        return f"{len(sizes)} of {largest} {unit}"
    span = f"{smaller[0]}" if smaller[0] == smaller[-1] else f"{smaller[0]} to {smaller[-1]}"
    return f"{len(sizes)} of {largest} {unit} ({len(smaller)} of them smaller, {span})"


def template_lines(run: RunSettings, named: str) -> list[str]:
    """Which chat template the rows go through. named: the tokenizer as the user named it."""
    from prefopt.data.tokenizer import load_tokenizer

    revision = run.model.revision if run.model.tokenizer is None else None
    tokenizer = load_tokenizer(tokenizer_path(run), revision, run.data.chat_template)
    given = run.data.chat_template or ""
    is_text = "{{" in given or "{%" in given
    source = f"data.chat_template={'(a text)' if is_text else given}" if given else named
    if tokenizer.chat_template is None:
        return [f"none in {source}: rows must be plain text", f"EOS: {tokenizer.eos_token!r}"]
    return [f"taken from {source}", f"BOS: {tokenizer.bos_token!r}, EOS: {tokenizer.eos_token!r}"]


def print_settings(sources: list[tuple[str, Any, str]], console: Console) -> None:
    """Each final setting, its value, and where it came from."""
    rows = [(key, _as_yaml(value), origin) for key, value, origin in sources]
    width = max(len(key) for key, _, _ in rows)
    value_width = min(48, max(len(value) for _, value, _ in rows))
    for key, value, origin in rows:
        console.print(f"{key:<{width}}  {value:<{value_width}}  {origin}", **PLAIN)


def heading(console: Console, text: str) -> None:
    """A line that separates parts of the output."""
    console.print(f"\n{text}", style="bold", **PLAIN)


def _as_yaml(value: object) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
