"""The words of `prefopt train`: one run, several, or what would be run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt import cli_help
from prefopt.cli_words import Parser
from prefopt.errors import UserError
from prefopt.output import print_object, turned

if TYPE_CHECKING:
    from prefopt.config import Composition
    from prefopt.sweeps.groups import Starting


def train(words: list[str]) -> int:
    """Run the command; its exit code.

    Raises: UserError for words that it has not, and for whatever keeps the run from starting.
    """
    parser = Parser("train")
    for name in ("--dry-run", "--show-config", "--sbatch-only", "--quiet", "--json"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--repeat", type=Path)
    parser.add_argument("--allow-change", action="append", default=[], metavar="KEY")
    options = parser.read(words)
    if options.help:
        print(cli_help.train_help(options.config_dir), end="")
        return 0
    from prefopt.sweeps.groups import split

    if options.sbatch_only and not any(word.startswith("hydra/launcher=") for word in options.overrides):
        options.overrides.append("hydra/launcher=slurm")
    options.overrides, starting = split(options.overrides, options.config_dir, is_sweep=options.multirun)
    _check_starting(options, starting)
    with turned(options.quiet, options.json):
        code, folder = _train(words, options, starting)
    if options.json and folder is not None:
        from prefopt.run_result import ended

        print_object(ended(folder, code))
    return code


def _train(words: list[str], options: argparse.Namespace, starting: Starting) -> tuple[int, Path | None]:
    """The exit code, and the folder of a run that was started."""
    if options.multirun or not starting.launcher.waits:
        from prefopt.sweeps.run import sweep

        single = not options.multirun
        code = sweep(options.overrides, options.config_dir, starting, options.dry_run, single, options.sbatch_only)
        return code, None
    composition, fingerprint = _compose_or_repeat(options)
    from rich.console import Console

    console = Console()
    if options.show_config:
        from prefopt.config import list_sources
        from prefopt.dry_run import print_settings

        print_settings(list_sources(composition), console)
        return 0, None
    from prefopt.checks import check

    check(composition.run)
    if options.dry_run:
        from prefopt.dry_run import dry_run

        return dry_run(composition, console, options.allow_change), None
    from prefopt.launch import train

    run, command = composition.run, ["prefopt", "train", *words]
    code = train(run, command, console, fingerprint, options.allow_change, composition.origins)
    return code, Path(run.dir)


def _check_starting(options: argparse.Namespace, starting: Starting) -> None:
    """Refuse options that have no meaning for several runs, and choices that have none for one.

    Raises: UserError naming it.
    """
    _check_output(options)
    if options.sbatch_only and starting.launcher.name != "slurm":
        raise UserError(f"--sbatch-only: hydra/launcher={starting.launcher.name} has no batch script", "leave it out")
    if options.multirun or not starting.launcher.waits:
        here = "leave -m out" if options.multirun else f"leave hydra/launcher={starting.launcher.name} out"
        if options.show_config:
            raise UserError("--show-config shows one run", here)
        if options.repeat:
            raise UserError("--repeat repeats one run, here", here)
        if options.allow_change:
            raise UserError("--allow-change goes on with one run, here", here)
        if options.json:
            raise UserError("--json shows the result of one run", f"{here}, or ask prefopt sweep status --json")
    if options.allow_change and (options.repeat or options.show_config):
        other = "--repeat" if options.repeat else "--show-config"
        raise UserError(f"--allow-change has no effect beside {other}", "leave one of them out")
    if options.multirun:
        return
    if "hydra/sweeper" in starting.given:
        raise UserError("hydra/sweeper has no effect on one run", "add -m")
    if starting.launcher.waits and starting.launcher.name != "local":
        raise UserError(f"hydra/launcher={starting.launcher.name} has no effect on one run", "add -m")


def _check_output(options: argparse.Namespace) -> None:
    """Raises: UserError where --quiet or --json stands beside what prints something else."""
    shows = [name for name in ("dry_run", "show_config", "sbatch_only") if getattr(options, name)]
    asked = [name for name in ("quiet", "json") if getattr(options, name)]
    if shows and asked:
        raise UserError(f"--{asked[0]} has no effect beside --{shows[0].replace('_', '-')}", "leave one of them out")


def _compose_or_repeat(options: argparse.Namespace) -> tuple[Composition, str | None]:
    """The run, and the fingerprint that its data must have where it repeats another."""
    if options.repeat is None:
        return composed(options), None
    from prefopt.repeat import repeat

    return repeat(options.repeat, options.overrides)


def composed(options: argparse.Namespace) -> Composition:
    """The run of these options, with its notes on stderr.

    Raises: UserError for anything that cannot be composed.
    """
    from prefopt.config import compose_with_origins

    composition = compose_with_origins(options.overrides, options.config_dir)
    for note in composition.notes:
        print(f"prefopt: {note}", file=sys.stderr)
    return composition
